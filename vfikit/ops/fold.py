"""Overlapping patches of a map, apart and together again, and the tokens they are embedded as. Plain torch everywhere.

Maps and patches keep their channels last, so that a patch's row is one run of memory: cutting copies whole runs and
joining adds them, many times faster than ``torch.nn.functional.unfold`` and ``fold``. The Modules' weights keep the
layout of those two (channel, row, column).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from .linear import linear

AT_ONCE = 2**20  # numbers that keep a CPU busy, and stay in its caches with what is made of them


def cut_patches(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """``x`` (N, H, W, C), with zeros around it, as patches (N, rows, columns, kernel, kernel, C).

    rows = (H + 2 padding - kernel) // stride + 1, columns likewise; as ``unfold``. A map smaller than one patch raises
    ``ValueError``.
    """
    _check_map("cut_patches", (x.shape[1], x.shape[2]) if x.ndim == 4 else (), kernel, padding, x)
    x = functional.pad(x, (0, 0, padding, padding, padding, padding))
    return x.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)


def join_patches(patches: Tensor, size: tuple[int, int], stride: int, padding: int) -> Tensor:
    """What ``cut_patches`` cut from a map of ``size`` (H, W), added up where patches overlap: (N, H, W, C)."""
    if patches.ndim != 6 or patches.shape[3] != patches.shape[4]:
        raise ValueError(f"join_patches: patches are {tuple(patches.shape)}, expected (N, rows, columns, k, k, C)")
    count, rows, columns, kernel, _, channels = patches.shape
    _check_map("join_patches", size, kernel, padding, patches)
    expected = tokens_of(size, kernel, stride, padding)
    if (rows, columns) != expected:
        raise ValueError(f"join_patches: {rows} x {columns} patches, expected {expected} for a map of {tuple(size)}")
    # the map in blocks of stride x stride pixels: each patch adds to blocks x blocks of them
    blocks = math.ceil(kernel / stride)
    out = patches.new_zeros(count, rows + blocks - 1, stride, columns + blocks - 1, stride, channels)
    for i in range(blocks):
        for j in range(blocks):
            part = patches[:, :, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            out[:, i : i + rows, : part.shape[3], j : j + columns, : part.shape[4]] += part.permute(0, 1, 3, 2, 4, 5)
    out = out.flatten(3, 4).flatten(1, 2)[:, padding:, padding:]
    missing = [max(0, side - have) for side, have in zip(size, out.shape[1:3])]  # pixels that no patch covers
    return functional.pad(out, (0, 0, 0, missing[1], 0, missing[0]))[:, : size[0], : size[1]]


def tokens_of(size: tuple[int, int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """How many rows and columns of patches a map of ``size`` (H, W) has."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    return height, width


def _check_map(who: str, size: tuple[int, ...], kernel: int, padding: int, given: Tensor) -> None:
    if len(size) != 2 or min(size) < 1 or min(size) + 2 * padding < kernel:
        raise ValueError(
            f"{who}: got {tuple(given.shape)} for a map of {tuple(size)}, expected at least one patch of "
            f"{kernel} x {kernel} with padding {padding}"
        )


def turns_pay(x: Tensor) -> bool:
    """On a CPU without gradients: each call uses the memory again that the one before left in the caches."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def in_turn(function: Callable[[Tensor], Tensor], x: Tensor, count: int | None = None, axis: int = 0) -> Tensor:
    """``function`` of ``count`` items of ``x`` after the other where that saves memory and time, else of all at once.

    Unless given, ``count`` is as many items as are large enough to keep the CPU busy. Items lie along ``axis``.
    """
    count = count or max(1, AT_ONCE * x.shape[axis] // max(1, x.numel()))
    if x.shape[axis] <= count or not turns_pay(x):
        return function(x)
    return torch.cat([function(items) for items in x.split(count, axis)], axis)


class CutPatches(nn.Module):
    """``cut_patches`` as a Module: the channels stay the last axis."""

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return cut_patches(x, self.kernel_size, self.stride, self.padding)


class JoinPatches(nn.Module):
    """``join_patches`` as a Module: the channels stay the last axis."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        return join_patches(patches, size, self.stride, self.padding)


class SoftSplit(nn.Module):
    """A map (N, C, H, W) to tokens (N, rows, columns, hidden) of overlapping patches (FuseFormer, arXiv:2109.02974).

    ``embedding`` has the columns of ``unfold``: channel by channel, rows of the patch, columns.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels * kernel_size**2, hidden)
        self.cut = CutPatches(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        channels = self.embedding.in_features // self.cut.kernel_size**2
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"SoftSplit: x is {tuple(x.shape)}, expected (N, {channels}, H, W)")
        embed = from_patches(self.embedding, self.cut.kernel_size)
        return in_turn(lambda x: embed(self.cut(x)), x.permute(0, 2, 3, 1))


class SoftComposition(nn.Module):
    """Tokens (N, rows, columns, hidden) to the map (N, C, H, W) of ``size``; overlaps are added (arXiv:2109.02974)."""

    def __init__(self, hidden: int, channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(hidden, channels * kernel_size**2)
        self.kernel_size = kernel_size
        self.join = JoinPatches(stride, padding)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        patches = to_patches(self.embedding, self.kernel_size)
        return in_turn(lambda tokens: self.join(patches(tokens), size), tokens).permute(0, 3, 1, 2)


def from_patches(layer: nn.Linear, kernel: int) -> Callable[[Tensor], Tensor]:
    """``layer``, whose columns are (channel, row, column), as a function of patches (.., k, k, C): (.., out)."""
    weight = layer.weight.unflatten(1, (-1, kernel**2)).transpose(1, 2).flatten(1)
    return lambda patches: linear(patches.flatten(-3), weight, layer.bias)


def to_patches(layer: nn.Linear, kernel: int) -> Callable[[Tensor], Tensor]:
    """``layer``, whose outputs are (channel, row, column), as a function of tokens (.., in): patches (.., k, k, C)."""
    weight = layer.weight.unflatten(0, (-1, kernel**2)).transpose(0, 1).flatten(0, 1)
    bias = None if layer.bias is None else layer.bias.unflatten(0, (-1, kernel**2)).t().flatten()
    return lambda tokens: linear(tokens, weight, bias).unflatten(-1, (kernel, kernel, -1))
