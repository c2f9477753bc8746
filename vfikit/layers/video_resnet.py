"""Residual blocks of denoising U-Nets over video (N, C, T, H, W), and what changes the sides; time keeps its length."""

from functools import partial

import torch.nn.functional as functional
from torch import Tensor, nn

from ..ops.conv3x3 import conv3x3, pays
from .resnet import TimeResBlock


class FrameConv3d(nn.Conv3d):
    """A convolution of every frame, over ``kernel_t`` (odd) frames: ``kernel_size`` 3 is a kernel of kernel_t x 3 x 3.

    A ``kernel_size`` of 1 is 1 in time, too. ``stride`` is that of the sides.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, kernel_t: int = 1, stride: int = 1
    ) -> None:
        t = kernel_t if kernel_size > 1 else 1
        padding = (t // 2, kernel_size // 2, kernel_size // 2)
        super().__init__(in_channels, out_channels, (t, kernel_size, kernel_size), (1, stride, stride), padding)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 3, 3) and self.stride == (1, 1, 1):
            frame_kernel = weight.squeeze(2)
            if pays(input, frame_kernel, (1, 1)):
                return conv3x3(input, frame_kernel, bias)
        return super()._conv_forward(input, weight, bias)


class VideoResBlock(TimeResBlock):
    """``TimeResBlock`` over video: ``forward(x (N, in, T, H, W), emb)``, ``emb`` (N, E), or (N, T, E) a frame each.

    Norms are over all frames together; convolutions over ``kernel_t`` frames.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: str = "none",
        kernel_t: int = 1,
        groups: int = 32,
    ) -> None:
        convolution = partial(FrameConv3d, kernel_t=kernel_t)
        super().__init__(
            in_channels, out_channels, time_channels, dropout, scale_shift, groups=groups, convolution=convolution
        )
        self.resample = {"none": nn.Identity, "up": VideoUpsample, "down": VideoDownsample}[resample]()


class VideoDownsample(nn.Module):
    """Half the sides: a convolution of stride 2 with ``channels``, else the average of 2 x 2."""

    def __init__(self, channels: int = 0, kernel_t: int = 1) -> None:
        super().__init__()
        self.conv = FrameConv3d(channels, channels, 3, kernel_t, stride=2) if channels else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool3d(x, (1, 2, 2)) if self.conv is None else self.conv(x)


class VideoUpsample(nn.Module):
    """Twice the sides by nearest neighbours, then a convolution where there are ``channels``."""

    def __init__(self, channels: int = 0, kernel_t: int = 1) -> None:
        super().__init__()
        self.conv = FrameConv3d(channels, channels, 3, kernel_t) if channels else None

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
        return x if self.conv is None else self.conv(x)
