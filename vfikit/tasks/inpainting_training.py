"""What training a video inpainting model takes beside its task: consecutive frames, far ones, and holes in them."""

import random
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..data import Draws, FileClips, ObjectMasks, SyntheticClips, irregular_masks
from ..files import InputError
from ..layers import SPyNet
from ..layers.spynet import published_keys
from ..models.e2fgvi import Inpainted
from .inpainting import Holed, flow_error
from .interpolation import _mix


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
) -> Iterator[Holed]:
    """Clips of ``frames`` (consecutive, far) with moving or still holes, mirrored or not, cut to ``crop``.

    Half of the holes are of ``objects`` where given. Each step depends on ``seed`` and its number alone; ``shard``
    (rank, world) is this process's part of a batch that is ``world`` times larger.
    """
    rank, world = shard
    step = start
    while steps is None or step < steps:
        places = range((step * world + rank) * batch_size, (step * world + rank + 1) * batch_size)
        items = [_item(data, frames, crop, _mix(seed, place, 5), objects) for place in places]
        yield Holed(*(torch.stack(parts) for parts in zip(*items)))
        step += 1


def _item(
    data: FileClips | SyntheticClips,
    frames: tuple[int, int],
    crop: tuple[int, int] | None,
    seed: int,
    objects: ObjectMasks | None,
) -> tuple[Tensor, Tensor]:
    draws = Draws.seeded(seed)
    draw = draws.python
    clip = data.pick(draw.randrange(len(data)), lambda count: chosen(count, *frames, draw))
    if crop is not None:
        top, left = (draw.randint(0, max(0, side - wanted)) for side, wanted in zip(clip.shape[2:], crop))
        clip = clip[..., top : top + crop[0], left : left + crop[1]]
    clip = clip.flip(-1) if draw.random() < 0.5 else clip
    size = (len(clip), clip.shape[2], clip.shape[3])
    drawn = objects is not None and draw.random() < 0.5
    masks = objects.draw(*size, draw) if objects is not None and drawn else irregular_masks(*size, draws)
    return clip, masks


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
