"""An image autoencoder over the frames of a clip, one by one: the text-to-video model's first stage."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from ...layers.image_autoencoder import ImageAutoencoder
from ...layers.posterior import GaussianPosterior


@dataclass(frozen=True)
class FrameAutoencoderConfig:
    """Stable Diffusion's autoencoder."""

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    latent_channels: int = 4
    groups: int = 32

    @property
    def factors(self) -> tuple[int, int, int]:
        """How many times T, H and W shrink."""
        side = 2 ** (len(self.multipliers) - 1)
        return 1, side, side


class FrameAutoencoder(ImageAutoencoder):
    """``encode`` gives a posterior over latents (N, z, T, h, w) of clips (N, 3, T, H, W) in [-1, 1], ``decode`` clips.

    Each frame is on its own.
    """

    def __init__(self, config: FrameAutoencoderConfig) -> None:
        super().__init__(config.width, config.multipliers, config.blocks, config.latent_channels, config.groups)
        self.config = config

    def moments(self, video: Tensor) -> Tensor:
        return _together(super().moments(_apart(video)), video)

    def encode(self, video: Tensor) -> GaussianPosterior:
        return GaussianPosterior.of(self.moments(video))

    def decode(self, latent: Tensor) -> Tensor:
        return _together(super().decode(_apart(latent)), latent)


def _apart(video: Tensor) -> Tensor:
    return rearrange(video, "n c t h w -> (n t) c h w")


def _together(frames: Tensor, like: Tensor) -> Tensor:
    return rearrange(frames, "(n t) c h w -> n c t h w", n=like.shape[0])
