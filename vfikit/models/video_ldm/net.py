"""Video-LDM: a latent diffusion model of images, aligned in time (arXiv:2304.08818, CVPR 2023).

    frames -> autoencoder -> latents; noise -> generator -> latents of key frames, -> interpolator, twice, -> decoder
    with temporal layers -> frames -> upsampler -> frames of four times the sides

One network generates and predicts: where it is told known frames, it continues them. Videos are (B, T, 3, H, W), RGB in
[0, 1]; their sides are to be multiples of ``multiple``.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ...diffusion import Sampling, Schedule, betas
from ...inference import check_counts, check_video
from ...layers.image_autoencoder import ImageAutoencoder
from ..pretrained import Pretrained
from .config import VideoLDMConfig
from .denoiser import DecoderMixers, Given, VideoDenoiser, to_noise
from .generation import Request, generate_latents
from .published import loadable, published_keys
from .schedule import condition
from .texts import Texts, of_embeds, of_labels, of_prompt, spread
from .upsampler import Noised, Upsampler


class VideoLDMNet(Pretrained):
    """``forward(frames, t=None, noise=None)``: videos in [0, 1] -> the same, noised to ``t`` and denoised in one step.

    ``generate`` makes videos. ``denoise``, ``decode`` and ``upsampler.denoise`` are what training needs.
    """

    config_type = VideoLDMConfig
    config: VideoLDMConfig

    def __init__(self, config: VideoLDMConfig) -> None:
        super().__init__()
        self.config = config
        auto, unet, numbers = config.autoencoder, config.unet, config.schedule
        self.autoencoder = ImageAutoencoder(
            auto.width, auto.multipliers, auto.blocks, auto.latent_channels, auto.groups
        )
        self.decoder_mixers = DecoderMixers(self.autoencoder, auto.groups, auto.alpha)
        self.generator = VideoDenoiser(unet, config.frames, config.distance)
        self.interpolator = _interpolator(config) if config.interpolation else None
        self.upsampler = Upsampler(config.upsampler) if config.upsampling else None
        self.labels = nn.ModuleList(nn.Embedding(1 + kinds, unet.text_width) for kinds in config.labels)
        self.schedule = Schedule(betas(numbers.name, numbers.timesteps, numbers.start, numbers.end))
        self.multiple = auto.factor

    def forward(self, frames: Tensor, t: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Every part that generates: encoder, generator, decoder. ``t`` (B,) is by default early, 0.3 of all times.

        ``noise``, of the latents' shape, is none unless given: then the latents are only scaled down.
        """
        latents = self.encode(frames)
        if t is None:
            t = torch.full((len(frames),), self.config.schedule.timesteps * 3 // 10, device=frames.device)
        noisy = self.schedule.add_noise(latents, torch.zeros_like(latents) if noise is None else noise, t)
        given = Given(self.no_text(len(frames)), planes=self.nothing_known(latents))
        predicted = self.generator(noisy, t, given)
        found = to_noise(self.schedule, self.config.schedule.prediction, noisy, t, predicted)
        return self.decode(self.schedule.predict_start(noisy, found, t))

    @property
    def apart(self) -> list[str]:
        """The networks that ``forward`` does not run."""
        return [name for name in ("interpolator", "upsampler") if getattr(self, name) is not None]

    def nothing_known(self, latents: Tensor) -> Tensor | None:
        """The condition that tells the generator of no frame; None where it takes none."""
        if not self.config.unet.planes:
            return None
        return condition(latents, torch.zeros(latents.shape[1]))

    def no_text(self, videos: int, labels: Tensor | None = None) -> Tensor:
        """What stands for a text where there is none, (videos, tokens, width): zeros, and the labels' embeddings.

        ``labels`` (videos, kinds) counts from 1; 0, the default, is "not given".
        """
        like = next(self.generator.parameters())
        if not self.labels:
            return torch.zeros(videos, 1, self.config.unet.text_width, device=like.device, dtype=like.dtype)
        if labels is None:
            labels = torch.zeros(videos, len(self.labels), dtype=torch.int64, device=like.device)
        return torch.stack([embed(labels[:, i]) for i, embed in enumerate(self.labels)], dim=1)

    def encode(self, frames: Tensor, sample: bool = False) -> Tensor:
        """Latents (B, T, C, h, w) of videos in [0, 1]: the posterior's mean, or a draw from it."""
        posterior = self.autoencoder.encode((2 * frames - 1).flatten(0, 1))
        latents = posterior.sample() if sample else posterior.mean
        return (latents * self.config.autoencoder.scale).unflatten(0, frames.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        """Videos in about [0, 1], a window of the config's frames at a time, so that any length fits."""
        windows = latents.split(self.config.frames, dim=1)
        return torch.cat([self._decode(window) for window in windows], dim=1)

    def _decode(self, latents: Tensor) -> Tensor:
        flat = latents.flatten(0, 1) / self.config.autoencoder.scale
        frames = self.decoder_mixers(self.autoencoder, flat, latents.shape[1])
        return ((frames + 1) / 2).unflatten(0, latents.shape[:2])

    def decode_images(self, latents: Tensor) -> Tensor:
        """Frame by frame, as the image autoencoder does."""
        frames = self.autoencoder.decode(latents.flatten(0, 1) / self.config.autoencoder.scale)
        return ((frames + 1) / 2).unflatten(0, latents.shape[:2])

    def denoise(self, denoiser: VideoDenoiser, latents: Tensor, t: Tensor, given: Given) -> Noised:
        """A training pass over latents (B, T, C, h, w) at times (B,): its prediction, and what that should be."""
        noise = torch.randn_like(latents)
        prediction = denoiser(self.schedule.add_noise(latents, noise, t), t, given)
        velocity = self.config.schedule.prediction == "velocity"
        return Noised(prediction, self.schedule.velocity(latents, noise, t) if velocity else noise)

    @torch.no_grad()
    def generate(
        self,
        prompt: str | list[str] | None = None,
        *,
        num_frames: int = 8,
        num_videos: int = 1,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        context_guidance_scale: float = 1.0,
        negative_prompt: str = "",
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        temporal_prompt_embeds: Tensor | None = None,
        temporal_negative_prompt_embeds: Tensor | None = None,
        labels: list[int] | None = None,
        frames: Tensor | None = None,
        interpolations: int = 0,
        upsample: bool = False,
        eta: float | None = None,
        sampler: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Videos (num_videos, num_frames, 3, H, W) in [0, 1], of ``height`` x ``width``, the config's unless given.

        More frames than a window holds are predicted, window after window, from the last two; with ``frames`` (B, S, 3,
        H, W) the video continues those, which it begins with, at their size. With ``interpolations`` (1 or 2) a quarter
        or a sixteenth of the frames are made so, and three put between every two, once or twice. ``upsample`` gives
        four times the sides. ``temporal_prompt_embeds`` is what the temporal layers read where the spatial ones read
        ``prompt_embeds`` of a tuned text encoder; of words, the config's encoders see to it. ``context_guidance_scale``
        leans towards what the known frames ask for. Raises ValueError for what this model has no network for.
        """
        check_counts("generate", num_frames=num_frames, num_videos=num_videos, height=height, width=width)
        videos = num_videos if frames is None else len(frames)
        embeds = (prompt_embeds, negative_prompt_embeds, temporal_prompt_embeds, temporal_negative_prompt_embeds)
        texts = self.texts(videos, prompt, negative_prompt, of_embeds(self, guidance_scale, *embeds), labels)
        request = Request(
            (videos, num_frames, *self.latent_size(height, width, frames)),
            *(texts, guidance_scale, context_guidance_scale),
            self.sampling(num_inference_steps, eta, sampler),
            interpolations,
            generator,
        )
        if upsample and self.upsampler is None:
            raise ValueError("generate: upsample, but this model has no upsampler")
        known = None if frames is None else self.encode(frames.to(texts.text))
        video = self.decode(generate_latents(self, request, known)).clamp(0, 1)
        larger, text = self.upsampler if upsample else None, texts.original().text
        return video if larger is None else larger.upsample(video, text, request.sampling, generator=generator)

    def sampling(self, steps: int | None, eta: float | None, sampler: str | None) -> Sampling:
        """The config's, but for what is given."""
        known = self.config.sampling
        return Sampling(
            sampler or known.sampler,
            known.steps if steps is None else steps,
            known.eta if eta is None else eta,
            known.spacing,
        )

    def latent_size(self, height: int | None, width: int | None, frames: Tensor | None) -> tuple[int, int, int]:
        """Channels, height and width of latents: of the size asked for, else of ``frames``, else of the config."""
        if frames is not None:
            check_video("generate", "frames", frames)
        default = self.config.size if frames is None else frames.shape[3:]
        size = (height or default[0], width or default[1])
        if frames is not None and size != tuple(frames.shape[3:]):
            raise ValueError(f"generate: frames to continue of {tuple(frames.shape[3:])}, expected {size}")
        if size[0] % self.multiple or size[1] % self.multiple:
            raise ValueError(f"generate: frames of {size[0]} x {size[1]}, expected multiples of {self.multiple}")
        channels = self.generator.unet.conv_out.out_channels  # a compressed model may have fewer than its config
        return channels, size[0] // self.multiple, size[1] // self.multiple

    def texts(
        self,
        videos: int,
        prompt: str | list[str] | None,
        negative_prompt: str,
        embeds: Texts | None,
        labels: list[int] | None,
    ) -> Texts:
        """What is asked for, by labels, embeddings or words, in this order, and what guidance leads away from.

        Without any of them, a model with a text encoder reads "".
        """
        if labels is not None:
            return of_labels(self, videos, labels)
        if embeds is None and (prompt is not None or self.config.text_encoder):
            embeds = of_prompt(self, prompt or "", negative_prompt)
        nothing = self.no_text(videos)
        return Texts(nothing, nothing) if embeds is None else spread(embeds, videos)

    def published_keys(self) -> list[tuple[str, str]]:
        return published_keys(self)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return loadable(self, state)

    def add_interpolator(self) -> None:
        """A network for the frames between frames, which begins as the generator; for one that has none yet."""
        self.config = replace(self.config, interpolation=True)
        self.interpolator = _interpolator(self.config)
        own = self.interpolator.state_dict()
        for name, tensor in self.generator.state_dict().items():
            if own[name].shape == tensor.shape:  # one plane more, the rate's, is new
                own[name].copy_(tensor)

    def add_upsampler(self) -> None:
        """A new network that enlarges; for one that has none yet."""
        self.config = replace(self.config, upsampling=True)
        self.upsampler = Upsampler(self.config.upsampler)


def _interpolator(config: VideoLDMConfig) -> VideoDenoiser:
    """As the generator, but told the rate too, by a plane more."""
    planes = config.autoencoder.latent_channels + 2
    return VideoDenoiser(replace(config.unet, planes=planes), config.frames, config.distance)
