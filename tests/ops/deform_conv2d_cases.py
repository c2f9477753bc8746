"""Inputs of the tests of deformable convolution, and the op written out number by number."""

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from vfikit.ops import deform_conv2d
from vfikit.ops._deform_conv import deform_conv2d_reference


class Shape(NamedTuple):
    """Of input and output channels, frame, kernel; groups, groups of offsets; stride, padding, dilation."""

    batch: int
    channels: int
    out_channels: int
    height: int
    width: int
    kernel: tuple[int, int] = (3, 3)
    groups: int = 1
    moved: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        return self.stride, self.padding, self.dilation

    @property
    def size(self) -> tuple[int, int]:
        sides = zip((self.height, self.width), self.kernel, *self.steps)
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        return height, width


# one pixel, primes, one channel, many of them, several tiles, each kind of group, step and kernel
SHAPES = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 4, 6, 7, 13, moved=2),
    Shape(1, 12, 8, 11, 5, groups=4, moved=3),
    Shape(2, 6, 5, 9, 12, (3, 3), 1, 1, (2, 2), (2, 2), (2, 2)),
    Shape(1, 32, 24, 17, 31, moved=16),
    Shape(1, 5, 3, 8, 40, (1, 3), 1, 5, (1, 2), (0, 3), (1, 2)),
    Shape(1, 19, 67, 23, 29, (2, 4), 1, 1, (1, 1), (1, 2)),
    Shape(1, 40, 34, 6, 150, moved=8, groups=2),
    Shape(2, 40, 5, 20, 33),
]


def make(
    shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu", spread: float = 2.0
) -> tuple[Tensor, ...]:
    """input, offset, weight, bias, mask; no offset is near a whole number, where cells change."""
    generator = torch.Generator().manual_seed(sum(shape[:5]))

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    taps = shape.moved * math.prod(shape.kernel)
    offset = spread * normal(shape.batch, 2 * taps, *shape.size)
    offset = torch.where((offset - offset.round()).abs() < 0.02, offset.round() + 0.3, offset)
    inputs = (
        normal(shape.batch, shape.channels, shape.height, shape.width),
        offset,
        normal(shape.out_channels, shape.channels // shape.groups, *shape.kernel) / 3,
        normal(shape.out_channels),
        normal(shape.batch, taps, *shape.size).sigmoid(),
    )
    return tuple(t.to(device, dtype) for t in inputs)


def gradient(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(7)
    size = (shape.batch, shape.out_channels, *shape.size)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)


def op(shape: Shape) -> Callable[..., Tensor]:
    """The op as a function of its tensors alone."""

    def run(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None, mask: Tensor | None = None):  # type: ignore[no-untyped-def]
        return deform_conv2d(input, offset, weight, bias, *shape.steps, mask=mask)

    return run


def reference(shape: Shape) -> Callable[..., Tensor]:
    def run(*tensors: Tensor | None) -> Tensor:
        input, offset, weight, bias, mask = (*tensors, None, None)[:5]
        assert input is not None
        assert offset is not None
        assert weight is not None
        return deform_conv2d_reference(input, offset, weight, bias, mask, *shape.steps)

    return run


def naive(shape: Shape, image: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """One output number, one tap and channel at a time, as published: positions first, then the neighbours."""
    kernel = math.prod(shape.kernel)
    output = bias[:, None, None].repeat(shape.batch, 1, *shape.size)
    run, share = shape.channels // shape.groups, shape.out_channels // shape.groups

    def value(n: int, c: int, y: float, x: float) -> float:
        if not (-1 < y < shape.height and -1 < x < shape.width):
            return 0.0
        total = 0.0
        for row, column in product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= row < shape.height and 0 <= column < shape.width:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * image[n, c, row, column].item()
        return total

    places = product(range(shape.batch), *map(range, shape.size), range(shape.channels), range(kernel))
    for n, row, column, c, k in places:
        i, j = divmod(k, shape.kernel[1])
        t = c // (shape.channels // shape.moved) * kernel + k
        y = row * shape.stride[0] - shape.padding[0] + i * shape.dilation[0] + offset[n, 2 * t, row, column].item()
        x = (
            column * shape.stride[1]
            - shape.padding[1]
            + j * shape.dilation[1]
            + offset[n, 2 * t + 1, row, column].item()
        )
        first = c // run * share
        sampled = value(n, c, y, x) * mask[n, t, row, column]
        output[n, first : first + share, row, column] += weight[first : first + share, c % run, i, j] * sampled
    return output
