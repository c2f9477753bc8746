"""What training, measuring and compressing need to know of Video-LDM: clips, a loss a stage, a quality."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..compress import distill
from ..data import Clips
from ..layers.inflate import temporal_parameters
from ..models.video_ldm import Given, VideoLDMNet
from ..models.video_ldm.schedule import BETWEEN, condition, known_mask
from ..models.video_ldm.upsampler import FACTOR, Noised
from . import clips
from .clips import ClipBatch, Quality, inputs, measured
from .task import Defaults, Split

__all__ = [
    "DEFAULTS",
    "STAGES",
    "ClipBatch",
    "Quality",
    "batches",
    "denoising",
    "distilled",
    "example",
    "inputs",
    "quality",
    "reconstruction",
    "split",
    "trained",
]

DEFAULTS = Defaults(batch_size=2, crop=48, size=(64, 64), pool=64, lr=1e-3)
FRAMES = 4  # of a clip that a net is compressed on
STAGES = ("autoencoder", "image", "temporal", "decoder", "prediction", "interpolation", "upsampler")
NO_TEXT = 0.1  # share of clips whose text is left out, so that guidance has something to lean away from


def split(
    spec: str,
    crop: int,
    size: tuple[int, int],
    pool: int,
    seed: int,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Split:
    """Clips to train on and others held out; synthetic ones are kept in memory."""
    return clips.split(spec, crop, size, pool, seed, watch, FRAMES)


def batches(
    data: Clips,
    batch_size: int,
    crop: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    frames: int = FRAMES,
    strides: Sequence[int] = (1,),
) -> Iterator[ClipBatch]:
    """See ``clips.batches``."""
    return clips.batches(data, batch_size, crop, seed, steps, start, shard, frames, strides)


def example(data: Clips) -> ClipBatch:
    """The first clip as a batch of one."""
    return clips.example(data, FRAMES)


def trained(model: VideoLDMNet, stage: str) -> list[nn.Parameter]:
    """The parameters that a stage trains; networks that it needs and the model has not are added.

    The image network stays as it is where only its temporal layers are trained; the interpolator is trained whole.
    """
    if stage == "interpolation" and model.interpolator is None:
        model.add_interpolator()
    if stage == "upsampler" and model.upsampler is None:
        model.add_upsampler()
    temporal = temporal_parameters(model.generator)
    known = {id(parameter) for parameter in temporal}
    match stage:
        case "autoencoder":
            return list(model.autoencoder.parameters())
        case "image":
            return [p for p in model.generator.parameters() if id(p) not in known]
        case "temporal" | "prediction":
            return [*temporal, *model.labels.parameters()]
        case "decoder":
            return list(model.decoder_mixers.parameters())
        case "interpolation" if model.interpolator is not None:
            return list(model.interpolator.parameters())
        case "upsampler" if model.upsampler is not None:
            return list(model.upsampler.denoiser.parameters())
    raise ValueError(f"stage is {stage!r}, expected one of {', '.join(STAGES)}")


def denoising(model: VideoLDMNet, stage: str, batch: ClipBatch, text: Tensor | None = None) -> Noised:
    """What a denoiser predicts in this stage, and should; ``text`` (B, S, D) is left out of some clips.

    The image network sees single frames; the generator no known frames ("temporal") or, as often each, none, the first
    or the first two ("prediction"); the interpolator both ends and which stride it is. The upsampler sees the clip at a
    quarter of its size, with noise.
    """
    frames, videos = batch.frames, len(batch.frames)
    nothing = model.no_text(videos)
    if text is None:
        text = nothing
    else:
        left_out = torch.rand(videos, 1, 1, device=text.device) < NO_TEXT
        text = torch.where(left_out, torch.zeros_like(text), text)
    t = torch.randint(model.config.schedule.timesteps, (videos,), device=frames.device)
    if stage == "upsampler":
        assert model.upsampler is not None
        level = torch.randint(1 + model.config.upsampler.most_noise, (videos,), device=frames.device)
        low = nn.functional.avg_pool2d(frames.flatten(0, 1), FACTOR).unflatten(0, frames.shape[:2])
        return model.upsampler.denoise(frames, low, t, level, text)
    with torch.no_grad():
        latents = model.encode(frames, sample=True)
    if stage == "image":
        flat = latents.flatten(0, 1)[:, None]
        each = latents.shape[1]
        t = torch.randint(model.config.schedule.timesteps, (len(flat),), device=frames.device)
        return model.denoise(model.generator, flat, t, Given(text.repeat_interleave(each, 0), as_images=True))
    if stage == "interpolation":
        assert model.interpolator is not None
        planes = condition(latents, known_mask(BETWEEN + 1, (0, BETWEEN), latents.device))
        rate = batch.rate.to(planes).view(-1, 1, 1, 1, 1).expand(-1, planes.shape[1], 1, *planes.shape[3:])
        return model.denoise(model.interpolator, latents, t, Given(text, planes=torch.cat([planes, rate], dim=2)))
    if not model.config.unet.planes:
        if stage == "prediction":
            raise ValueError("stage prediction: this model is not told of known frames (its planes are 0)")
        return model.denoise(model.generator, latents, t, Given(text))
    seen = torch.randint(3 if stage == "prediction" else 1, (videos, 1), device=frames.device)
    mask = (torch.arange(latents.shape[1], device=frames.device) < seen).to(latents)
    return model.denoise(model.generator, latents, t, Given(text, planes=condition(latents, mask)))


class Reconstruction(NamedTuple):
    """Clips (B, T, 3, H, W) as the autoencoder gives them back, and the divergence of its posterior, a mean."""

    frames: Tensor
    divergence: Tensor


def reconstruction(model: VideoLDMNet, stage: str, frames: Tensor) -> Reconstruction:
    """Of the autoencoder frame by frame, or ("decoder") with the temporal layers and the encoder as it is."""
    if stage == "decoder":
        with torch.no_grad():
            latents = model.encode(frames, sample=True)
        return Reconstruction(model.decode(latents), latents.new_zeros(()))
    posterior = model.autoencoder.encode((2 * frames - 1).flatten(0, 1))
    made = (model.autoencoder.decode(posterior.sample()) + 1) / 2
    return Reconstruction(made.unflatten(0, frames.shape[:2]), posterior.kl().mean() / frames[0, 0].numel())


def distilled(model: VideoLDMNet, teacher: VideoLDMNet | None, batch: ClipBatch, share: float) -> Tensor:
    """All that generates at once: clips as they were, from their latents at random times with noise, and a teacher's.

    Also the autoencoder's own reconstruction, and the noise predicted. Both nets see the same times and noise.
    """
    t = torch.randint(model.config.schedule.timesteps // 2, (len(batch.frames),), device=batch.frames.device)
    latents = model.encode(batch.frames)
    noise = torch.randn_like(latents)
    made = model(batch.frames, t, noise)
    rebuilt = model.decode(latents)
    total = distill([made, rebuilt], [batch.frames] * 2) + 20 * (rebuilt.float() - batch.frames).square().mean()
    total = total + 5 * (made.float() - batch.frames).square().mean()
    if share <= 0 or teacher is None:
        return total
    with torch.no_grad():
        wanted = teacher(batch.frames, t, noise)
    return total + share * distill(made, wanted)


def quality(model: VideoLDMNet, data: Clips, limit: int | None = None, frames: int = FRAMES) -> Quality:
    """How near the first ``limit`` clips are to themselves, noised to 0.3 of all times and denoised in one step."""

    def denoised(clip: Tensor, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        made: Tensor = model(clip, noise=torch.randn(model.encode(clip).shape, generator=generator).to(clip))
        return made

    return measured(denoised, data, frames, limit, next(model.parameters()).device)
