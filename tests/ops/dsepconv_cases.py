"""Inputs of the tests of deformable separable convolution, and the op written out pixel by pixel."""

import math
from itertools import product

import torch
from torch import Tensor

# N, C, H, W, F: one pixel, primes, every block of channels, several tiles and bands of rows, more columns than 8
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 7, 13, 3),
    (1, 2, 11, 5, 4),
    (1, 4, 90, 17, 3),
    (2, 7, 5, 31, 2),
    (1, 16, 9, 10, 5),
    (1, 21, 6, 7, 11),
    (1, 3, 83, 37, 5),
]


def make(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu", spread: float = 3.0
) -> tuple[Tensor, ...]:
    """input, vertical, horizontal, offset_x, offset_y, mask; no offset is near a whole number, where cells change."""
    batch, channels, height, width, kernel = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def normal(maps: int) -> Tensor:
        return torch.randn(batch, maps, height, width, generator=generator, dtype=torch.float64)

    reach, taps = kernel - 1, kernel**2
    image = torch.rand(batch, channels, height + reach, width + reach, generator=generator, dtype=torch.float64)
    offsets = [spread * normal(taps) for _ in range(2)]
    offsets = [torch.where((t - t.round()).abs() < 0.02, t.round() + 0.3, t) for t in offsets]
    inputs = (image, normal(kernel), normal(kernel), *offsets, normal(taps).sigmoid())
    return tuple(t.to(device, dtype) for t in inputs)


def gradient(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(shape[:4], generator=generator, dtype=torch.float64).to(device, dtype)


def naive(
    image: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """One output pixel, one tap at a time, in Python numbers, as published: positions first, then the clamps."""
    batch, channels, height, width = image.shape
    kernel = vertical.shape[1]
    output = torch.zeros(batch, channels, *mask.shape[2:], dtype=torch.float64)

    def axis(raw: float, size: int) -> tuple[tuple[int, float], tuple[int, float]]:
        clamped = min(max(raw, 0), size - 1)
        low, high = (min(max(math.floor(raw) + step, 0), size - 1) for step in (0, 1))
        return (low, 1 + (low - clamped)), (high, 1 - (high - clamped))

    for n, i, j, y, x in product(range(batch), range(kernel), range(kernel), *map(range, mask.shape[2:])):
        k = i * kernel + j
        rows = axis(offset_x[n, k, y, x].item() + y + i - (kernel - 1) // 2 + 1, height)
        columns = axis(offset_y[n, k, y, x].item() + x + j - (kernel - 1) // 2 + 1, width)
        weight = vertical[n, i, y, x].item() * horizontal[n, j, y, x].item() * mask[n, k, y, x].item()
        for (row, a), (column, b) in product(rows, columns):
            output[n, :, y, x] += weight * a * b * image[n, :, row, column].double()
    return output
