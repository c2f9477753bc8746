"""What training a video inpainting model takes beside its task: consecutive frames, far ones, and holes in them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..data import Draws, FileClips, ObjectMasks, SyntheticClips, irregular_masks
from ..files import InputError
from ..layers import SPyNet
from ..layers.spynet import published_keys
from ..models.e2fgvi import Inpainted
from .inpainting import Holed, flow_error
from .interpolation import _mix


class Moving(NamedTuple):
    """As ``Holed``, and exact flows (N, T - 1, 2, H, W) in pixels between the consecutive frames, ahead and back."""

    frames: Tensor
    masks: Tensor
    ahead: Tensor
    back: Tensor


def batches(
    data: FileClips | SyntheticClips,
    batch_size: int,
    frames: tuple[int, int] = (5, 3),
    crop: tuple[int, int] | None = None,
    seed: int = 0,
    steps: int | None = None,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    objects: ObjectMasks | None = None,
    stage: str = "clips",
    pool: int | None = None,
) -> Iterator[Holed | Moving]:
    """Clips of ``frames`` (consecutive, far) with moving or still holes, mirrored or not, cut to ``crop``.

    Half of the holes are of ``objects`` where given. Of the other stages of ``inpainting_stages``, "frames" has no
    holes, and "flow" the exact flows of synthetic clips. With ``pool`` there are so many clips with their holes, kept
    in memory once they were seen (as bytes), drawn by chance. Each step depends on ``seed`` and its number alone;
    ``shard`` (rank, world) is this process's part of a batch that is ``world`` times larger.
    """
    rank, world = shard
    step = start
    kept: dict[int, tuple[Tensor, ...]] = {}

    def item(place: int) -> tuple[Tensor, ...]:
        if pool is None:
            return _item(data, frames, crop, _mix(seed, place, 5), objects, stage)
        place = _mix(seed, place, 6) % pool
        if place not in kept:
            clip, masks, *flows = _item(data, frames, crop, _mix(seed, place, 5), objects, stage)
            kept[place] = ((255 * clip).round().byte(), masks.byte(), *(flow.half() for flow in flows))
        clip, masks, *flows = (part.float() for part in kept[place])
        return clip / 255, masks, *flows

    while steps is None or step < steps:
        places = range((step * world + rank) * batch_size, (step * world + rank + 1) * batch_size)
        parts = [torch.stack(part) for part in zip(*(item(place) for place in places))]
        yield Moving(*parts) if len(parts) > 2 else Holed(*parts)
        step += 1


def _item(
    data: FileClips | SyntheticClips,
    frames: tuple[int, int],
    crop: tuple[int, int] | None,
    seed: int,
    objects: ObjectMasks | None,
    stage: str,
) -> tuple[Tensor, ...]:
    """A clip, its masks, and in the stage "flow" the exact flows there and back where they are known."""
    draws = Draws.seeded(seed)
    draw = draws.python
    index = draw.randrange(len(data))
    places: list[int] = []

    def choose(count: int) -> Sequence[int]:
        places[:] = chosen(count, *frames, draw)
        return places

    found = [data.pick(index, choose)]
    if stage == "flow" and isinstance(data, SyntheticClips):
        found += data.flows(index, lambda count: places[: frames[0]])
    if crop is not None:
        top, left = (draw.randint(0, max(0, side - wanted)) for side, wanted in zip(found[0].shape[2:], crop))
        found = [part[..., top : top + crop[0], left : left + crop[1]] for part in found]
    if draw.random() < 0.5:
        found = [part.flip(-1) for part in found]
        found[1:] = [flow * flow.new_tensor([-1, 1])[:, None, None] for flow in found[1:]]
    clip, *flows = found
    if stage == "frames":
        return clip, torch.zeros_like(clip[:, :1])
    size = (len(clip), clip.shape[2], clip.shape[3])
    drawn = objects is not None and draw.random() < 0.5
    masks = objects.draw(*size, draw) if objects is not None and drawn else irregular_masks(*size, draws)
    return clip, masks, *flows


def chosen(count: int, local: int, far: int, draw: random.Random) -> Sequence[int]:
    """``local`` consecutive frames of ``count``, then ``far`` of the others in order (fewer where there are not)."""
    if count < local:
        raise ValueError(f"a clip has {count} frames, expected at least {local}")
    start = draw.randint(0, count - local)
    others = [frame for frame in range(count) if not start <= frame < start + local]
    drawn = sorted(draw.sample(others, min(far, len(others))))
    drawn += [start + local - 1] * (far - len(drawn))  # so that clips of a batch are of one length
    return [*range(start, start + local), *drawn]


def by_brightness(forward: Tensor, backward: Tensor, frames: Tensor) -> Tensor:
    """How well flows bring neighbouring frames (B, T, 3, H, W) together: where there is no teacher for them."""
    return flow_error(Inpainted(frames, forward, backward), frames)


def spynet(state: Mapping[str, Tensor]) -> SPyNet:
    """A flow network of published weights, under their own names or E2FGVI's; raises ``InputError`` if some lack."""
    flow, ours = SPyNet(), dict(published_keys())
    state = {name.removeprefix("update_spynet."): tensor for name, tensor in state.items()}
    lacking = [name for name in ours if name not in state]
    if lacking:
        raise InputError(f"SPyNet's weights lack {lacking[0]}, expected {len(ours)} tensors")
    flow.load_state_dict({ours[name]: state[name] for name in ours})
    return flow
