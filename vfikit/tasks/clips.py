"""What tasks over clips share: batches of them, clips kept in memory, measures of quality."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data import Clips, open_clips
from ..data.clips import TooShort
from ..files import InputError
from ..metrics import psnr, quantise, ssim
from .interpolation import _mix
from .task import Split

TRIES = 100  # of drawing a clip that is long enough


class ClipBatch(NamedTuple):
    """Clips (B, T, 3, H, W) in [0, 1], their places in the data (B,), and which of the strides they have (B,)."""

    frames: Tensor
    item: Tensor
    rate: Tensor


class Quality(NamedTuple):
    """Means over clips, and a row of each: PSNR in dB and SSIM (7x7 uniform) of all frames."""

    psnr: float
    ssim: float
    per_clip: list[dict[str, Any]]


class Kept:
    """Clips kept in memory as bytes."""

    def __init__(
        self, data: Clips, number: int, frames: int, watch: Callable[[Iterable[int]], Iterable[int]] = iter
    ) -> None:
        indices = range(min(number, len(data)))
        self._frames = [(data.read(index, frames) * 255).round().byte() for index in watch(indices)]

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        return f"clip {index}"

    def caption(self, index: int) -> str:
        return ""

    def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
        return self._frames[index][:num_frames].float() / 255


def split(
    spec: str,
    crop: int,
    size: tuple[int, int],
    pool: int,
    seed: int,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
    frames: int = 16,
) -> Split:
    """Clips to train on and others held out; synthetic ones, of ``frames``, are kept in memory."""
    train = open_clips(spec, "train", (crop, crop), seed)
    kept = Kept(train, pool, frames, watch) if spec == "synthetic" else train
    return Split(kept, open_clips(spec, "test", size, seed), f"clips of {spec}")


def batches(
    data: Clips,
    batch_size: int,
    crop: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    frames: int = 16,
    strides: Sequence[int] = (1,),
) -> Iterator[ClipBatch]:
    """Batches of clips from a random place, at one of ``strides``, mirrored or not; ``crop`` cuts a random square.

    Each step depends on ``seed`` and its number alone, so training resumes by ``start``. In place of a clip that proves
    too short another is drawn, with a warning. ``shard`` (rank, world) gives
    each of several processes its own part of a batch that is ``world`` times larger.
    """
    if not len(data):
        raise ValueError("batches: there are no clips, expected at least one")
    rank, world = shard
    step, generator = start, torch.Generator()
    while steps is None or step < steps:
        items, indices, rates = [], [], []
        for place in range((step * world + rank) * batch_size, (step * world + rank + 1) * batch_size):
            generator.manual_seed(_mix(seed, place, 3))
            index, rate, clip, mirrored = _drawn(data, frames, strides, generator)
            clip = _crop(clip, crop, generator)
            items.append(clip.flip(-1) if mirrored < 0.5 else clip)
            indices.append(index)
            rates.append(rate)
        yield ClipBatch(torch.stack(items), torch.tensor(indices), torch.tensor(rates))
        step += 1


def _drawn(
    data: Clips, frames: int, strides: Sequence[int], generator: torch.Generator
) -> tuple[int, int, Tensor, float]:
    """A clip's index, which stride, its frames, and a number that says whether they are mirrored."""
    error = None
    for _ in range(TRIES):
        index = int(torch.randint(len(data), (), generator=generator))
        rate = int(torch.randint(len(strides), (), generator=generator))
        where, mirrored = torch.rand(2, generator=generator).tolist()
        try:
            return index, rate, data.read(index, frames, strides[rate], where), mirrored
        except TooShort as short:
            error = short
            warnings.warn(f"{short}: left out", stacklevel=2)
    raise InputError(f"{error}; {TRIES} in a row were too short")


def read_long_enough(
    data: Clips, frames: int, limit: int | None = None, seed: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The first ``limit`` clips (T, 3, H, W) with so many frames, and their indices; the others are warned of.

    With a ``seed`` they are random ones, from random places.
    """
    generator = torch.Generator().manual_seed(seed or 0)
    order = range(len(data)) if seed is None else torch.randperm(len(data), generator=generator).tolist()
    found = 0
    for index in order:
        place = 0.0 if seed is None else float(torch.rand((), generator=generator))
        try:
            clip = data.read(index, frames, place=place)
        except TooShort as short:
            warnings.warn(f"{short}: left out", stacklevel=2)
            continue
        yield index, clip
        found += 1
        if found == limit:
            return
    if not found:
        raise InputError(f"no clip has {frames} frames, expected some")


def _crop(clip: Tensor, side: int | None, generator: torch.Generator) -> Tensor:
    if side is None or min(clip.shape[2:]) < side:
        return clip
    top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in clip.shape[2:])
    return clip[..., top : top + side, left : left + side]


def example(data: Clips, frames: int = 16) -> ClipBatch:
    """The first clip as a batch of one."""
    nothing = torch.zeros(1, dtype=torch.int64)
    return ClipBatch(data.read(0, frames)[None], nothing, nothing)


def inputs(batch: ClipBatch) -> tuple[Tensor]:
    """What the model is called with: clips."""
    return (batch.frames,)


@torch.no_grad()
def measured(
    make: Callable[[Tensor, int], Tensor], data: Clips, frames: int, limit: int | None, device: torch.device
) -> Quality:
    """How near ``make(clip (1, T, 3, H, W), index)`` comes to each of the first ``limit`` clips; all: None."""
    rows: list[dict[str, Any]] = []
    for index, frames_of_clip in read_long_enough(data, frames, limit):
        clip = frames_of_clip[None].to(device)
        made = quantise(make(clip, index)[0].float().clamp(0, 1))
        found = {"psnr": float(psnr(made, clip[0]).mean()), "ssim": float(ssim(made, clip[0]).mean())}
        rows.append({"name": data.name(index), **found})
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("psnr", "ssim")}
    return Quality(**means, per_clip=rows)


def quality(model: Any, data: Clips, limit: int | None = None, frames: int = 16) -> Quality:
    """How near the first ``limit`` clips are to themselves, noised as ``model(clip, noise=...)`` does and denoised.

    The noise of a clip is the same at every call.
    """

    def denoised(clip: Tensor, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        made: Tensor = model(clip, noise=torch.randn(model.encode(clip).shape, generator=generator).to(clip))
        return made

    return measured(denoised, data, frames, limit, next(model.parameters()).device)
