"""What training, measuring and compressing need to know of Video-LDM: clips, a loss a stage, a quality."""

from functools import partial

import torch
from torch import Tensor

from ..compress import distill
from ..models.video_ldm import VideoLDMNet
from . import clips
from .clips import ClipBatch, Quality, inputs
from .task import Defaults

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


split = partial(clips.split, frames=FRAMES)
batches = partial(clips.batches, frames=FRAMES)
example = partial(clips.example, frames=FRAMES)
quality = partial(clips.quality, frames=FRAMES)  # noised to 0.3 of all times, denoised in one step


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
