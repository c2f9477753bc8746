"""Backward warping: every output pixel reads where its flow points. Plain torch on every device."""

from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor


def warp(
    x: Tensor,
    flow: Tensor,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """``x`` (N, C, H, W) read at ``(column + flow[:, 0], row + flow[:, 1])``: (N, C, H', W') of x's type.

    ``flow`` (N, 2, H', W') is in pixels, channel 0 to the right, 1 downwards; H' and W' may differ from H and W, rows
    and columns then count from the upper left pixel. Outside ``x`` are zeros, the border's pixels or mirrored ones.
    Positions are in float32 (float64 for float64) whatever the types. Gradients go to both. Raises ``ValueError`` for
    shapes that do not fit.
    """
    if x.ndim != 4 or flow.ndim != 4 or flow.shape[1] != 2 or flow.shape[0] != x.shape[0]:
        got = f"x is {tuple(x.shape)} and flow {tuple(flow.shape)}"
        raise ValueError(f"warp: {got}, expected (N, C, H, W) and (N, 2, H', W')")
    compute = torch.float64 if torch.float64 in (x.dtype, flow.dtype) else torch.float32
    height, width = flow.shape[2:]
    with torch.autocast(x.device.type, enabled=False):
        column = torch.arange(width, dtype=compute, device=flow.device) + flow[:, 0].to(compute)
        row = torch.arange(height, dtype=compute, device=flow.device)[:, None] + flow[:, 1].to(compute)
        # the centres of the first and last pixels are -1 + 1 / size and 1 - 1 / size: no division by size - 1
        grid = torch.stack([(2 * column + 1) / x.shape[3] - 1, (2 * row + 1) / x.shape[2] - 1], dim=-1)
        out = functional.grid_sample(x.to(compute), grid, mode, padding_mode, align_corners=False)
    return out.to(x.dtype)
