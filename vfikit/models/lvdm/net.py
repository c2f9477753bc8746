"""LVDM: latent video diffusion, short and long (He, Yang, Zhang, Shan and Chen, arXiv:2211.13221).

    an autoencoder gives latents of clips, 4 frames a latent -> a U-Net denoises latent clips -> the decoder

A model has up to three U-Nets over one autoencoder: ``short`` makes clips; ``prediction`` continues latents and
``interpolation`` fills in between them, which together make videos of any length. Videos are (N, T, 3, H, W) in [0, 1]
outside, (N, 3, T, H, W) in [-1, 1] inside.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor

from ...diffusion import Sampling, Schedule, betas
from ...inference import check_counts, check_video
from ..pretrained import Pretrained
from ..text import encode_text
from .autoencoder import VideoAutoencoder
from .conditional import Given, NoisyClip, Prompt, drawing, noisy_clip, sample_clip
from .config import LVDMConfig
from .frame_autoencoder import FrameAutoencoder
from .long_video import between_keys, decoded, first_frames, key_latents
from .masks import given_mask
from .published import loadable, published_keys
from .unet import VideoUNet

STAGES = ("short", "prediction", "interpolation")


class LVDMNet(Pretrained):
    """``generate`` and ``stream`` make videos; ``encode``, ``decode`` and ``denoise`` are what training needs."""

    config_type = LVDMConfig

    def __init__(self, config: LVDMConfig = LVDMConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.config = config
        if (config.autoencoder is None) == (config.frame_autoencoder is None):
            raise ValueError("LVDMNet: got both or none of autoencoder and frame_autoencoder, expected one")
        self.autoencoder: VideoAutoencoder | FrameAutoencoder
        if config.autoencoder is not None:
            self.autoencoder = VideoAutoencoder(config.autoencoder)
        elif config.frame_autoencoder is not None:
            self.autoencoder = FrameAutoencoder(config.frame_autoencoder)
        self.short = None if config.short is None else VideoUNet(config.short)
        self.prediction = None if config.prediction is None else VideoUNet(config.prediction)
        self.interpolation = None if config.interpolation is None else VideoUNet(config.interpolation)
        self.schedule = Schedule(betas("linear", config.timesteps, config.beta_start, config.beta_end))

    @classmethod
    def combined(cls, *models: Self) -> Self:
        """One model with the U-Nets of all, as from checkpoints of one each; the rest is the first's.

        Raises ValueError where latents do not mean the same: another autoencoder, scale, schedule or stride of keys.
        """
        config = models[0].config
        for model in models[1:]:
            check_same_latents(models[0], model)
        for stage in STAGES:
            found = [getattr(model.config, stage) for model in models if getattr(model.config, stage) is not None]
            config = replace(config, **{stage: found[0] if found else None})
        with torch.device("meta"):
            whole = cls(config)
        state: dict[str, Tensor] = {}
        for model in reversed(models):
            state |= model.state_dict()
        whole.load_state_dict(state, assign=True)
        return whole.train(models[0].training)

    def add_unet(self, stage: str, source: LVDMConfig) -> None:
        """A new U-Net of ``stage``, as ``source`` has it, over the autoencoder and the latents of this model."""
        config = getattr(source, stage)
        if config is None:
            raise ValueError(f"LVDMNet: no U-Net {stage!r} to add, expected one in the config it is to be like")
        if config.out_channels != self.autoencoder.config.latent_channels:
            got = f"a U-Net of {config.out_channels} channels for latents of {self.autoencoder.config.latent_channels}"
            raise ValueError(f"LVDMNet: {got}, expected as many")
        alone = self.prediction is None and self.interpolation is None
        stride = source.key_stride if alone else self.config.key_stride
        self.config = replace(self.config, key_stride=stride, **{stage: config})
        setattr(self, stage, VideoUNet(config))

    @property
    def factors(self) -> tuple[int, int, int]:
        """Frames a latent, and rows and columns of pixels a row and column of it."""
        return self.autoencoder.config.factors

    @property
    def stages(self) -> list[str]:
        """The stages that there are U-Nets of."""
        return [stage for stage in STAGES if getattr(self, stage) is not None]

    def unet(self, stage: str) -> VideoUNet:
        """The U-Net of a stage; ``ValueError`` names those that are there."""
        found = getattr(self, stage) if stage in STAGES else None
        if found is None:
            raise ValueError(f"LVDMNet: no U-Net {stage!r}; this model has {', '.join(self.stages) or 'none'}")
        assert isinstance(found, VideoUNet)
        return found

    def no_text(self, stage: str, videos: int) -> Tensor | None:
        """A context of zeros (N, 1, C) where a stage's U-Net reads text, else None."""
        channels = self.unet(stage).config.context_channels
        return next(self.parameters()).new_zeros(videos, 1, channels) if channels else None

    def forward(self, video: Tensor, t: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Every network once: (N, T, 3, H, W) in [0, 1] is encoded, noised, denoised in one step by all, and decoded.

        For measuring and compressing all of them at a time; ``generate`` makes videos. ``t`` (N,) is a fifth of all
        times unless given, ``noise`` (N, z, t, h, w) zero. U-Nets that take given latents are given the first, those
        that read text ``no_text``.
        """
        latent = self.encode(video, mode=True)
        t = torch.full((len(latent),), self.config.timesteps // 5, device=latent.device) if t is None else t
        if noise is None:  # not like the latent: what is joined with this keeps its channels when nets are cut
            noise = torch.zeros(latent.shape, dtype=latent.dtype, device=latent.device)
        x = self.schedule.add_noise(latent, noise, t)
        mask, seen = given_mask(x, (0,)), []
        for stage in self.stages:
            unet = self.unet(stage)
            level = t if unet.config.level_embedding != "none" else None
            text = self.no_text(stage, len(x))
            seen.append(unet(torch.cat([x, mask], dim=1) if unet.config.conditional else x, t, text, level, mask))
        predicted = sum(seen) / len(seen) if seen else torch.zeros_like(x)
        return self.decode(self.schedule.predict_start(x, predicted, t))

    def encode(self, video: Tensor, generator: torch.Generator | None = None, mode: bool = False) -> Tensor:
        """Scaled latents (N, z, t, h, w) of videos (N, T, 3, H, W) in [0, 1], drawn; their means with ``mode``."""
        posterior = self.autoencoder.encode(rearrange(2 * video - 1, "n t c h w -> n c t h w"))
        latent = posterior.mean if mode else posterior.sample(generator=generator)
        return self.config.scale * (latent + self.config.shift)

    def decode(self, latent: Tensor) -> Tensor:
        """Videos (N, T, 3, H, W), in about [0, 1], of scaled latents (N, z, t, h, w)."""
        video = self.autoencoder.decode(latent / self.config.scale - self.config.shift)
        return (rearrange(video, "n c t h w -> n t c h w") + 1) / 2

    def denoise(
        self,
        stage: str,
        latent: Tensor,
        t: Tensor,
        noise: Tensor,
        given: Tensor | None = None,
        level: Tensor | None = None,
        level_noise: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, NoisyClip]:
        """A U-Net's prediction for latents noised to ``t``, and what it was given and should have given.

        See ``noisy_clip``. Clips of which nothing is given are not told a level: so they are sampled.
        """
        unet = self.unet(stage)
        seen = noisy_clip(self.schedule, latent, t, noise, given, level, level_noise)
        if given is not None and level is not None:
            level = torch.where(given.flatten(1).any(1), level, -1)
        return unet(seen.x, t, context, level, given), seen

    def generate(self, prompt: str | list[str] | None = None, **request: Any) -> Tensor:
        """Videos (N, T, 3, H, W) in [0, 1], T = ``num_frames``; takes what ``stream`` takes."""
        return torch.cat(list(self.stream(prompt, **request)), dim=1)

    @torch.no_grad()
    def stream(
        self,
        prompt: str | list[str] | None = None,
        *,
        num_frames: int = 16,
        num_videos: int = 1,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        frames: Tensor | None = None,
        generator: torch.Generator | None = None,
        window: int = 4,
        overlap: int | None = None,
    ) -> Iterator[Tensor]:
        """Pieces (N, t, 3, H, W) in [0, 1] of videos of ``num_frames``, as they are made; memory is that of a clip.

        What one clip of ``short`` holds is made by it alone, after a prompt if the model reads text. Longer ones take
        ``prediction``, and ``interpolation`` where it is there: key latents and those between them; else key latents
        alone, clip after clip. ``frames`` (N, T, 3, H, W) is a clip, or an image (T = 1), that the result
        begins with and continues. Latents are decoded ``window`` at a time, of which ``overlap`` are shared: two unless
        given, none where each frame is decoded on its own. ``sampler`` is one of ``diffusion.SAMPLERS``.
        ``guidance_scale`` 1 is none. Raises ValueError for what this model has no network for.
        """
        check_counts("LVDMNet", num_frames=num_frames, num_videos=num_videos, height=height, width=width)
        start = None if frames is None else self.given_latents(frames)
        size = self.latent_size(height, width) if start is None else (start.shape[3], start.shape[4])
        videos = num_videos if start is None else len(start)
        like = next(self.parameters())[:0]
        texts = self.texts(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, videos, like)
        sampling = self.sampling(num_inference_steps, sampler)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale

        def clip(stage: str, given: Given | None = None) -> Tensor:
            unet = self.unet(stage)
            shape = (videos, unet.config.out_channels, unet.config.length, *size)
            given = None if given is None else given._replace(level=self.config.level)
            noise = drawing(like, generator)
            return sample_clip(unet, self.schedule, sampling, shape, noise, given, texts, scale)

        if overlap is None:
            overlap = 0 if self.config.autoencoder is None else 2
        pieces = decoded(self.clip_frames, self.latents(num_frames, clip, start), window, overlap, self.factors[0])
        for piece in first_frames(pieces, num_frames):
            yield rearrange(piece, "n c t h w -> n t c h w")

    def sampling(self, steps: int | None, sampler: str | None) -> Sampling:
        """The config's, but for what is given."""
        own = self.config.sampling
        return replace(own, steps=own.steps if steps is None else steps, sampler=sampler or own.sampler)

    def texts(
        self,
        prompt: str | list[str] | None,
        negative_prompt: str,
        embeds: Tensor | None,
        negative_embeds: Tensor | None,
        videos: int,
        like: Tensor,
    ) -> Prompt | None:
        """What is asked for, one or one a video; None where nothing is."""
        if prompt is not None and embeds is None:
            if not self.config.text_encoder:
                raise ValueError("LVDMNet: got a prompt, but this model reads no text")
            embeds = encode_text(self.config.text_encoder, [prompt] if isinstance(prompt, str) else prompt, like)
            if negative_embeds is None:
                negative_embeds = encode_text(self.config.text_encoder, [negative_prompt], like)
        if embeds is None:
            if self.short is not None and self.short.config.context_channels:
                raise ValueError("LVDMNet: got no prompt, expected one: this model makes videos of texts")
            return None
        if len(embeds) not in (1, videos):
            raise ValueError(f"LVDMNet: {len(embeds)} prompts, expected one or {videos}, one a video")
        negative = None if negative_embeds is None else negative_embeds.expand(videos, -1, -1)
        return Prompt(embeds.expand(videos, -1, -1), negative)

    def latents(self, num_frames: int, clip: Callable[..., Tensor], start: Tensor | None = None) -> Iterator[Tensor]:
        """Latents of ``num_frames``, in pieces, in order; ``clip(stage, given)`` samples one of a stage."""
        needed = -(-num_frames // self.factors[0])
        if start is None and self.short is not None and needed <= self.short.config.length:
            return iter([clip("short")])
        self.unet("prediction")  # a model without it says so before anything is made
        keys = key_latents(partial(clip, "prediction"), None if start is None else start[:, :, -1:])
        if self.interpolation is not None:
            keys = between_keys(partial(clip, "interpolation"), keys)
        return first_frames(keys if start is None else chain([start[:, :, :-1]], keys), needed)

    def given_latents(self, video: Tensor) -> Tensor:
        """The latents that a video to be continued begins with; what does not fill a latent repeats its first frame."""
        check_video("LVDMNet", "frames", video)
        self.check_size(*video.shape[3:])
        missing = -video.shape[1] % self.factors[0]
        return self.encode(torch.cat([video[:, :1]] * missing + [video], dim=1), mode=True)

    def latent_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        height, width = height or self.config.size[0], width or self.config.size[1]
        self.check_size(height, width)
        return height // self.factors[1], width // self.factors[2]

    def check_size(self, height: int, width: int) -> None:
        """Sides are multiples of what the autoencoder and the U-Nets shrink them by."""
        multiple = max([1, *(self.unet(stage).config.multiple for stage in self.stages)])
        rows, columns = multiple * self.factors[1], multiple * self.factors[2]
        if height % rows or width % columns:
            raise ValueError(f"LVDMNet: {height} x {width} pixels, expected multiples of {rows} and {columns}")

    def clip_frames(self, latent: Tensor) -> Tensor:
        """(N, z, t, h, w) -> (N, 3, T, H, W) in [0, 1]."""
        return rearrange(self.decode(latent), "n t c h w -> n c t h w").clamp(0, 1)

    def published_keys(self) -> list[tuple[str, str]]:
        return published_keys(self)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return loadable(self, state)


def check_same_latents(model: LVDMNet, other: LVDMNet) -> None:
    """Raises ValueError unless the U-Nets of both work on the same latents."""
    names = ("autoencoder", "frame_autoencoder", "scale", "shift", "timesteps", "beta_start", "beta_end", "key_stride")
    differing = [name for name in names if getattr(model.config, name) != getattr(other.config, name)]
    weights = other.autoencoder.state_dict()
    if not differing and any(not torch.equal(own, weights[key]) for key, own in model.autoencoder.state_dict().items()):
        differing = ["the autoencoder's weights"]
    if differing:
        raise ValueError(f"LVDMNet: models to combine differ in {', '.join(differing)}, expected the same latents")
