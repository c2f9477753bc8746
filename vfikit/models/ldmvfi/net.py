"""LDMVFI: latent diffusion for frame interpolation (arXiv:2303.09508, AAAI 2024).

Two frames (N, 3, H, W), RGB in [0, 1], any size, give the frame half-way between. Both are encoded once; a latent for
the middle is sampled by denoising, given both latents; the decoder turns it into kernels that sample the two frames.

    encode(frame0), encode(frame1) -> sample a latent -> decode it beside both

Only the middle can be made. Sampling is random; without a generator it is the same every time.
"""

from dataclasses import dataclass, field
from math import lcm
from typing import NamedTuple

import torch
from torch import Tensor

from ...diffusion import Sampling, Schedule, betas, draw, sample
from ...inference import check_pair, interpolate_at, pad_to_multiple
from ..interpolator import MiddleInterpolator
from .autoencoder import VQFIGAN, AutoencoderConfig, Encoded, Reconstruction
from .published import loadable, published_keys, published_padding
from .sequence import InSequence
from .unet import DenoisingUNet, UNetConfig


@dataclass(frozen=True)
class LDMVFIConfig:
    """Both networks, the schedule that the denoiser was trained on, and how to sample unless told otherwise."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    denoiser: UNetConfig = field(default_factory=UNetConfig)
    timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    sampling: Sampling = field(default_factory=lambda: Sampling(eta=1.0, spacing="published"))


class Pair(NamedTuple):
    """Two frames made ready: padded, in [-1, 1], encoded; and the size to give back."""

    frame0: Tensor
    frame1: Tensor
    encoded0: Encoded
    encoded1: Encoded
    size: tuple[int, int]


class Denoising(NamedTuple):
    """What training the denoiser reads off one pass, (N, code_width, h, w) each."""

    prediction: Tensor
    noise: Tensor
    noisy: Tensor


class LDMVFINet(MiddleInterpolator):
    """``forward(frame0, frame1, steps=None)``: (N, 3, H, W) each, in [0, 1] -> the middle frame, unclamped.

    ``reconstruct`` and ``denoise`` are what the two stages of training need.
    """

    config_type = LDMVFIConfig

    def __init__(self, config: LDMVFIConfig = LDMVFIConfig()) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = VQFIGAN(config.autoencoder)
        self.denoiser = DenoisingUNet(config.denoiser)
        self.schedule = Schedule(betas("linear", config.timesteps, config.beta_start, config.beta_end))
        self.seed = 0  # of the noise, where no generator is given
        self.multiple = lcm(config.autoencoder.multiple, config.autoencoder.factor * config.denoiser.multiple)

    def forward(
        self, frame0: Tensor, frame1: Tensor, steps: int | None = None, published_padding: bool = False
    ) -> Tensor:
        pair = self.prepare(frame0, frame1, published=published_padding)
        return self.decode(self.sample(pair, steps), pair)

    @torch.no_grad()
    def interpolate(
        self,
        frame0: Tensor,
        frame1: Tensor,
        t: float = 0.5,
        bisections: int = 0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        published_padding: bool = False,
    ) -> Tensor:
        """The frame at time ``t`` between two of (N, 3, H, W) in [0, 1], any size and type; clamped to [0, 1].

        Only t = 0.5 is known. Another t raises ``ValueError``, unless ``bisections`` allows halving the interval that
        often. ``steps`` of denoising, by default the config's; see ``sample`` for ``generator``. Frames are padded to
        multiples of ``self.multiple``, or as the published program does.
        """

        dtype = next(self.parameters()).dtype

        def middle(frame0: Tensor, frame1: Tensor) -> Tensor:
            pair = self.prepare(frame0.to(dtype), frame1.to(dtype), published=published_padding)
            return self.decode(self.sample(pair, steps, generator), pair).to(frame0.dtype)

        return interpolate_at(type(self).__name__, middle, frame0, frame1, t, bisections).clamp(0, 1)

    def prepare(
        self,
        frame0: Tensor,
        frame1: Tensor,
        encoded0: Encoded | None = None,
        encoded1: Encoded | None = None,
        published: bool = False,
    ) -> Pair:
        """Pads (as the published program does, if ``published``) and encodes; what ``encode`` gave is not made anew."""
        check_pair(type(self).__name__, frame0, frame1)
        size = (frame0.shape[2], frame0.shape[3])
        frame0, frame1 = self.padded(frame0, published), self.padded(frame1, published)
        encoded0 = encoded0 or self.autoencoder.encode(frame0)
        encoded1 = encoded1 or self.autoencoder.encode(frame1)
        return Pair(frame0, frame1, encoded0, encoded1, size)

    def encode(self, frame: Tensor, published: bool = False) -> Encoded:
        """Of a frame (N, 3, H, W) in [0, 1]: for ``prepare``, so that no frame of a video is encoded twice."""
        return self.autoencoder.encode(self.padded(frame, published))

    def padded(self, frame: Tensor, published: bool = False) -> Tensor:
        """In [-1, 1], reflected at the bottom and right to a size that both networks take."""
        frame = 2 * frame - 1
        return published_padding(frame) if published else pad_to_multiple(frame, self.multiple)

    def sample(
        self,
        pair: Pair,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        sampling: Sampling | None = None,
    ) -> Tensor:
        """A latent (N, code_width, h, w) of the middle frame, not quantised.

        By default as the config says; with other ``steps`` than its own, spaced for few and with no fresh noise. With a
        ``generator``, each item of the batch gets noise of its own; without, all get the same, that of ``self.seed``,
        so that a batch is its frames.
        """
        sampling = (sampling or self.config.sampling).taking(steps)
        dtype = pair.encoded0.latent.dtype
        like = pair.encoded0.latent.to(torch.promote_types(dtype, torch.float32))  # noise grows 80-fold on the way
        shape = tuple(like.shape)
        noise = iter(lambda: draw(shape, generator, like), None)
        if generator is None:
            fixed = torch.Generator().manual_seed(self.seed)
            noise = iter(lambda: draw((1, *shape[1:]), fixed, like).expand(shape), None)

        def model_fn(x: Tensor, t: Tensor) -> Tensor:
            return self.predict_noise(x.to(dtype), t, pair).to(like.dtype)

        return sample(model_fn, next(noise), self.schedule, sampling, noise).to(dtype)

    def predict_noise(self, noisy: Tensor, t: Tensor, pair: Pair) -> Tensor:
        """The noise in latents (N, code_width, h, w) at times (N,)."""
        condition = torch.cat([pair.encoded0.latent, pair.encoded1.latent], dim=1)
        if self.config.denoiser.crosses:
            return self.denoiser(noisy, t, condition)
        return self.denoiser(torch.cat([noisy, condition], dim=1), t)

    def decode(self, latent: Tensor, pair: Pair) -> Tensor:
        """The frame (N, 3, H, W) of a latent, in about [0, 1]; the latent is quantised first."""
        decoded = self.autoencoder.decode(latent, pair.encoded0, pair.encoded1, pair.frame0, pair.frame1)
        return self.cropped(decoded.frame, pair)

    def reconstruct(self, frame0: Tensor, target: Tensor, frame1: Tensor, warp: bool = False) -> Reconstruction:
        """The autoencoder's pass over frames (N, 3, H, W) in [0, 1]; what it gives is in [0, 1] and cropped, too.

        What was sampled from the two frames sums to one frame, which the residual then corrects. With ``warp``, both
        are also sampled without the mask: that each meets the target is what starts a small net on motion. (Published
        training has no such term.)
        """
        pair = self.prepare(frame0, frame1)
        latent, loss, indices = self.autoencoder.quantize(self.encode(target).latent)
        decoded = self.autoencoder.decode_codes(latent, pair.encoded0, pair.encoded1, pair.frame0, pair.frame1)
        return Reconstruction(
            decoded._replace(
                frame=self.cropped(decoded.frame, pair),
                sampled=tuple(self.cropped(x - 0.5, pair) for x in decoded.sampled),
            ),
            loss,
            indices,
            self.warped(decoded.maps, pair) if warp else (),
        )

    def warped(self, maps: dict[str, Tensor], pair: Pair) -> tuple[Tensor, ...]:
        """Both frames, sampled without the mask, in [0, 1] and cropped; none where the decoder samples nothing."""
        synthesis = self.autoencoder.decoder.synthesis
        if synthesis is None:
            return ()
        return tuple(self.cropped(x, pair) for x in synthesis.warped(maps, pair.frame0, pair.frame1))

    def cropped(self, frame: Tensor, pair: Pair) -> Tensor:
        height, width = pair.size
        return ((frame + 1) / 2)[..., :height, :width]

    def denoise(
        self, frame0: Tensor, target: Tensor, frame1: Tensor, t: Tensor, generator: torch.Generator | None = None
    ) -> Denoising:
        """The denoiser's pass over the target's latent with noise of times ``t`` (N,).

        The autoencoder gets no gradient.
        """
        with torch.no_grad():
            pair = self.prepare(frame0, frame1)
            latent = self.encode(target).latent
        noise = draw(tuple(latent.shape), generator, latent)
        noisy = self.schedule.add_noise(latent, noise, t)
        return Denoising(self.predict_noise(noisy, t, pair), noise, noisy)

    def in_sequence(self) -> InSequence:
        return InSequence(self)

    def published_keys(self) -> list[tuple[str, str]]:
        return published_keys(self)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return loadable(self, state)


SMALL = LDMVFIConfig(
    AutoencoderConfig(
        width=16,
        multipliers=(1, 2, 4, 5),
        codes=1024,
        resolution=128,
        window=4,
        head_width=16,
        head_widths=(16, 16),
        groups=-4,
    ),
    UNetConfig(width=32, multipliers=(1, 2, 2), blocks=1, head_width=16, groups=-4),
    sampling=Sampling(steps=1, eta=0.0, spacing="trailing"),
)

PRESETS = {"ldmvfi": {"published": LDMVFIConfig(), "small": SMALL}}
