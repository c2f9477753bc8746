"""The mobile inverted bottleneck with squeeze-and-excitation, as MaxViT has it (arXiv:2204.01697)."""

from typing import Any

import torch
from torch import Tensor, nn


class MBConv(nn.Sequential):
    """1x1 to four times the output width, depthwise 3x3, squeeze-and-excitation, 1x1: (N, in, H, W) -> (N, out, H, W).

    ``downsample`` gives the depthwise convolution stride 2: sides become (H + 1) // 2. Batch norm throughout.
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: bool = False, expansion: int = 4) -> None:
        hidden = expansion * out_channels
        super().__init__(
            nn.Conv2d(in_channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, stride=2 if downsample else 1, padding=1, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            SqueezeExcite(hidden),
            nn.Conv2d(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return contiguous_gradient(super().forward(x))


class SqueezeExcite(nn.Module):
    """Every channel times a gate in (0, 1) that all channels' means decide: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, share: float = 0.25) -> None:
        super().__init__()
        hidden = int(share * channels)
        self.gate = nn.Sequential(
            SpatialMean(),
            nn.Linear(channels, hidden, bias=False),
            nn.SiLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)[:, :, None, None]


class SpatialMean(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Residual(nn.Module):
    """x + fn(x), ``fn`` keeping the shape."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


def contiguous_gradient(x: Tensor) -> Tensor:
    """``x`` itself; its gradient arrives contiguous.

    For what follows a batch norm: torch 2.13's CPU backward of it is silently wrong where the batch is 1, the input
    contiguous and the gradient channels-last with a batch stride that a window partition's backward makes.
    """
    return _ContiguousGradient.apply(x)


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()
