"""Deformable separable convolution (DSepConv, AAAI 2020; as LDMVFI uses it, arXiv:2303.09508).

Every output pixel is a sum of F * F free bilinear taps, weighted by the product of a column, a row and a mask.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from . import _cpu, _cuda
from ._pixels import Launch, add, check_floating, compute_type, read, stored_type

_Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def dsepconv(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """Samples ``input`` at F * F taps a pixel, each moved by its own offset, and sums them by separable weights.

    ``input`` (N, C, H + F - 1, W + F - 1), already padded; ``vertical``, ``horizontal`` (N, F, H, W); ``offset_x``,
    ``offset_y``, ``mask`` (N, F*F, H, W), tap i*F + j being row tap i and column tap j; returns (N, C, H, W). The
    weight of a tap is ``vertical[i] * horizontal[j] * mask[i*F + j]``; nothing is normalised.

    As published: ``offset_x`` moves along the rows' axis (down) and ``offset_y`` along the columns' (right), in pixels;
    without offsets tap (i, j) of pixel (y, x) reads ``input[y + i - (F-1)//2 + 1, x + j - (F-1)//2 + 1]``, which is
    centred for F = 3 only; a position before the first or from the last pixel on counts that border pixel twice for
    each axis. All six gradients are true ones (an offset's is zero beyond the border; at a whole number the cell to
    the right or below counts); the op is once differentiable.

    Types may differ: all is computed in the widest of them, float32 at least; the result has ``input``'s type, each
    gradient its tensor's. A NaN offset gives NaN where its weight is used; an infinite one reads the border. The CPU
    kernels count subnormal numbers as zero. On CUDA the input's gradient is summed in no fixed order, unless
    ``torch.use_deterministic_algorithms`` asks for one.
    """
    check_floating("dsepconv", input, vertical, horizontal, offset_x, offset_y, mask)
    if input.ndim != 4 or vertical.ndim != 4 or vertical.shape[1] == 0:
        raise ValueError(
            f"dsepconv: vertical is {tuple(vertical.shape)}, expected (N, F, H, W) for input {tuple(input.shape)}"
        )
    kernel = vertical.shape[1]
    rest = (input.shape[2] - kernel + 1, input.shape[3] - kernel + 1)
    one = (("vertical", vertical, kernel), ("horizontal", horizontal, kernel))
    two = (("offset_x", offset_x, kernel**2), ("offset_y", offset_y, kernel**2), ("mask", mask, kernel**2))
    for name, tensor, taps in (*one, *two):
        expected = (input.shape[0], taps, *rest)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"dsepconv: {name} is {tuple(tensor.shape)}, expected {expected} for input {tuple(input.shape)}, "
                f"F = {kernel}"
            )
        if tensor.device != input.device:
            raise ValueError(f"dsepconv: {name} is on {tensor.device}, expected {input.device} like input")
    if (input.shape[2] + 2) * (input.shape[3] + 2) >= 2**29:
        raise ValueError(f"dsepconv: input is {tuple(input.shape)}, expected fewer than 2**29 pixels a plane")
    return _forward(input, vertical, horizontal, offset_x, offset_y, mask)


class _Tap(NamedTuple):
    """One of the F * F taps: its row and column in the kernel, the flat positions (N, H, W) of its four pixels, and
    the bilinear factors (N, 1, H, W)."""

    i: int
    j: int
    positions: list[Tensor]
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def dsepconv_reference(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """The definition in plain differentiable torch, one tap at a time (memory does not grow with F * F)."""
    compute = compute_type(input, vertical, horizontal, offset_x, offset_y, mask)
    flat, kernel = input.to(compute).flatten(2), vertical.shape[1]
    output = flat.new_zeros(*input.shape[:2], *mask.shape[2:])
    for tap in _taps(input, offset_x, offset_y, kernel, compute):
        v00, v01, v10, v11 = (read(flat, position) for position in tap.positions)
        above, below = v00 * tap.left + v01 * tap.right, v10 * tap.left + v11 * tap.right
        weight = vertical[:, tap.i].to(compute) * horizontal[:, tap.j].to(compute)
        weight = weight * mask[:, tap.i * kernel + tap.j].to(compute)
        output = output + weight[:, None] * (above * tap.top + below * tap.bottom)
    return output.to(input.dtype)


def dsepconv_backward_reference(
    grad: Tensor,
    input: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    offset_x: Tensor,
    offset_y: Tensor,
    mask: Tensor,
    *,
    with_input: bool = True,
) -> _Six:
    """The gradients of the definition, written out: an op's own backward runs where autograd does not record."""
    inputs = (input, vertical, horizontal, offset_x, offset_y, mask)
    compute = compute_type(*inputs)
    flat, grad, kernel = input.to(compute).flatten(2), grad.to(compute), vertical.shape[1]
    to_input = flat.new_zeros(flat.shape if with_input else 0)
    to_vertical, to_horizontal = (flat.new_zeros(t.shape) for t in (vertical, horizontal))
    to_x, to_y, to_mask = (flat.new_empty(t.shape) for t in (offset_x, offset_y, mask))
    for tap in _taps(input, offset_x, offset_y, kernel, compute):
        k = tap.i * kernel + tap.j
        v, h, m = (t.to(compute) for t in (vertical[:, tap.i], horizontal[:, tap.j], mask[:, k]))
        v00, v01, v10, v11 = (read(flat, position) for position in tap.positions)
        above, below = v00 * tap.left + v01 * tap.right, v10 * tap.left + v11 * tap.right
        to_weight = (grad * (above * tap.top + below * tap.bottom)).sum(1)
        to_mask[:, k] = to_weight * (v * h)
        to_vertical[:, tap.i] += to_weight * (h * m)
        to_horizontal[:, tap.j] += to_weight * (v * m)
        scaled = grad * (v * h * m)[:, None]
        to_x[:, k] = (scaled * (below - above)).sum(1)
        to_y[:, k] = (scaled * ((v01 - v00) * tap.top + (v11 - v10) * tap.bottom)).sum(1)
        if with_input:
            shares = (tap.top * tap.left, tap.top * tap.right, tap.bottom * tap.left, tap.bottom * tap.right)
            for position, share in zip(tap.positions, shares):
                add(to_input, position, scaled * share)
    grads = (to_input.unflatten(2, input.shape[2:]) if with_input else to_input, to_vertical, to_horizontal)
    a, b, c, d, e, f = (g.to(t.dtype) for g, t in zip((*grads, to_x, to_y, to_mask), inputs))
    return a, b, c, d, e, f


def _taps(input: Tensor, offset_x: Tensor, offset_y: Tensor, kernel: int, compute: torch.dtype) -> Iterator[_Tap]:
    height, width = input.shape[2:]
    start = 1 - (kernel - 1) // 2  # as published
    rows = torch.arange(offset_x.shape[2], device=input.device)[:, None] + start
    columns = torch.arange(offset_x.shape[3], device=input.device) + start
    limit = height + width + kernel  # as far as that is beyond the border all the same

    def axis(offset: Tensor, place: Tensor, size: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """The two pixels on one axis, and their factors."""
        offset = offset.to(compute).clamp(-limit, limit)
        whole = offset.detach().floor()
        first = place + torch.nan_to_num(whole, nan=0.0).long()  # a whole number and a fraction: no digit is lost
        fraction = offset - whole
        beyond = ((first < 0) | (first >= size - 1)) & ~fraction.isnan()  # both pixels are that of the border
        pixels = [side.clamp(0, size - 1) for side in (first, first + 1)]
        before, after = (torch.where(beyond, 1, share)[:, None] for share in (1 - fraction, fraction))
        return pixels, before, after

    for k in range(kernel**2):
        i, j = k // kernel, k % kernel
        (above, below), top, bottom = axis(offset_x[:, k], rows + i, height)
        (before, after), left, right = axis(offset_y[:, k], columns + j, width)
        positions = [y * width + x for y in (above, below) for x in (before, after)]
        yield _Tap(i, j, positions, top, bottom, left, right)


@torch.library.custom_op("vfikit::dsepconv", mutates_args=())
def _forward(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    return dsepconv_reference(input, vertical, horizontal, offset_x, offset_y, mask)


@torch.library.custom_op("vfikit::dsepconv_backward", mutates_args=())
def _backward(
    grad: Tensor,
    input: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    offset_x: Tensor,
    offset_y: Tensor,
    mask: Tensor,
    with_input: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The six gradients; the input's, which costs as much as the rest, is empty unless ``with_input``."""
    inputs = (input, vertical, horizontal, offset_x, offset_y, mask)
    return dsepconv_backward_reference(grad, *inputs, with_input=with_input)


@_forward.register_fake
def _(input: Tensor, *maps: Tensor) -> Tensor:
    return input.new_empty(*input.shape[:2], *maps[0].shape[2:])


@_backward.register_fake
def _(grad: Tensor, input: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *maps, with_input = others
    return (input.new_empty(input.shape if with_input else 0), *(t.new_empty(t.shape) for t in maps))


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    with_input = ctx.needs_input_grad[0]
    grads = _backward(grad, *ctx.saved_tensors, with_input)
    return (grads[0] if with_input else None, *grads[1:])


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.vfikit.dsepconv)
def _flops(input_shape: torch.Size, *shapes: Any, **more: Any) -> int:
    """Per tap: its weight (two products), four bilinear factors, and four multiply-accumulates a channel."""
    return 2 * math.prod(shapes[4]) * (1 + 4 + 4 * input_shape[1])


@register_flop_formula(torch.ops.vfikit.dsepconv_backward)
def _backward_flops(grad_shape: torch.Size, *shapes: Any, **more: Any) -> int:
    """The forward's reads again for the maps' gradients, and as many additions into the input's."""
    return 2 * _flops(*shapes)


def _native_forward(launch: Launch, *inputs: Tensor) -> Tensor:
    stored = stored_type(launch, *inputs)
    input, *maps = (t.to(stored).contiguous() for t in inputs)
    output = input.new_empty(*input.shape[:2], *maps[0].shape[2:])
    if output.numel():
        launch("dsepconv_forward", (input, *maps, output), (*input.shape, *maps[0].shape[1:]))
    return output.to(inputs[0].dtype)


def _native_backward(launch: Launch, grad: Tensor, *inputs: Tensor, with_input: bool) -> _Six:
    stored = stored_type(launch, *inputs)
    tensors = [t.to(stored).contiguous() for t in (grad, *inputs)]
    to_maps = [torch.empty_like(t) for t in tensors[2:]]
    to_input = torch.zeros_like(tensors[1] if with_input else tensors[1].new_empty(0), dtype=compute_type(*inputs))
    if grad.numel():
        sizes = (*inputs[0].shape, *inputs[1].shape[1:])
        launch("dsepconv_backward", (*tensors, to_input if with_input else None, *to_maps), sizes)
    else:
        to_maps = [t.zero_() for t in to_maps]
    a, b, c, d, e, f = (g.to(t.dtype) for g, t in zip((to_input, *to_maps), inputs))
    return a, b, c, d, e, f


def _cuda_forward(*inputs: Tensor) -> Tensor:
    return _native_forward(_cuda.launch, *inputs) if _cuda.available() else dsepconv_reference(*inputs)


def _cuda_backward(grad: Tensor, *inputs: Tensor, with_input: bool) -> _Six:
    if not _cuda.available() or (with_input and torch.are_deterministic_algorithms_enabled()):
        return dsepconv_backward_reference(grad, *inputs, with_input=with_input)
    return _native_backward(_cuda.launch, grad, *inputs, with_input=with_input)


if _cpu.available():

    @torch.library.impl("vfikit::dsepconv", "cpu")
    def _(*inputs):  # type: ignore[no-untyped-def]
        return _native_forward(_cpu.launch, *inputs)

    @torch.library.impl("vfikit::dsepconv_backward", "cpu")
    def _(*inputs):  # type: ignore[no-untyped-def]
        return _native_backward(_cpu.launch, *inputs[:-1], with_input=inputs[-1])


@_forward.register_kernel("cuda")
def _(*inputs):  # type: ignore[no-untyped-def]
    return _cuda_forward(*inputs)


@_backward.register_kernel("cuda")
def _(*inputs):  # type: ignore[no-untyped-def]
    return _cuda_backward(*inputs[:-1], with_input=inputs[-1])


for _device in ("cpu", "cuda"):
    _forward.register_autocast(_device, torch.float32)


class DSepConv(nn.Module):
    """Pads a frame by replication and samples it.

    ``forward(frame (N, C, H, W), vertical, horizontal, offset_x, offset_y, mask)``: the maps are (N, F, H, W) twice and
    (N, F*F, H, W) three times; returns (N, C, H, W). F must be odd, so that the padding is the same on all sides; an
    even one raises ``ValueError``.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"DSepConv: kernel_size is {kernel_size}, expected positive and odd, so that the padding is the same "
                "on all sides"
            )
        self.kernel_size = kernel_size
        self.padding = (kernel_size - 1) // 2

    def forward(
        self, frame: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
    ) -> Tensor:
        padded = functional.pad(frame, [self.padding] * 4, mode="replicate")
        return dsepconv(padded, vertical, horizontal, offset_x, offset_y, mask)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"
