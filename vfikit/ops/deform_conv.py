"""Deformable convolution (arXiv:1703.06211; modulated, arXiv:1811.11168): each tap reads where its offset points."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from . import _cpu, _deform_conv_cpu, _deform_conv_cuda
from ._deform_conv import deform_conv2d_backward_reference, deform_conv2d_reference
from ._pixels import check_floating, compute_type


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolves ``input`` (N, C, H, W) by ``weight`` (O, C / groups, kh, kw), each tap moved by its own offset.

    ``offset`` (N, 2 * G * kh * kw, H', W') in pixels: channels 2t and 2t + 1 move tap t of G * kh * kw down and right;
    offset group g of G moves the g-th run of C / G input channels. ``mask`` (N, G * kh * kw, H', W') multiplies what a
    tap reads, ``bias`` (O,) is added. Returns (N, O, H', W'), the size of a convolution with that ``stride``,
    ``padding`` and ``dilation``, each a number or (rows, columns). Groups follow from the shapes.

    A tap reads bilinearly, zeros outside the frame, and nothing at all one pixel or further outside: a NaN or infinite
    offset reads zero, with gradient zero. At whole offsets the gradient is the right-hand one. All gradients are true;
    the op is once differentiable. Types may differ: all is computed in the widest of them, float32 at least; the result
    has ``input``'s type, each gradient its tensor's. Raises ``ValueError`` for shapes that do not fit.
    """
    steps = tuple(_pair(name, value) for name, value in _named(stride, padding, dilation))
    _check(input, offset, weight, bias, mask, *steps)
    return _forward(input, offset, weight, bias, mask, *steps)


def _named(stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]) -> Any:
    return ("stride", stride), ("padding", padding), ("dilation", dilation)


def _pair(name: str, value: int | Sequence[int]) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    least = 0 if name == "padding" else 1
    if len(pair) != 2 or pair[0] < least or pair[1] < least:
        raise ValueError(f"deform_conv2d: {name} is {value}, expected a number or two, at least {least}")
    return pair


