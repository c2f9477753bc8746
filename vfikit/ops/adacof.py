"""AdaCoF sampling (arXiv:1907.10244): every output pixel is a weighted sum of F * F free bilinear taps."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from . import _cpu, _cuda
from ._pixels import Launch, add, check_floating, compute_type, read, stored_type


def adacof(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1) -> Tensor:
    """Samples ``input`` at F * F taps a pixel, each moved by its own offset, and sums them by ``weight``.

    ``input`` (N, C, H + (F-1)d, W + (F-1)d), already padded; ``weight``, ``offset_i`` (rows, pixels) and
    ``offset_j`` (columns, pixels) (N, F*F, H, W), tap k*F + l being row tap k and column tap l; returns (N, C, H, W).

    An offset is split by truncation towards zero, as published, so a negative fraction extrapolates, and the result
    jumps at negative integers. Reads beyond the input repeat its border. All four gradients are true ones; the op is
    once differentiable. Tensors that share the maps are best sampled as one, concatenated along the channels.

    Types may differ (a float16 frame with float32 maps): all is computed in the widest of them, float32 at least; the
    result has ``input``'s type, each gradient its tensor's. A NaN offset gives NaN where its weight is used; an
    infinite one reads the border. The CPU kernels count subnormal numbers as zero. On CUDA the input's gradient is
    summed in no fixed order, unless ``torch.use_deterministic_algorithms`` asks for one.
    """
    check_floating("adacof", input, weight, offset_i, offset_j)
    taps = weight.shape[1] if weight.ndim == 4 else -1
    kernel = 0
    while kernel * kernel < taps:  # not isqrt, which torch.compile cannot trace
        kernel += 1
    if weight.ndim != 4 or input.ndim != 4 or kernel * kernel != taps or kernel == 0:
        raise ValueError(
            f"adacof: weight is {tuple(weight.shape)}, expected (N, F*F, H, W) for input {tuple(input.shape)}"
        )
    if dilation < 1:
        raise ValueError(f"adacof: dilation is {dilation}, expected at least 1")
    reach = (kernel - 1) * dilation
    expected = (input.shape[0], taps, input.shape[2] - reach, input.shape[3] - reach)
    for name, tensor in (("weight", weight), ("offset_i", offset_i), ("offset_j", offset_j)):
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"adacof: {name} is {tuple(tensor.shape)}, expected {expected} "
                f"for input {tuple(input.shape)}, dilation {dilation}"
            )
        if tensor.device != input.device:
            raise ValueError(f"adacof: {name} is on {tensor.device}, expected {input.device} like input")
    if (input.shape[2] + 2) * (input.shape[3] + 2) >= 2**29:
        raise ValueError(f"adacof: input is {tuple(input.shape)}, expected fewer than 2**29 pixels a plane")
    return _forward(input, weight, offset_i, offset_j, dilation)


def adacof_reference(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int) -> Tensor:
    """The definition in plain differentiable torch, one tap at a time (memory does not grow with F * F)."""
    compute = compute_type(input, weight, offset_i, offset_j)
    flat = input.to(compute).flatten(2)
    output = flat.new_zeros(*input.shape[:2], *weight.shape[2:])
    for tap, positions, fy, fx in _taps(input, offset_i, offset_j, dilation, compute):
        v00, v01, v10, v11 = (read(flat, position) for position in positions)
        top, bottom = v00 * (1 - fx) + v01 * fx, v10 * (1 - fx) + v11 * fx
        output = output + weight[:, tap, None].to(compute) * (top * (1 - fy) + bottom * fy)
    return output.to(input.dtype)


def adacof_backward_reference(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset_i: Tensor,
    offset_j: Tensor,
    dilation: int,
    with_input: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the definition, written out: an op's own backward runs where autograd does not record."""
    compute = compute_type(input, weight, offset_i, offset_j)
    flat, grad = input.to(compute).flatten(2), grad.to(compute)
    to_input = flat.new_zeros(flat.shape if with_input else 0)
    layout = _layout(weight, offset_i, offset_j)
    to_weight, to_i, to_j = (
        torch.empty_like(t, dtype=compute, memory_format=layout) for t in (weight, offset_i, offset_j)
    )
    for tap, positions, fy, fx in _taps(input, offset_i, offset_j, dilation, compute):
        v00, v01, v10, v11 = (read(flat, position) for position in positions)
        top, bottom = v00 * (1 - fx) + v01 * fx, v10 * (1 - fx) + v11 * fx
        scaled = grad * weight[:, tap, None].to(compute)
        to_weight[:, tap] = (grad * (top * (1 - fy) + bottom * fy)).sum(1)
        to_i[:, tap] = (scaled * (bottom - top)).sum(1)
        to_j[:, tap] = (scaled * ((v01 - v00) * (1 - fy) + (v11 - v10) * fy)).sum(1)
        if with_input:
            shares = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
            for position, share in zip(positions, shares):
                add(to_input, position, scaled * share)
    to_input = to_input.unflatten(2, input.shape[2:]) if with_input else to_input
    return to_input.to(input.dtype), to_weight.to(weight.dtype), to_i.to(offset_i.dtype), to_j.to(offset_j.dtype)


