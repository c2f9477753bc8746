"""What training, evaluating and compressing need to know of models that fill holes in clips."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..compress import distill
from ..data import Clips, open_clips
from ..losses.inpainting import region_errors
from ..metrics import psnr, quantise, ssim
from ..models.e2fgvi import Inpainted
from ..ops import warp
from .task import Defaults, Split

DEFAULTS = Defaults(batch_size=2, crop=64, size=(96, 96), pool=200, lr=1e-3)
FRAMES = 5  # of a clip, all consecutive


class Holed(NamedTuple):
    """Whole clips (N, T, 3, H, W) in [0, 1] and their masks (N, T, 1, H, W), 1 where they are to be filled."""

    frames: Tensor
    masks: Tensor


class Losses(NamedTuple):
    """``total`` and its parts: mean absolute errors inside the holes, outside them, and of what the flows bring."""

    total: Tensor
    hole: Tensor
    valid: Tensor
    flow: Tensor


class Quality(NamedTuple):
    """Means over frames with the known pixels put back: PSNR in dB, SSIM; and a row of each clip."""

    psnr: float
    ssim: float
    per_clip: list[dict[str, Any]]


class Kept:
    """The first ``number`` clips of a source in memory, as bytes, ``FRAMES`` each."""

    def __init__(self, data: Clips, number: int, watch: Callable[[Iterable[int]], Iterable[int]] = iter) -> None:
        indices = watch(range(min(number, len(data))))
        self.clips = [((255 * data.read(index, FRAMES)).round().byte(), data.name(index)) for index in indices]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Tensor:
        return self.clips[index][0].float() / 255

    def name(self, index: int) -> str:
        """The clip's name in its source."""
        return self.clips[index][1]


def split(
    spec: str,
    crop: int,
    size: tuple[int, int],
    pool: int,
    seed: int,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Split:
    """Clips of ``spec`` (see ``open_clips``): the first ``pool`` to train on, and others held out."""
    side = crop * 5 // 4
    train = Kept(open_clips(spec, "train", (side, side), seed), pool, watch)
    return Split(train, Kept(open_clips(spec, "test", size, seed), 16), f"{spec}, clips of the test part")


def batches(
    data: Kept, batch_size: int, crop: int, seed: int = 0, steps: int | None = None, start: int = 0
) -> Iterator[Holed]:
    """Random crops of random clips with random holes, from step ``start``; each a function of ``seed`` and its step."""
    if not len(data):
        raise ValueError("batches: there are no clips, expected at least one")
    step = start
    while steps is None or step < steps:
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        clips = [data[int(torch.randint(len(data), (), generator=generator))] for _ in range(batch_size)]
        frames = torch.stack([_cropped(clip, crop, generator) for clip in clips])
        yield Holed(frames, torch.stack([moving_hole(clip, generator) for clip in frames]))
        step += 1


def _cropped(clip: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(max(1, n - side + 1), (), generator=generator)) for n in clip.shape[2:])
    return clip[..., top : top + side, left : left + side]


def moving_hole(clip: Tensor, generator: torch.Generator) -> Tensor:
    """An ellipse that drifts over a clip (T, 3, H, W): masks (T, 1, H, W)."""
    length, _, height, width = clip.shape
    centre, radius, drift = torch.rand(3, 2, generator=generator)
    size = torch.tensor([height, width])
    place = centre * size + torch.arange(length)[:, None] * (drift - 0.5) * size / 8  # (T, 2)
    axes = (0.08 + 0.17 * radius) * size
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    y, x = ((axis - place[:, i, None, None]) / axes[i] for i, axis in enumerate((rows, columns)))
    return (x.square() + y.square() < 1).float()[:, None]


def example(data: Kept) -> Holed:
    """The first clip, whole, as a batch of one."""
    return held_out_batch(data, 0)


def held_out_batch(data: Kept, index: int) -> Holed:
    """Clip ``index`` with a hole that is always the same."""
    clip = data[index]
    return Holed(clip[None], moving_hole(clip, torch.Generator().manual_seed(index))[None])


def inputs(batch: Holed) -> tuple[Tensor]:
    """What the model is called with: frames in [-1, 1] with holes 0."""
    return ((2 * batch.frames - 1) * (1 - batch.masks),)


def loss(model: Any, batch: Holed, terms: None = None) -> Losses:
    """The loss to the whole clip, and how badly the flows bring neighbouring frames together."""
    return losses(model(*inputs(batch)), batch)


def losses(made: Inpainted, batch: Holed) -> Losses:
    """Of what a model made of a batch."""
    hole, valid = region_errors(made.frames, 2 * batch.frames - 1, batch.masks)
    flow = flow_error(made, batch.frames)
    return Losses(hole + valid + flow, hole, valid, flow)


def flow_error(made: Inpainted, frames: Tensor) -> Tensor:
    """Mean absolute difference of whole frames, at the flows' size, from their neighbours as the flows bring them."""
    size = made.forward_flows.shape[-2:]
    small = functional.interpolate(frames.flatten(0, 1), size, mode="area").unflatten(0, frames.shape[:2])
    earlier, later = small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1)
    ahead, back = made.forward_flows.flatten(0, 1), made.backward_flows.flatten(0, 1)
    brought = warp(later, ahead, padding_mode="border"), warp(earlier, back, padding_mode="border")
    return (brought[0] - earlier).abs().mean() + (brought[1] - later).abs().mean()


def distilled(model: Any, teacher: Any | None, batch: Holed, share: float) -> Tensor:
    """The loss to the clip, and ``share`` of the distance to what a teacher makes: its frames and flows.

    To the clip it is ``loss`` and 20 times the mean square, as PSNR is what compression is judged by.
    """
    made = model(*inputs(batch))
    total = losses(made, batch).total + 20 * ((made.frames.float() + 1) / 2 - batch.frames).square().mean()
    if share <= 0 or teacher is None:
        return total
    with torch.no_grad():
        wanted = teacher(*inputs(batch))
    return total + share * distill(list(made), list(wanted))


@torch.no_grad()
def measure(inpaint: Callable[[Tensor, Tensor], Tensor], data: Kept, limit: int | None = None) -> list[dict[str, Any]]:
    """A row a clip, ``name``, ``psnr`` and ``ssim`` (means over frames with a hole), of the first ``limit`` clips."""
    rows = []
    for index in range(min(len(data), limit or len(data))):
        batch = held_out_batch(data, index)
        holed = batch.masks.flatten(0, 1).flatten(1).any(1)  # others come back as they were: PSNR is infinite
        made, whole = (t.float().cpu().flatten(0, 1)[holed] for t in (quantise(inpaint(*batch)), batch.frames))
        row = {"psnr": float(psnr(made, whole).mean()), "ssim": float(ssim(made, whole).mean())}
        rows.append({"name": data.name(index), **row})
    return rows


def quality(model: Any, data: Kept, limit: int | None = None) -> Quality:
    """How well ``model.inpaint`` fills the first ``limit`` clips (all: None)."""
    device = next(model.parameters()).device
    rows = measure(lambda frames, masks: model.inpaint(frames.to(device), masks.to(device)), data, limit)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("psnr", "ssim")}
    return Quality(**means, per_clip=rows)
