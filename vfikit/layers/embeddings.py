"""Sinusoids of times and places."""

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, width: int, cosine_first: bool = True) -> Tensor:
    """Times (N,) -> (N, width), float32 (float64 for float64 times); an odd width ends in a zero.

    Half the channels are cosines, half sines, of t * 10000^(-i / n). With ``cosine_first`` n is half the width
    (arXiv:2105.05233's code); without, sines come first and n is one less (arXiv:2006.11239's code).
    """
    dtype = torch.float64 if t.dtype == torch.float64 else torch.float32
    half = width // 2
    steps = torch.arange(half, device=t.device, dtype=dtype)
    frequencies = torch.exp(-math.log(10000) / (half if cosine_first else half - 1) * steps)
    angles = t.to(dtype)[:, None] * frequencies
    parts = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
    if width % 2:
        parts.append(torch.zeros_like(angles[:, :1]))
    return torch.cat(parts, 1)


def position_embedding(
    height: int, width: int, channels: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Of every pixel of a map, row by row: (height * width, channels) = sin x, cos x, sin y, cos y of each frequency.

    ``channels`` is a multiple of 4 above 4; the frequencies are 10000^(-i / (channels / 4 - 1)), pixels are integers.
    """
    if channels % 4 or channels < 8:
        raise ValueError(f"position_embedding: {channels} channels, expected a multiple of 4, at least 8")
    quarter = channels // 4
    steps = torch.arange(quarter, device=device, dtype=dtype)
    frequencies = torch.exp(-math.log(10000) / (quarter - 1) * steps)
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    angles_x, angles_y = x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies
    return torch.cat([angles_x.sin(), angles_x.cos(), angles_y.sin(), angles_y.cos()], 1)