def _check(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> None:
    check_floating("deform_conv2d", input, offset, weight, bias, mask)
    for name, tensor in (("input", input), ("offset", offset), ("weight", weight), ("mask", mask), ("bias", bias)):
        if tensor is not None and tensor.ndim != (1 if name == "bias" else 4):
            raise ValueError(f"deform_conv2d: {name} is {tuple(tensor.shape)}, expected 4 axes (bias: 1)")
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"deform_conv2d: {name} is on {tensor.device}, expected {input.device} like input")
    channels, taps = input.shape[1], weight.shape[2] * weight.shape[3]
    groups = channels // max(weight.shape[1], 1)
    if taps == 0 or groups * weight.shape[1] != channels or groups == 0 or weight.shape[0] % groups:
        raise ValueError(
            f"deform_conv2d: weight is {tuple(weight.shape)}, expected (O, C / groups, kh, kw) with groups a divisor "
            f"of O for input {tuple(input.shape)}"
        )
    size = _output_size(input.shape, weight.shape, stride, padding, dilation)
    if min(size) < 1:
        raise ValueError(f"deform_conv2d: input is {tuple(input.shape)}, too small for weight {tuple(weight.shape)}")
    moved = offset.shape[1] // (2 * taps)
    for name, tensor, expected in (
        ("offset", offset, (input.shape[0], max(moved, 1) * 2 * taps, *size)),
        ("mask", mask, (input.shape[0], max(moved, 1) * taps, *size)),
        ("bias", bias, (weight.shape[0],)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"deform_conv2d: {name} is {tuple(tensor.shape)}, expected {expected} for input {tuple(input.shape)} "
                f"and weight {tuple(weight.shape)}"
            )
    if channels % moved:
        raise ValueError(f"deform_conv2d: input has {channels} channels, expected a multiple of {moved} offset groups")
    if max(input.shape[2:]) + max(padding) >= 2**28 or input.shape[2] * input.shape[3] >= 2**29:
        raise ValueError(f"deform_conv2d: input is {tuple(input.shape)}, expected fewer than 2**29 pixels a plane")


def _output_size(
    input: Sequence[int], weight: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    height, width = (
        (input[2 + axis] + 2 * padding[axis] - dilation[axis] * (weight[2 + axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    return height, width


@torch.library.custom_op("vfikit::deform_conv2d", mutates_args=())
def _forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    return deform_conv2d_reference(input, offset, weight, bias, mask, stride, padding, dilation)


@torch.library.custom_op("vfikit::deform_conv2d_backward", mutates_args=())
def _backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    with_input: bool,
) -> list[Tensor]:
    steps = (stride, padding, dilation)
    return deform_conv2d_backward_reference(grad, input, offset, weight, mask, *steps, with_input)


@_forward.register_fake
def _(input, offset, weight, bias, mask, stride, padding, dilation):  # type: ignore[no-untyped-def]
    return input.new_empty(input.shape[0], weight.shape[0], *offset.shape[2:])


@_backward.register_fake
def _(grad, input, offset, weight, mask, stride, padding, dilation, with_input):  # type: ignore[no-untyped-def]
    to_input = input.new_empty(input.shape if with_input else 0)
    to_mask = input.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return [to_input, offset.new_empty(offset.shape), weight.new_empty(weight.shape), to_mask]


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    input, offset, weight, bias, mask, *ctx.steps = inputs
    ctx.save_for_backward(input, offset, weight, mask)
    ctx.bias_type = None if bias is None else bias.dtype


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    with_input, with_bias, mask = ctx.needs_input_grad[0], ctx.needs_input_grad[3], ctx.saved_tensors[3]
    to_input, to_offset, to_weight, to_mask = _backward(grad, *ctx.saved_tensors, *ctx.steps, with_input)
    to_bias = None
    if with_bias:
        to_bias = grad.sum((0, 2, 3), dtype=compute_type(to_weight, grad)).to(ctx.bias_type)
    to_mask = None if mask is None else to_mask
    return (to_input if with_input else None, to_offset, to_weight, to_bias, to_mask, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)
for _device in ("cpu", "cuda"):
    _forward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.vfikit.deform_conv2d)
def _flops(input: torch.Size, offset: torch.Size, weight: torch.Size, *others: Any, **more: Any) -> int:
    """Per tap and pixel: four shares, times the mask; four multiply-accumulates a channel; the convolution's own."""
    pixels, kernel = offset[0] * math.prod(offset[2:]), math.prod(weight[2:])
    return 2 * pixels * (4 * offset[1] // 2 + 4 * kernel * input[1] + math.prod(weight))


@register_flop_formula(torch.ops.vfikit.deform_conv2d_backward)
def _backward_flops(
    grad: torch.Size, input: torch.Size, offset: torch.Size, weight: torch.Size, *others: Any, **more: Any
) -> int:
    """The forward's reads again, as many additions into the input's gradient, and two products for its one."""
    return 2 * _flops(input, offset, weight)


if _cpu.available():

    @torch.library.impl("vfikit::deform_conv2d", "cpu")
    def _(input, offset, weight, bias, mask, stride, padding, dilation):  # type: ignore[no-untyped-def]
        return _deform_conv_cpu.forward(input, offset, weight, bias, mask, stride, padding, dilation)

    @torch.library.impl("vfikit::deform_conv2d_backward", "cpu")
    def _(grad, input, offset, weight, mask, stride, padding, dilation, with_input):  # type: ignore[no-untyped-def]
        steps = (stride, padding, dilation)
        return _deform_conv_cpu.backward(grad, input, offset, weight, mask, steps, with_input)


@_forward.register_kernel("cuda")
def _(input, offset, weight, bias, mask, stride, padding, dilation):  # type: ignore[no-untyped-def]
    return _deform_conv_cuda.forward(input, offset, weight, bias, mask, stride, padding, dilation)


@_backward.register_kernel("cuda")
def _(grad, input, offset, weight, mask, stride, padding, dilation, with_input):  # type: ignore[no-untyped-def]
    return _deform_conv_cuda.backward(grad, input, offset, weight, mask, (stride, padding, dilation), with_input)


class ModulatedDeformConv2d(nn.Module):
    """Deformable convolution with its own weights: ``forward(x (N, C, H, W), offset, mask=None)``.

    The arguments and the state dict (``weight``, ``bias``) are mmcv's. ``offset`` (N, 2 * deform_groups * kh * kw,
    H', W') and ``mask`` (N, deform_groups * kh * kw, H', W') come from elsewhere; without a mask it is the first
    version (DCNv1). Weights begin uniform within 1 / sqrt(in_channels * kh * kw), the bias at zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        if min(in_channels, out_channels, groups, deform_groups) < 1:
            got = f"{in_channels} to {out_channels} channels, groups {groups}, deform_groups {deform_groups}"
            raise ValueError(f"ModulatedDeformConv2d: got {got}, expected 1 or more of each")
        if in_channels % groups or out_channels % groups or in_channels % deform_groups:
            raise ValueError(
                f"ModulatedDeformConv2d: in_channels is {in_channels}, out_channels {out_channels}, expected both "
                f"multiples of groups ({groups}) and the first of deform_groups ({deform_groups})"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.deform_groups = groups, deform_groups
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding, self.dilation = (tuple(_pair(*each)) for each in _named(stride, padding, dilation))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights, as published."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{sizes}, padding={self.padding}, groups={self.groups}, deform_groups={self.deform_groups}"