def _taps(
    input: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int, compute: torch.dtype
) -> Iterator[tuple[int, list[Tensor], Tensor, Tensor]]:
    """For each tap: its number, the flat positions (N, H, W) of its four pixels, its fractions (N, 1, H, W)."""
    height, width = input.shape[2:]
    kernel = math.isqrt(offset_i.shape[1])
    rows = torch.arange(offset_i.shape[2], device=input.device)[:, None]
    columns = torch.arange(offset_i.shape[3], device=input.device)
    limit = height + width + offset_i.shape[2] + offset_i.shape[3]  # as far reads the border all the same

    def split(offset: Tensor) -> tuple[Tensor, Tensor]:
        offset = offset.to(compute).clamp(-limit, limit)
        whole = offset.detach().trunc()  # towards zero, as published; not floor
        return torch.nan_to_num(whole, nan=0.0).long(), (offset - whole)[:, None]

    for tap in range(kernel * kernel):
        (dy, fy), (dx, fx) = split(offset_i[:, tap]), split(offset_j[:, tap])
        y, x = rows + tap // kernel * dilation + dy, columns + tap % kernel * dilation + dx
        ys = [side.clamp(0, height - 1) * width for side in (y, y + 1)]
        xs = [side.clamp(0, width - 1) for side in (x, x + 1)]
        yield tap, [ys[0] + xs[0], ys[0] + xs[1], ys[1] + xs[0], ys[1] + xs[1]], fy, fx


@torch.library.custom_op("vfikit::adacof", mutates_args=())
def _forward(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int) -> Tensor:
    return adacof_reference(input, weight, offset_i, offset_j, dilation)


@torch.library.custom_op("vfikit::adacof_backward", mutates_args=())
def _backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int, with_input: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four gradients; the input's, which costs as much as the rest, is empty unless ``with_input``."""
    return adacof_backward_reference(grad, input, weight, offset_i, offset_j, dilation, with_input)


@_forward.register_fake
def _(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int) -> Tensor:
    return input.new_empty(*input.shape[:2], *weight.shape[2:])


@_backward.register_fake
def _(
    grad: Tensor, input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int, with_input: bool
) -> tuple[Tensor, ...]:
    maps = (weight, offset_i, offset_j)
    layout = _layout(*maps)
    to_maps = (torch.empty_like(t, memory_format=layout) for t in maps)
    return (input.new_empty(input.shape if with_input else 0), *to_maps)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.dilation = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    with_input = ctx.needs_input_grad[0]
    grads = _backward(grad, *ctx.saved_tensors, ctx.dilation, with_input)
    return (grads[0] if with_input else None, *grads[1:], None)


_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.vfikit.adacof)
def _flops(input_shape: torch.Size, weight_shape: torch.Size, *others: Any, **more: Any) -> int:
    """Per tap: four bilinear weights, and four multiply-accumulates a channel."""
    return 2 * 4 * math.prod(weight_shape) * (1 + input_shape[1])


@register_flop_formula(torch.ops.vfikit.adacof_backward)
def _backward_flops(
    grad_shape: torch.Size, input_shape: torch.Size, weight_shape: torch.Size, *others: Any, **more: Any
) -> int:
    """The forward's reads again for the maps' gradients, and as many additions into the input's."""
    return 2 * _flops(input_shape, weight_shape)


def _layout(*maps: Tensor) -> torch.memory_format:
    """Channels last, a pixel's taps side by side, where all maps are; of the maps' gradients too."""
    last = all(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in maps)
    return torch.channels_last if last else torch.contiguous_format


# Channels-last maps are laid out as planes chunk by chunk, anew for every few channels. Where many channels make that
# slow, and large kernels do not make a copy slower still, small maps are copied once instead.
FEW_CHANNELS, MANY_TAPS, SMALL = 4, 64, 64 << 20  # bytes of three maps in float32


def _read_in_place(input: Tensor, maps: Sequence[Tensor]) -> bool:
    copied = input.shape[1] > FEW_CHANNELS and maps[0].shape[1] < MANY_TAPS and 12 * maps[0].numel() <= SMALL
    return _layout(*maps) is torch.channels_last and not copied


