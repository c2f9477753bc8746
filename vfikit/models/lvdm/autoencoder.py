"""LVDM's 3-D autoencoder: clips (N, 3, T, H, W) in [-1, 1] and latents (N, z, T / 4, H / 8, W / 8), as published."""

from dataclasses import dataclass

from torch import Tensor, nn

from ...layers.norms import group_norm
from ...layers.padded_conv3d import PaddedConv3d, PaddedConvTranspose3d, PaddedResBlock
from ...layers.posterior import GaussianPosterior


@dataclass(frozen=True)
class AutoencoderConfig:
    """The published autoencoder; ``factors`` are powers of 2, how many times T, H and W shrink."""

    width: int = 32
    factors: tuple[int, int, int] = (4, 8, 8)
    latent_channels: int = 4
    groups: int = 32  # of every norm

    @property
    def levels(self) -> int:
        return max(self.factors).bit_length() - 1

    def stride(self, level: int) -> tuple[int, int, int]:
        """Of T, H and W: an axis shrinks at the first levels, as often as its factor asks for."""
        t, height, width = (1 + (factor >> level > 1) for factor in self.factors)
        return t, height, width


class VideoAutoencoder(nn.Module):
    """``encode`` gives a posterior over latents, ``decode`` a clip; neither scales the latent.

    Clips are (N, 3, T, H, W); what of T, H, W is beyond a multiple of the factors is lost.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = PaddedConv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = PaddedConv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)

    @property
    def last_layer(self) -> Tensor:
        """The weight by whose gradients the adversarial loss is balanced."""
        return self.decoder.conv_out.weight

    def moments(self, video: Tensor) -> Tensor:
        """Means and log-variances, (N, 2 z, t, h, w)."""
        return self.quant_conv(self.encoder(video))

    def encode(self, video: Tensor) -> GaussianPosterior:
        return GaussianPosterior.of(self.moments(video))

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent))


class Encoder(nn.Module):
    """(N, 3, T, H, W) -> (N, 2 z, t, h, w); every level doubles the width."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.conv_first = PaddedConv3d(3, config.width)
        self.conv_blocks = nn.ModuleList(DownLevel(config, i) for i in range(config.levels))
        width = config.width << config.levels
        self.final_block = nn.Sequential(
            group_norm(width, config.groups), nn.SiLU(), PaddedConv3d(width, 2 * config.latent_channels)
        )

    def forward(self, video: Tensor) -> Tensor:
        h = self.conv_first(video)
        for level in self.conv_blocks:
            h = level(h)
        return self.final_block(h)


class Decoder(nn.Module):
    """(N, z, t, h, w) -> (N, 3, T, H, W); every level halves the width. Nothing bounds the colours."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList(UpLevel(config, i) for i in range(config.levels))
        self.conv_out = PaddedConv3d(2 * config.width, 3)

    def forward(self, latent: Tensor) -> Tensor:
        h = latent
        for level in self.conv_blocks:
            h = level(h)
        return self.conv_out(h)


class DownLevel(nn.Module):
    """A convolution with stride, then a residual block."""

    def __init__(self, config: AutoencoderConfig, level: int) -> None:
        super().__init__()
        width = config.width << level
        self.down = PaddedConv3d(width, 2 * width, 4, config.stride(level))
        self.res = PaddedResBlock(2 * width, config.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.res(self.down(x))


class UpLevel(nn.Module):
    """A transposed convolution with stride, then two residual blocks."""

    def __init__(self, config: AutoencoderConfig, level: int) -> None:
        super().__init__()
        width = config.width << (config.levels - level)
        self.up = PaddedConvTranspose3d(2 * width if level else config.latent_channels, width, 4, config.stride(level))
        self.res1 = PaddedResBlock(width, config.groups)
        self.res2 = PaddedResBlock(width, config.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.res2(self.res1(self.up(x)))
