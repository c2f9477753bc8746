"""Backward warping: every output pixel reads where its flow points. Plain torch on every device."""

from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from ._pixels import check_floating


def warp(
    x: Tensor,
    flow: Tensor,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """``x`` (N, C, H, W) read at ``(column + flow[:, 0], row + flow[:, 1])``: (N, C, H', W') of x's type.

    ``flow`` (N, 2, H', W') is in pixels, channel 0 to the right, 1 downwards; H' and W' may differ from H and W, rows
    and columns then count from the upper left pixel. Outside ``x`` are zeros, the border's pixels or mirrored ones.
    With ``align_corners``, as flow networks are published, "reflection" is about the centres of the border's pixels,
    not about their edges, and an axis of one pixel is read at that pixel, wherever the flow points.
    Positions are in float32 (float64 for float64) whatever the types. Gradients go to both. Raises ``ValueError`` for
    shapes that do not fit.
    """
    check_floating("warp", x, flow)
    if x.ndim != 4 or flow.ndim != 4 or flow.shape[1] != 2 or flow.shape[0] != x.shape[0]:
        got = f"x is {tuple(x.shape)} and flow {tuple(flow.shape)}"
        raise ValueError(f"warp: {got}, expected (N, C, H, W) and (N, 2, H', W')")
    compute = torch.float64 if torch.float64 in (x.dtype, flow.dtype) else torch.float32
    height, width = flow.shape[2:]
    device = "cpu" if x.is_meta else x.device.type  # there is no autocast for meta
    with torch.autocast(device, enabled=False):
        column = torch.arange(width, dtype=compute, device=flow.device) + flow[:, 0].to(compute)
        row = torch.arange(height, dtype=compute, device=flow.device)[:, None] + flow[:, 1].to(compute)
        places = [_normalised(p, size, align_corners) for p, size in ((column, x.shape[3]), (row, x.shape[2]))]
        grid = torch.stack(places, dim=-1)
        out = functional.grid_sample(x.to(compute), grid, mode, padding_mode, align_corners=align_corners)
    return out.to(x.dtype)


def _normalised(position: Tensor, size: int, align_corners: bool) -> Tensor:
    """Pixels as ``grid_sample`` counts: -1 and 1 are the border's edges, or the centres of its pixels."""
    return 2 * position / max(size - 1, 1) - 1 if align_corners else (2 * position + 1) / size - 1
