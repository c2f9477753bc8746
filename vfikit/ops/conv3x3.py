"""Convolution by 3x3 kernels of stride 1 on CPUs: of many channels with fewer products, by Winograd's F(2x2, 3x3)
(arXiv:1509.09308); of few, as compressed networks have, without filling them up to whole vectors."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from . import _cpu

# Where ``Conv3x3`` takes the kernels. Winograd's: fewer channels or outputs a group, and reading and writing the tiles
# costs what the products save; fewer tiles of 2x2 pixels, and transforming the weights does.
LEAST_CHANNELS, LEAST_TILES = 48, 64
# The direct one, of planes: torch fills up channels and outputs to whole vectors; fewer numbers, and calls cost more.
LANES, LEAST_NUMBERS = 16, 2**15


def conv3x3(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int | Sequence[int] = 1, groups: int = 1
) -> Tensor:
    """``conv2d(input (N, C, H, W), weight (O, C / groups, 3, 3), bias (O,))`` -> (N, O, H + 2p - 2, W + 2p - 2).

    Of video (N, C, T, H, W), it is the convolution of every frame. ``padding`` is a number or (rows, columns). The
    result is channels-last where ``input`` is, else contiguous. In float32 on a CPU with compiled kernels it takes 16
    products where the definition has 36 (but for few channels that are planes), with rounding errors like torch's own;
    everywhere else torch computes it.
    Raises ``ValueError`` for shapes that do not fit.
    """
    sides = [padding, padding] if isinstance(padding, int) else list(padding)
    _check(input, weight, bias, sides, groups)
    return _forward(input, weight, bias, sides, groups)


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], groups: int) -> None:
    if input.ndim not in (4, 5):
        raise ValueError(f"conv3x3: input is {tuple(input.shape)}, expected (N, C, H, W) or (N, C, T, H, W)")
    if len(padding) != 2 or min(padding) < 0:
        raise ValueError(f"conv3x3: padding is {padding}, expected a number or two, at least 0")
    channels, outputs = input.shape[1], weight.shape[0]
    if groups < 1 or channels % groups or outputs % groups or tuple(weight.shape[1:]) != (channels // groups, 3, 3):
        raise ValueError(
            f"conv3x3: weight is {tuple(weight.shape)}, expected (O, C / groups, 3, 3) with groups ({groups}) a "
            f"divisor of O and C for input {tuple(input.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ValueError(f"conv3x3: bias is {tuple(bias.shape)}, expected {(outputs,)}")
    kind = input.device.type
    cast = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)  # makes the types one
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.device != input.device or (tensor.dtype != input.dtype and not cast)):
            got, expected = f"{tensor.dtype} on {tensor.device}", f"{input.dtype} on {input.device}"
            raise ValueError(f"conv3x3: {name} is {got}, expected {expected} like input")
    if min(side + 2 * own - 2 for side, own in zip(input.shape[-2:], padding)) < 1:
        raise ValueError(f"conv3x3: input is {tuple(input.shape)}, too small for padding {padding}")


def conv3x3_reference(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Sequence[int] = (1, 1), groups: int = 1
) -> Tensor:
    """The definition: torch's convolution."""
    if input.ndim == 4:
        return functional.conv2d(input, weight, bias, 1, tuple(padding), 1, groups)
    return functional.conv3d(input, weight[:, :, None], bias, 1, (0, *padding), 1, groups)


def _last(input: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side; a single channel's layout is ambiguous."""
    return input.shape[1] > 1 and input.stride(1) == 1


def _empty(input: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    sides = (side + 2 * own - 2 for side, own in zip(input.shape[-2:], padding))
    shape = (input.shape[0], weight.shape[0], *input.shape[2:-2], *sides)
    last = torch.channels_last if input.ndim == 4 else torch.channels_last_3d
    layout = last if _last(input) else torch.contiguous_format
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout)


def _by_torch(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], groups: int) -> Tensor:
    """The reference, in the promised layout."""
    result, output = conv3x3_reference(input, weight, bias, padding, groups), _empty(input, weight, padding)
    return result if result.stride() == output.stride() else output.copy_(result)


@torch.library.custom_op("vfikit::conv3x3", mutates_args=())
def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int], groups: int) -> Tensor:
    return _by_torch(input, weight, bias, padding, groups)


