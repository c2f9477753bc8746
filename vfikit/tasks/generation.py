"""What making videos needs to know of a model: one request, one stream of frames, whichever model it is."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data import Clips
from .clips import read_long_enough


class Request(NamedTuple):
    """What is asked of a generative model; None leaves it to the model. ``frames`` (1, T, 3, H, W) are continued.

    The three after the seed are not for every model: how often frames are put between frames, whether the sides are
    made larger, how far to lean towards the frames that are continued. ``sampler`` is one of ``diffusion.SAMPLERS``.
    """

    num_frames: int = 16
    height: int | None = None
    width: int | None = None
    prompt: str | None = None
    frames: Tensor | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    interpolations: int | None = None
    upsample: bool | None = None
    context_guidance_scale: float | None = None
    sampler: str | None = None


def makes_videos(model: Any) -> bool:
    return hasattr(model, "generate")


def check(model: Any) -> None:
    """Raises ValueError for a model that makes no videos."""
    if not makes_videos(model):
        raise ValueError(f"{type(model).__name__} makes no videos, expected a generative model (lvdm, video-ldm)")


@torch.no_grad()
def stream(model: Any, request: Request) -> Iterator[Tensor]:
    """Frames (3, H, W) in [0, 1] on the CPU, as they are made where the model streams, else when all are."""
    check(model)
    given = request._asdict()
    generator = torch.Generator().manual_seed(given.pop("seed"))
    asked = {name: value for name, value in given.items() if value is not None}
    make = model.stream if hasattr(model, "stream") else model.generate
    if unknown := sorted(set(asked) - set(inspect.signature(make).parameters)):
        raise ValueError(f"{type(model).__name__} takes no {', '.join(unknown)}")
    if hasattr(model, "stream"):
        pieces = model.stream(**asked, generator=generator)
    else:
        pieces = iter([model.generate(**asked, generator=generator)])
    for piece in pieces:
        yield from piece[0].float().clamp(0, 1).cpu()


class Sampled(NamedTuple):
    """A video that a model made and a real one, (1, T, 3, H, W) each, and the text that the former was made of."""

    made: Tensor
    real: Tensor
    text: str
    item: int  # the real one's index


def sampled(
    model: Any,
    data: Clips,
    frames: int,
    limit: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    shuffled: bool = False,
) -> Iterator[Sampled]:
    """A video for each of the first ``limit`` clips, made of its caption by a model that reads text; seeds count up.

    ``shuffled``: for random clips, from random places.
    """
    reads, device = bool(model.config.text_encoder), next(model.parameters()).device
    for count, (index, clip) in enumerate(read_long_enough(data, frames, limit, seed if shuffled else None)):
        real, text = clip[None].to(device), data.caption(index) if reads else ""
        size = (real.shape[3], real.shape[4])
        request = Request(frames, *size, text if reads else None, None, steps, seed=seed + count)
        yield Sampled(torch.stack(list(stream(model, request)))[None].to(device), real, text, index)
