"""Shapes of attention, their tensors, and the definition as a loop."""

from typing import NamedTuple

import torch
from torch import Tensor

from vfikit.ops import attention
from vfikit.ops.attention import attention_reference


class Shape(NamedTuple):
    batch: int
    heads: int
    queries: int
    keys: int
    width: int

    def op(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v)

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_reference(q, k, v)


# Single numbers, tails of vectors, tiles, groups of tiles and blocks of keys, few keys, odd widths.
SHAPES = [
    Shape(1, 1, 1, 1, 1),
    Shape(2, 3, 5, 7, 4),
    Shape(1, 2, 64, 96, 8),
    Shape(1, 1, 65, 97, 40),
    Shape(2, 1, 130, 33, 13),
    Shape(1, 2, 300, 200, 64),
    Shape(3, 2, 20, 500, 80),
    Shape(1, 1, 257, 6, 128),
    Shape(1, 1, 40, 100, 200),
]


def make(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v, heads side by side; weights differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int, scale: float) -> Tensor:
        made = torch.randn(shape.batch, count, shape.heads, shape.width, generator=generator, dtype=torch.float64)
        return (scale * made).to(device, dtype).transpose(1, 2)

    return tokens(shape.queries, 2), tokens(shape.keys, 2), tokens(shape.keys, 1)


def gradient(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    sizes = (shape.batch, shape.heads, shape.queries, shape.width)
    return torch.randn(sizes, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Query by query."""
    output = torch.empty_like(q)
    for n, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).reshape(-1, 3).tolist():
        logits = torch.stack([(q[n, h, i] * key).sum() for key in k[n, h]]) / q.shape[3] ** 0.5
        weights = logits.exp() / logits.exp().sum()
        output[n, h, i] = sum(weight * value for weight, value in zip(weights, v[n, h]))
    return output