@_forward.register_fake
def _(input, weight, bias, padding, groups):  # type: ignore[no-untyped-def]
    return _empty(input, weight, padding)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    input, weight, bias, ctx.padding, ctx.groups = inputs
    ctx.save_for_backward(input, weight)
    ctx.bias_sizes = None if bias is None else list(bias.shape)


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    """torch's own gradients, as often differentiable as they are."""
    input, weight = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2] and ctx.bias_sizes is not None]
    frames = input.ndim == 5
    padding, kernel = [0] * frames + list(ctx.padding), weight[:, :, None] if frames else weight
    ones, zeros = [1] * len(padding), [0] * len(padding)
    to_input, to_weight, to_bias = torch.ops.aten.convolution_backward(
        grad, input, kernel, ctx.bias_sizes, ones, padding, ones, False, zeros, ctx.groups, wanted
    )
    return to_input, to_weight.squeeze(2) if frames and wanted[1] else to_weight, to_bias, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
for _device in ("cpu", "cuda"):
    _forward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.vfikit.conv3x3)
def _flops(input: torch.Size, weight: torch.Size, bias: Any, padding: Sequence[int], *others: Any, **more: Any) -> int:
    """Of the definition, which other convolutions are counted by."""
    pixels = math.prod(side + 2 * own - 2 for side, own in zip(input[-2:], padding))
    return 2 * input[0] * math.prod(input[2:-2]) * pixels * math.prod(weight)


def _readable(t: Tensor) -> Tensor:
    return t if _last(t) or t.stride(-1) == 1 else t.contiguous()


def _steps(t: Tensor) -> tuple[int, ...]:
    """Of batch items, channels, frames, rows, columns. A lone column's is none, so that the kernel takes planes."""
    batch, channel, *frame, row, column = t.stride()
    return (batch, channel if _last(t) else max(channel, 2), *(frame or [0]), row, column)


def _narrow(weight: Tensor, groups: int) -> bool:
    """Too few channels or outputs a group for Winograd's way."""
    return min(weight.shape[1], weight.shape[0] // groups) < LEAST_CHANNELS


if _cpu.available():

    @torch.library.impl("vfikit::conv3x3", "cpu")
    def _(input, weight, bias, padding, groups):  # type: ignore[no-untyped-def]
        if input.dtype != torch.float32:
            return _by_torch(input, weight, bias, padding, groups)
        output, input = _empty(input, weight, padding), _readable(input)
        direct = not _last(input) and _narrow(weight, groups)
        last = not direct and weight.shape[1] > 1 and weight.is_contiguous(memory_format=torch.channels_last)
        weight = weight if last else weight.contiguous()
        frames = input.shape[2] if input.ndim == 5 else 1
        sizes = (*input.shape[:2], frames, *input.shape[-2:], weight.shape[0], groups, *padding)
        if output.numel() and input.shape[1]:
            tensors = (input, weight, None if bias is None else bias.contiguous(), output)
            _cpu.launch("conv3x3_forward", tensors, (*sizes, *_steps(input), *_steps(output), last, direct))
        return output


def pays(input: Tensor, weight: Tensor, padding: Sequence[int], groups: int = 1) -> bool:
    """Whether a kernel runs here and is the faster one: float32, no gradient recorded, not few pixels; wide layers, or
    planes of such numbers as torch would fill up.

    Not under autocast, which asks for other types, and not in a program that torch.compile or export writes.
    """
    if input.device.type != "cpu" or input.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not _cpu.available():
        return False
    if torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):
        return False
    if _narrow(weight, groups):
        channels, outputs = weight.shape[1], weight.shape[0] // groups
        filled = outputs % LANES or (channels > LANES and channels % LANES)
        return bool(filled) and not _last(input) and input.numel() >= LEAST_NUMBERS
    tiles = input.shape[0] * math.prod(input.shape[2:-2])
    for side, own in zip(input.shape[-2:], padding):
        tiles *= (side + 2 * own - 1) // 2
    return tiles >= LEAST_TILES


class Conv3x3(nn.Conv2d):
    """``nn.Conv2d`` of 3x3 kernels and stride 1, by ``conv3x3`` where ``pays`` says so; the same state dict."""

    def __init__(self, in_channels: int, out_channels: int, padding: int = 1, groups: int = 1, bias: bool = True):
        super().__init__(in_channels, out_channels, 3, padding=padding, groups=groups, bias=bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert isinstance(self.padding, tuple)
        if input.ndim == 4 and pays(input, weight, self.padding, self.groups):
            return conv3x3(input, weight, bias, self.padding, self.groups)
        return super()._conv_forward(input, weight, bias)
