"""Shapes of 3x3 convolutions, their tensors, and the definition as a loop."""

from typing import NamedTuple

import torch
from torch import Tensor

from vfikit.ops import conv3x3
from vfikit.ops.conv3x3 import conv3x3_reference


class Shape(NamedTuple):
    input: tuple[int, ...]
    outputs: int
    padding: tuple[int, int] = (1, 1)
    groups: int = 1
    last: bool = False  # channels-last, the weights too

    def op(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return conv3x3(input, weight, bias, self.padding, self.groups)

    def reference(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return conv3x3_reference(input, weight, bias, self.padding, self.groups)


# Odd sides, single tiles, tails of vectors and slices, more outputs than are at hand, groups, video, both layouts; of
# planes, few channels and many go different ways, and few outputs in blocks of one to eight.
SHAPES = [
    Shape((2, 5, 7, 9), 6),
    Shape((2, 5, 7, 9), 6, last=True),
    Shape((1, 6, 4, 5), 4, (2, 0), groups=2),
    Shape((1, 6, 4, 5), 4, (0, 3), groups=2, last=True),
    Shape((2, 3, 3, 4, 6), 5),
    Shape((2, 3, 3, 4, 6), 5, last=True),
    Shape((1, 1, 1, 1), 1),
    Shape((1, 3, 1, 1), 1, last=True),
    Shape((1, 150, 22, 41), 70),
    Shape((1, 150, 22, 41), 70, last=True),
    Shape((3, 20, 10, 10), 300, groups=2),
    Shape((1, 600, 6, 35), 270, (1, 0), groups=2, last=True),
    Shape((2, 50, 7, 9), 49),
    Shape((1, 100, 4, 5), 96, (2, 0), groups=2),
    Shape((2, 48, 3, 4, 6), 50),
    Shape((1, 48, 1, 1), 48),
    Shape((2, 13, 19, 130), 25),
    Shape((1, 3, 9, 70), 8, (0, 3)),
    Shape((2, 6, 9, 35), 14, (3, 2), groups=2),
    Shape((2, 2, 3, 9, 64), 4, (1, 17)),
    Shape((1, 2, 10, 33), 3),
    Shape((1, 4, 10, 16), 2),
]


def make(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """input, weight, bias."""
    generator = torch.Generator().manual_seed(0)
    inputs = shape.input[1] // shape.groups
    tensors = [
        torch.randn(shape.input, generator=generator, dtype=torch.float64),
        torch.randn(shape.outputs, inputs, 3, 3, generator=generator, dtype=torch.float64) / (9 * inputs) ** 0.5,
        torch.randn(shape.outputs, generator=generator, dtype=torch.float64),
    ]
    x, weight, bias = (t.to(device, dtype) for t in tensors)
    if shape.last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        weight = weight.contiguous(memory_format=torch.channels_last)
    return x, weight, bias


def gradient(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    sides = (side + 2 * own - 2 for side, own in zip(shape.input[-2:], shape.padding))
    sizes = (shape.input[0], shape.outputs, *shape.input[2:-2], *sides)
    return torch.randn(sizes, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def naive(shape: Shape, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Number by number, of images."""
    (height, width), (down, right) = input.shape[2:], shape.padding
    output = torch.empty(gradient(shape).shape, dtype=input.dtype)
    inputs, outputs = weight.shape[1], shape.outputs // shape.groups
    for n, o, y, x in torch.cartesian_prod(*map(torch.arange, output.shape)).tolist():
        total = bias[o].clone()
        for c, i, j in torch.cartesian_prod(torch.arange(inputs), torch.arange(3), torch.arange(3)).tolist():
            row, column = y + i - down, x + j - right
            if 0 <= row < height and 0 <= column < width:
                total += input[n, o // outputs * inputs + c, row, column] * weight[o, c, i, j]
        output[n, o, y, x] = total
    return output
