"""Deformable convolution in plain PyTorch: one ``grid_sample`` for all taps, then one convolution or matrix product.

Differentiable. Both hold kh * kw copies of the frame.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor


def grid_sampled(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, **steps: int) -> Tensor:
    """As ``vfikit.ops.deform_conv2d``, the ``steps`` (stride, padding, dilation) the same on both axes."""
    column, groups = columns(input, offset, weight, mask, **steps), input.shape[1] // weight.shape[1]
    return functional.conv2d(column, weight.flatten(1)[:, :, None, None], bias, groups=groups)


def multiplied(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, **steps: int) -> Tensor:
    """As mmcv's operator has it: the columns, then a matrix product for each group of channels."""
    column, groups = columns(input, offset, weight, mask, **steps), input.shape[1] // weight.shape[1]
    made = weight.flatten(1).unflatten(0, (groups, -1)) @ column.flatten(2).unflatten(1, (groups, -1))
    return made.flatten(1, 2).unflatten(2, column.shape[2:]) + bias[:, None, None]


def columns(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """What the taps sample, in the weight's order (channel, then tap): (N, C * kh * kw, H', W')."""
    kernel = weight.shape[2:]
    batch, channels, height, width = input.shape
    taps, size = kernel[0] * kernel[1], offset.shape[2:]
    moved = offset.shape[1] // (2 * taps)
    tap = torch.arange(taps, device=input.device)[:, None, None]
    y = torch.arange(size[0], device=input.device)[:, None] * stride - padding + tap // kernel[1] * dilation
    x = torch.arange(size[1], device=input.device) * stride - padding + tap % kernel[1] * dilation
    exact = offset.to(torch.promote_types(offset.dtype, torch.float32)).view(batch * moved, taps, 2, *size)
    # a position beyond -1 or the size is outside for grid_sample too; edges are at the pixels' outer sides
    across, down = (2 * (x + exact[:, :, 1]) + 1) / width - 1, (2 * (y + exact[:, :, 0]) + 1) / height - 1
    grid = torch.stack([across, down], dim=-1).flatten(1, 2).to(input.dtype)
    sampled = functional.grid_sample(input.reshape(batch * moved, -1, height, width), grid, align_corners=False)
    sampled = sampled.unflatten(2, (taps, size[0])) * mask.view(batch * moved, 1, taps, *size)
    return sampled.reshape(batch, channels * taps, *size)
