"""3-D convolutions whose input is continued by its border ("repeat" padding), and residual blocks of them.

A kernel of k and a stride of s continue an axis by k - s in all, the odd one in front: a stride of s makes n // s of n
places, and the transposed form s * n (for kernels of 4). Tensors are (N, C, T, H, W).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from .norms import group_norm

Size = int | Sequence[int]
SMALL = 20480  # torch (2.13) leaves oneDNN aside for one map of at most so many numbers, without counting its last axis


class PaddedConv3d(nn.Conv3d):
    """(N, in, T, H, W) -> (N, out, T // s, H // s, W // s); sizes are a number or one each of T, H, W."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size = 3, stride: Size = 1) -> None:
        super().__init__(in_channels, out_channels, _triple(kernel_size), _triple(stride))
        self.borders = borders(self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        x = continued(x, self.borders)
        if not small_but_for_width(x):
            return super().forward(x)
        strides = (*self.stride[1:], self.stride[0])
        made = functional.conv3d(time_last(x), time_last(self.weight), self.bias, strides)
        return made.permute(0, 1, 4, 2, 3)


class PaddedConvTranspose3d(nn.ConvTranspose3d):
    """(N, in, T, H, W) -> (N, out, s T, s H, s W), for kernels of 4 and strides of 1 or 2."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size = 4, stride: Size = 2) -> None:
        kernel_size, stride = _triple(kernel_size), _triple(stride)
        t, height, width = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=(t - 1, height - 1, width - 1))
        self.borders = borders(self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(continued(x, self.borders))


class PaddedResBlock(nn.Module):
    """Twice norm, swish, 3x3x3 convolution, with a residual: (N, C, T, H, W) -> the same."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm1 = group_norm(channels, groups)
        self.conv1 = PaddedConv3d(channels, channels)
        self.norm2 = group_norm(channels, groups)
        self.conv2 = PaddedConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(h)))


def borders(kernel_size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """What to continue each axis by, in the order of ``functional.pad``: the last axis first, front then back."""
    totals = [k - s for k, s in zip(kernel_size, stride, strict=True)]
    return tuple(side for total in reversed(totals) for side in (total - total // 2, total // 2))


def small_but_for_width(x: Tensor) -> bool:
    """Whether torch convolves ``x`` the slow way, and would not if time were its last axis: ten times as fast."""
    if not x.is_cpu or x.dtype != torch.float32 or len(x) > 1:
        return False
    channels, time, height, width = x.shape[1:]
    return channels * time * height <= SMALL < channels * height * width


def time_last(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2)


def continued(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """``x`` with its outermost values repeated."""
    return functional.pad(x, sides, mode="replicate") if any(sides) else x


def _triple(size: Size) -> tuple[int, int, int]:
    return (size, size, size) if isinstance(size, int) else (size[0], size[1], size[2])
