"""Deformable convolution in plain PyTorch: one ``grid_sample`` for all taps, and one convolution. Differentiable."""

import torch
import torch.nn.functional as functional
from torch import Tensor


def grid_sampled(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """As ``vfikit.ops.deform_conv2d``, steps the same on both axes; it holds kh * kw copies of the frame."""
    batch, channels, height, width = input.shape
    rows, columns = weight.shape[2:]
    kernel, size = rows * columns, offset.shape[2:]
    moved = offset.shape[1] // (2 * kernel)
    tap = torch.arange(kernel, device=input.device)[:, None, None]
    y = torch.arange(size[0], device=input.device)[:, None] * stride - padding + tap // columns * dilation
    x = torch.arange(size[1], device=input.device) * stride - padding + tap % columns * dilation
    offset = offset.view(batch * moved, kernel, 2, *size)
    # a position beyond -1 or the size is outside for grid_sample too; edges are at the pixels' outer sides
    across, down = (2 * (x + offset[:, :, 1]) + 1) / width - 1, (2 * (y + offset[:, :, 0]) + 1) / height - 1
    grid = torch.stack([across, down], dim=-1).flatten(1, 2)
    sampled = functional.grid_sample(input.reshape(batch * moved, -1, height, width), grid, align_corners=False)
    sampled = sampled.unflatten(2, (kernel, size[0])) * mask.view(batch * moved, 1, kernel, *size)
    column = sampled.reshape(batch, channels * kernel, *size)  # as the weight: channel, then tap
    return functional.conv2d(column, weight.flatten(1)[:, :, None, None], bias, groups=channels // weight.shape[1])
