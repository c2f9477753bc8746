"""What training, measuring and compressing need to know of Video-LDM: clips, a loss a stage, a quality."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..compress import distill
from ..data import Clips
from ..models.video_ldm import VideoLDMNet
from . import clips
from .clips import ClipBatch, Quality, inputs, measured
from .task import Defaults, Split

__all__ = [
    "DEFAULTS",
    "ClipBatch",
    "Quality",
    "batches",
    "distilled",
    "example",
    "inputs",
    "loss",
    "quality",
    "split",
]

DEFAULTS = Defaults(batch_size=2, crop=32, size=(64, 64), pool=64, lr=1e-3)
FRAMES = 4  # of a clip that a net is compressed on


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


def loss(model: VideoLDMNet, batch: ClipBatch) -> Tensor:
    """All stages at once: what ``distilled`` asks of a model without a teacher."""
    return distilled(model, None, batch, 0.0)


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
