"""What training, measuring and compressing need to know of LVDM: clips, masks, a loss a stage, a quality."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..compress import distill
from ..data import Clips
from ..metrics import frechet_random
from ..models.lvdm import LVDMNet
from ..models.lvdm.masks import given_mask
from ..models.text import encode_text
from . import clips
from .clips import ClipBatch, Quality, inputs, measured
from .task import Defaults

__all__ = [
    "DEFAULTS",
    "STAGES",
    "ClipBatch",
    "Quality",
    "batches",
    "distilled",
    "example",
    "inputs",
    "quality",
    "split",
]

DEFAULTS = Defaults(batch_size=1, crop=64, size=(64, 64), pool=64, lr=1e-3, rule="sensitivity")
FRAMES = 16  # of a clip that a net is compressed on
STAGES = ("autoencoder", "short", "prediction", "interpolation")
GIVEN = {"prediction": (0.5, (0,)), "interpolation": (0.9, (0, -1))}  # how often, and which latents
LEVELS = 250  # of noise on given latents
TIMES = (50, 250, 500, 750, 950)  # at which denoising is measured


split = partial(clips.split, frames=FRAMES)
batches = partial(clips.batches, frames=FRAMES)
example = partial(clips.example, frames=FRAMES)
quality = partial(clips.quality, frames=FRAMES)  # noised to a fifth of all times, denoised in one step


def clip_frames(model: LVDMNet, stage: str) -> int:
    """Frames of a training clip; the autoencoder's are those of a short clip."""
    factor = model.factors[0]
    if stage == "autoencoder":
        return max(factor, FRAMES)
    return model.unet(stage).config.length * factor * (model.config.key_stride if stage == "prediction" else 1)


class Reconstruction(NamedTuple):
    """Clips (N, T, 3, H, W) as the autoencoder gives them back, and each posterior's divergence (N,)."""

    frames: Tensor
    kl: Tensor


def reconstruction(model: LVDMNet, frames: Tensor) -> Reconstruction:
    posterior = model.autoencoder.encode(rearrange(2 * frames - 1, "n t c h w -> n c t h w"))
    made = model.autoencoder.decode(posterior.sample())
    return Reconstruction((rearrange(made, "n c t h w -> n t c h w") + 1) / 2, posterior.kl())


