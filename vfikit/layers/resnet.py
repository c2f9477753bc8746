"""Residual blocks of autoencoders and of denoising U-Nets, and what changes a map's size between them."""

from collections.abc import Callable

import torch.nn.functional as functional
from torch import Tensor, nn

from ..ops import Conv3x3
from .norms import group_norm


def conv2d(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps the sides."""
    if kernel_size == 3:
        return Conv3x3(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class ResnetBlock(nn.Module):
    """Twice norm, swish, 3x3 convolution, with a residual: (N, in, H, W) -> (N, out, H, W).

    Where the width changes, the residual passes a 1x1 convolution, or a 3x3 one with ``conv_shortcut``. With
    ``time_channels``, ``forward(x, emb (N, time_channels))`` adds a projection of swish(emb) after the first
    convolution. ``groups`` is as in ``group_norm``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int = 0,
        conv_shortcut: bool = False,
        dropout: float = 0.0,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.temb_proj = nn.Linear(time_channels, out_channels) if time_channels else None
        self.norm2 = group_norm(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv3x3(out_channels, out_channels)
        widened = in_channels != out_channels
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if widened and not conv_shortcut else None
        self.conv_shortcut = Conv3x3(in_channels, out_channels) if widened and conv_shortcut else None

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        if self.temb_proj is not None:
            if emb is None:
                raise ValueError("ResnetBlock: no time embedding, expected one by its time_channels")
            h = h + self.temb_proj(functional.silu(emb))[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        shortcut = self.nin_shortcut or self.conv_shortcut
        return h + (x if shortcut is None else shortcut(x))


class TimeResBlock(nn.Module):
    """A denoising U-Net's residual block: ``forward(x (N, in, H, W), emb (N, time_channels))`` -> (N, out, H', W').

    ``resample`` "up" doubles the sides (nearest) and "down" halves them (average of 2 x 2), after the first norm.
    The embedding is added to the map; with ``scale_shift`` it scales and shifts the second norm instead. The last
    convolution starts at zero, the block as its residual. Of video (N, C, T, H, W), ``convolution(in, out, kernel)``
    makes other convolutions, and an embedding (N, T, time_channels) is one a frame.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: str = "none",
        conv_shortcut: bool = False,
        groups: int = 32,
        convolution: Callable[[int, int, int], nn.Module] = conv2d,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = {"none": nn.Identity, "up": Upsample, "down": Downsample}[resample]()
        self.in_layers = nn.Sequential(
            group_norm(in_channels, groups, 1e-5), nn.SiLU(), convolution(in_channels, out_channels, 3)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, (1 + scale_shift) * out_channels))
        self.out_layers = nn.Sequential(
            group_norm(out_channels, groups, 1e-5),
            nn.SiLU(),
            nn.Dropout(dropout),
            convolution(out_channels, out_channels, 3),
        )
        same = in_channels == out_channels
        self.skip_connection = (
            nn.Identity() if same else convolution(in_channels, out_channels, 3 if conv_shortcut else 1)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.out_layers[-1])

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, silu, convolution = self.in_layers
        h = convolution(self.resample(silu(norm(x))))
        x = self.resample(x)
        emb = spread(self.emb_layers(emb), x)
        if self.scale_shift:
            norm, *rest = self.out_layers
            scale, shift = emb.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + emb)
        return self.skip_connection(x) + h


def spread(emb: Tensor, x: Tensor) -> Tensor:
    """(N, E) or, one a frame, (N, T, E) as (N, E, 1, ...) or (N, E, T, 1, ...), with as many axes as ``x``."""
    emb = emb.transpose(1, -1) if emb.ndim == 3 else emb
    return emb.reshape(*emb.shape, *[1] * (x.ndim - emb.ndim))


class Downsample(nn.Module):
    """Half the sides: a 3x3 convolution of stride 2 with ``channels``, else the average of 2 x 2.

    ``asymmetric`` pads a row and a column of zeros at the bottom and the right only, as autoencoders of latent
    diffusion do; the default pads all round.
    """

    def __init__(self, channels: int = 0, out_channels: int = 0, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        padding = 0 if asymmetric else 1
        self.conv = nn.Conv2d(channels, out_channels or channels, 3, stride=2, padding=padding) if channels else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return functional.avg_pool2d(x, 2)
        return self.conv(functional.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)


class Upsample(nn.Module):
    """Twice the sides by nearest neighbours, then a 3x3 convolution where there are ``channels``."""

    def __init__(self, channels: int = 0, out_channels: int = 0) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, out_channels or channels) if channels else None

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class TransposedUpsample(nn.Module):
    """A transposed convolution of stride 2 without padding: (N, C, H, W) -> (N, out, 2 H + k - 2, 2 W + k - 2)."""

    def __init__(self, channels: int, out_channels: int = 0, kernel_size: int = 5) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, out_channels or channels, kernel_size, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


def zero(layer: nn.Module) -> nn.Module:
    """``layer`` with all its parameters at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
