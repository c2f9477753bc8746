"""Four times the sides: a denoiser of videos that sees the small video beside the noisy one (section 3.4)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...diffusion import Sampling, Schedule, betas, draw, sample
from ...layers.image_autoencoder import ImageAutoencoder
from .config import UpsamplerConfig
from .denoiser import Given, VideoDenoiser, to_noise
from .schedule import noisy_low_resolution, upsampler_input

FACTOR = 4


class Noised(NamedTuple):
    """A prediction and what it should have been, both (B, T, C, H, W)."""

    prediction: Tensor
    target: Tensor


class Upsampler(nn.Module):
    """``upsample(low)``: videos (B, T, 3, h, w) in [0, 1] -> (B, T, 3, 4 h, 4 w).

    It is trained on patches and, being convolutional, takes any size that its levels divide.
    """

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = VideoDenoiser(config.unet, config.frames)
        numbers = config.schedule
        self.schedule = Schedule(betas(numbers.name, numbers.timesteps, numbers.start, numbers.end))
        auto = config.autoencoder
        self.autoencoder = (
            ImageAutoencoder(auto.width, auto.multipliers, auto.blocks, auto.latent_channels, auto.groups)
            if config.latent
            else None
        )

    @property
    def ready(self) -> bool:
        """Whether the autoencoder that it needs, if any, is more than as it was built."""
        if self.autoencoder is None:
            return True
        return not bool((self.autoencoder.get_parameter("decoder.norm_out.weight") == 1).all())

    def encode(self, frames: Tensor) -> Tensor:
        """Of videos (B, T, 3, H, W) in [0, 1], what is diffused."""
        frames = 2 * frames - 1
        if self.autoencoder is None:
            return frames
        latents = self.autoencoder.encode(frames.flatten(0, 1)).mean * self.config.autoencoder.scale
        return latents.unflatten(0, frames.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        frames = latents
        if self.autoencoder is not None:
            flat = self.autoencoder.decode(latents.flatten(0, 1) / self.config.autoencoder.scale)
            frames = flat.unflatten(0, latents.shape[:2])
        return ((frames + 1) / 2).clamp(0, 1)

    def denoise(self, frames: Tensor, low: Tensor, t: Tensor, level: Tensor, text: Tensor) -> Noised:
        """A training pass: the video (B, T, 3, 4 h, 4 w), the small one, times and levels of noise (B,)."""
        x = self.encode(frames)
        noise = torch.randn_like(x)
        noisy = self.schedule.add_noise(x, noise, t)
        predicted = self.predict(noisy, t, self.noisy(low, level), level, text)
        velocity = self.config.schedule.prediction == "velocity"
        return Noised(predicted, self.schedule.velocity(x, noise, t) if velocity else noise)

    def noisy(self, low: Tensor, level: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Small videos in [0, 1], in [-1, 1] and with noise."""
        noise = draw(tuple(low.shape), generator, low)
        return noisy_low_resolution(self.schedule, 2 * low - 1, noise, level)

    def predict(self, x: Tensor, t: Tensor, low: Tensor, level: Tensor, text: Tensor) -> Tensor:
        beside = upsampler_input(x, low)[:, :, x.shape[2] :]
        return self.denoiser(x, t, Given(text, beside=beside, level=level))

    @torch.no_grad()
    def upsample(
        self,
        low: Tensor,
        text: Tensor,
        sampling: Sampling,
        level: int = 50,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """In pieces of the config's number of frames."""
        pieces = low.split(self.config.frames, dim=1)
        return torch.cat([self._piece(piece, text, sampling, level, generator) for piece in pieces], dim=1)

    def _piece(
        self, low: Tensor, text: Tensor, sampling: Sampling, level: int, generator: torch.Generator | None
    ) -> Tensor:
        levels = torch.full((len(low),), level, device=low.device)
        beside = self.noisy(low, levels, generator)
        numbers, unet = self.config.schedule, self.config.unet
        scale = 1 if self.config.latent else FACTOR
        shape = (*low.shape[:2], unet.out_channels, low.shape[3] * scale, low.shape[4] * scale)

        def model_fn(x: Tensor, t: Tensor) -> Tensor:
            predicted = self.predict(x, t, beside, levels, text)
            return to_noise(self.schedule, numbers.prediction, x, t, predicted)

        return self.decode(sample(model_fn, draw(shape, generator, low), self.schedule, sampling, generator))