def text_of(model: LVDMNet, captions: Sequence[str], left_out: float = 0.0) -> Tensor | None:
    """The captions (N, M, C) as the U-Nets read them, a share ``left_out`` as ""; None if the model reads no text."""
    if not model.config.text_encoder:
        return None
    kept = torch.rand(len(captions)) >= left_out
    said = [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
    return encode_text(model.config.text_encoder, said, next(model.parameters())[:0])


def denoising(
    model: LVDMNet,
    stage: str,
    frames: Tensor,
    t: Tensor | None = None,
    generator: torch.Generator | None = None,
    text: Tensor | None = None,
) -> Tensor:
    """The loss of a stage's U-Net on clips (N, T, 3, H, W): noise at times ``t``, else random ones; ``text_of`` them.

    Some latents of some clips are given, so that one network learns to make clips with them and without.
    """
    with torch.no_grad():
        latent = model.encode(frames, generator)
    if stage == "prediction":
        latent = latent[:, :, :: model.config.key_stride]

    def drawn(kind: Callable[..., Tensor], *arguments: Any) -> Tensor:
        return kind(*arguments, generator=generator).to(latent.device)

    videos = len(latent)
    t = drawn(torch.randint, model.config.timesteps, (videos,)) if t is None else t
    noise = drawn(torch.randn, latent.shape).to(latent)
    if stage not in GIVEN:
        predicted, seen = model.denoise(stage, latent, t, noise, context=text)
    else:
        share, places = GIVEN[stage]
        chosen = drawn(torch.rand, videos).lt(share).to(latent).view(-1, 1, 1, 1, 1)
        mask, level = given_mask(latent, places) * chosen, drawn(torch.randint, LEVELS, (videos,))
        level_noise = drawn(torch.randn, latent.shape).to(latent)
        predicted, seen = model.denoise(stage, latent, t, noise, mask, level, level_noise, text)
    return model.schedule.loss(predicted.float(), seen.target.float(), t, model.config.norm)[0]


@torch.no_grad()
def begin_with_short(model: LVDMNet, stage: str) -> None:
    """Gives the U-Net of ``stage`` the weights of that of short clips; the mask of given latents begins without effect.

    Tables of relative positions that reach farther continue with the farthest, as they are read beyond their ends.
    """
    unet, short = model.unet(stage), model.unet("short")
    apart = ("in_channels", "length", "level_embedding", "levels")
    if replace(unet.config, **{name: getattr(short.config, name) for name in apart}) != short.config:
        raise ValueError(f"begin_with_short: {stage} and short differ in more than {', '.join(apart)}, expected alike")
    own = unet.state_dict()
    for name, weight in short.state_dict().items():
        if own[name].shape == weight.shape:
            own[name].copy_(weight)
        elif weight.ndim == 5:  # the first convolution
            own[name].zero_()[:, : weight.shape[1]] = weight
        else:
            farther = (len(own[name]) - len(weight)) // 2
            own[name].copy_(torch.cat([weight[:1]] * farther + [weight] + [weight[-1:]] * farther))


def tinted(frames: Tensor, deviation: float) -> Tensor:
    """Clips (N, T, 3, H, W) in [0, 1], a random colour added to each: an autoencoder must learn to tell colours."""
    return (frames + deviation * torch.randn(len(frames), 1, 3, 1, 1).to(frames)).clamp(0, 1)


@torch.no_grad()
def by_time(model: LVDMNet, stage: str, data: Clips, limit: int | None = 8) -> dict[str, float]:
    """The loss at each of ``TIMES``, a mean over the first ``limit`` clips; the same noise at every call."""
    device, count = next(model.parameters()).device, 0
    found = dict.fromkeys(TIMES, 0.0)
    for index, clip in clips.read_long_enough(data, clip_frames(model, stage), limit):
        frames, text, count = clip[None].to(device), text_of(model, [data.caption(index)]), count + 1
        for time in TIMES:
            generator = torch.Generator().manual_seed(index)
            t = torch.tensor([time * model.config.timesteps // 1000], device=device)
            found[time] += float(denoising(model, stage, frames, t, generator, text))
    return {f"loss_at_{time}": value / count for time, value in found.items()}


@torch.no_grad()
def frechet(model: LVDMNet, data: Clips, videos: int = 16, seed: int = 0) -> float:
    """``frechet_random`` of so many short clips that the model makes and the first ones of ``data``."""
    frames = clip_frames(model, "short")
    indices, found = zip(*clips.read_long_enough(data, frames, videos), strict=True)
    real, prompt = torch.stack(found), [data.caption(index) for index in indices] if model.config.text_encoder else None
    generator = torch.Generator().manual_seed(seed)
    shape = {"num_frames": frames, "num_videos": len(real), "height": real.shape[3], "width": real.shape[4]}
    made = model.generate(prompt, **shape, generator=generator)
    return float(frechet_random(made.cpu(), real))


@torch.no_grad()
def latent_moments(model: LVDMNet, batches: Iterable[ClipBatch]) -> tuple[float, float]:
    """Scale and shift that make latents of these clips standard: 1 / deviation, -mean."""
    device, count, total, squares = next(model.parameters()).device, 0, 0.0, 0.0
    for batch in batches:
        latent = model.encode(batch.frames.to(device)) / model.config.scale - model.config.shift
        count += latent.numel()
        total += float(latent.double().sum())
        squares += float(latent.double().square().sum())
    if not count:
        raise ValueError("latent_moments: no clips, expected at least one batch")
    mean = total / count
    return (squares / count - mean**2) ** -0.5, -mean


def loss(model: LVDMNet, batch: ClipBatch) -> Tensor:
    """All stages at once: what ``distilled`` asks of a model without a teacher."""
    return distilled(model, None, batch, 0.0)


def distilled(model: LVDMNet, teacher: LVDMNet | None, batch: ClipBatch, share: float) -> Tensor:
    """All networks at once: clips from their own latents, the noise of every U-Net, and a teacher's.

    Both nets see the same times and noise.
    """
    frames, seed = batch.frames, int(torch.randint(2**62, ()))
    made = reconstruction(model, frames).frames.float()
    total = distill(made, frames) + 20 * (made - frames).square().mean()
    for stage in model.stages:
        generator = torch.Generator().manual_seed(seed)
        total = total + 0.1 * denoising(model, stage, frames, None, generator, model.no_text(stage, len(frames)))
    if share <= 0 or teacher is None:
        return total
    noise = torch.randn(model.encode(frames[:1]).shape, device=frames.device).to(frames)
    noise = noise.expand(len(frames), -1, -1, -1, -1)
    with torch.no_grad():
        wanted = teacher(frames, noise=noise)
    return total + share * distill(model(frames, noise=noise), wanted)


def reconstructed(model: LVDMNet, data: Clips, limit: int | None = None, frames: int = FRAMES) -> Quality:
    """How near the autoencoder comes to the first ``limit`` clips."""

    def again(clip: Tensor, index: int) -> Tensor:
        return model.decode(model.encode(clip, mode=True))

    return measured(again, data, frames, limit, next(model.parameters()).device)