def _native_forward(launch: Launch, input: Tensor, *inputs: Tensor, dilation: int) -> Tensor:
    stored = stored_type(launch, input, *inputs)
    in_either_layout = launch is _cpu.launch and stored is torch.float32
    last = in_either_layout and _read_in_place(input, inputs)
    layout = torch.channels_last if last else torch.contiguous_format
    image, maps = input.to(stored).contiguous(), [t.to(stored).contiguous(memory_format=layout) for t in inputs]
    output = image.new_empty(*input.shape[:2], *maps[0].shape[2:])
    sizes = [*input.shape, math.isqrt(maps[0].shape[1]), *output.shape[2:], dilation]
    if in_either_layout:
        sizes.append(last)
    if output.numel():
        launch("adacof_forward", (image, *maps, output), sizes)
    return output.to(input.dtype)


def _native_backward(
    launch: Launch, grad: Tensor, *inputs: Tensor, dilation: int, with_input: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stored, wanted = stored_type(launch, *inputs), _layout(*inputs[1:])
    in_either_layout = launch is _cpu.launch and stored is torch.float32
    layout = wanted if in_either_layout else torch.contiguous_format
    grad, image = (t.to(stored).contiguous() for t in (grad, inputs[0]))
    maps = [t.to(stored).contiguous(memory_format=layout) for t in inputs[1:]]
    grads = [torch.empty_like(t) for t in maps]
    to_input = image.new_zeros(image.shape if with_input else 0, dtype=compute_type(*inputs))
    sizes = [*image.shape, math.isqrt(maps[0].shape[1]), *grad.shape[2:], dilation]
    if in_either_layout:
        sizes.append(layout is torch.channels_last)
    if grad.numel():
        launch("adacof_backward", (grad, image, *maps, to_input if with_input else None, *grads), sizes)
    else:
        grads = [t.zero_() for t in grads]
    w, i, j = (g.to(t.dtype).contiguous(memory_format=wanted) for g, t in zip(grads, inputs[1:]))
    return to_input.to(inputs[0].dtype), w, i, j


def _cuda_forward(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int) -> Tensor:
    if not _cuda.available():
        return adacof_reference(input, weight, offset_i, offset_j, dilation)
    return _native_forward(_cuda.launch, input, weight, offset_i, offset_j, dilation=dilation)


def _cuda_backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int, with_input: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (input, weight, offset_i, offset_j)
    if not _cuda.available() or (with_input and torch.are_deterministic_algorithms_enabled()):
        return adacof_backward_reference(grad, *inputs, dilation, with_input)
    return _native_backward(_cuda.launch, grad, *inputs, dilation=dilation, with_input=with_input)


if _cpu.available():

    @torch.library.impl("vfikit::adacof", "cpu")
    def _(input, weight, offset_i, offset_j, dilation):  # type: ignore[no-untyped-def]
        return _native_forward(_cpu.launch, input, weight, offset_i, offset_j, dilation=dilation)

    @torch.library.impl("vfikit::adacof_backward", "cpu")
    def _(grad, input, weight, offset_i, offset_j, dilation, with_input):  # type: ignore[no-untyped-def]
        inputs = (input, weight, offset_i, offset_j)
        return _native_backward(_cpu.launch, grad, *inputs, dilation=dilation, with_input=with_input)


_forward.register_kernel("cuda")(_cuda_forward)
_backward.register_kernel("cuda")(_cuda_backward)
for _device in ("cpu", "cuda"):
    _forward.register_autocast(_device, torch.float32)


class AdaCoF(nn.Module):
    """Pads a frame by replication and samples it: ``forward(frame (N, C, H, W), weight, offset_i, offset_j)``.

    The maps are (N, F*F, H, W); returns (N, C, H, W). (F-1)d must be even, so that the padding is the same on all
    sides; an odd one raises ``ValueError``. With ``padded=True`` the frame comes already padded, to
    (H + (F-1)d, W + (F-1)d).
    """

    def __init__(self, kernel_size: int, dilation: int = 1, padded: bool = False):
        super().__init__()
        if kernel_size < 1 or dilation < 1 or (kernel_size - 1) * dilation % 2:
            raise ValueError(
                f"AdaCoF: kernel_size is {kernel_size}, dilation {dilation}, expected both positive and "
                "(kernel_size - 1) * dilation even, so that the padding is the same on all sides"
            )
        self.kernel_size, self.dilation, self.padded = kernel_size, dilation, padded
        self.padding = (kernel_size - 1) * dilation // 2

    def forward(self, frame: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor) -> Tensor:
        if not self.padded:
            frame = functional.pad(frame, [self.padding] * 4, mode="replicate")
        return adacof(frame, weight, offset_i, offset_j, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padded={self.padded}"
