import itertools
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from vfikit.data import open_clips
from vfikit.files import InputError
from vfikit.layers import SPyNet
from vfikit.layers.spynet import published_keys
from vfikit.ops import warp
from vfikit.tasks.inpainting_training import Moving, batches, by_brightness, chosen, spynet


def test_chosen_frames_are_consecutive_then_far_ones_in_order() -> None:
    draw = random.Random(0)
    for _ in range(50):
        frames = list(chosen(12, 5, 3, draw))
        local, far = frames[:5], frames[5:]
        assert local == list(range(local[0], local[0] + 5))
        assert far == sorted(set(far) - set(local))
        assert 0 <= min(frames) <= max(frames) < 12
    assert list(chosen(4, 4, 2, draw)) == [0, 1, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="a clip has 4 frames, expected at least 5"):
        chosen(4, 5, 0, draw)


def test_batches_depend_on_seed_and_step_alone() -> None:
    data = open_clips("synthetic", "train", (24, 32))
    whole = list(batches(data, 2, (2, 1), (16, 24), seed=3, steps=3))
    again = list(batches(data, 2, (2, 1), (16, 24), seed=3, steps=3, start=1))
    assert len(again) == 2
    for a, b in zip(whole[1:], again, strict=True):
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.masks, b.masks)
    assert whole[0].frames.shape == (2, 3, 3, 16, 24)
    assert whole[0].masks.shape == (2, 3, 1, 16, 24)
    assert set(whole[0].masks.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(whole[0].frames, whole[1].frames)


def test_a_pool_is_seen_again_and_again() -> None:
    data = open_clips("synthetic", "train", (24, 32))
    found = list(batches(data, 2, (2, 1), (16, 24), seed=3, steps=8, pool=3))
    clips = torch.cat([batch.frames for batch in found])
    assert len(clips.unique(dim=0)) == 3
    last = next(batches(data, 2, (2, 1), (16, 24), seed=3, steps=8, start=7, pool=3))
    assert torch.equal(last.frames, found[7].frames)
    assert torch.equal(last.masks, found[7].masks)
    assert torch.equal(255 * clips, (255 * clips).round())


def test_stages_see_what_they_need() -> None:
    """No holes, or exact flows, which are mirrored and cut with their clips; the same clips as in the last stage."""
    data = open_clips("synthetic", "train", (48, 64))
    common = {"frames": (3, 1), "crop": (32, 40), "seed": 1, "steps": 4}
    errors = torch.zeros(3)
    for clips, frames, flow in zip(*(batches(data, 2, **common, stage=s) for s in ("clips", "frames", "flow"))):  # type: ignore[arg-type]
        assert torch.equal(clips.frames, frames.frames)
        assert not frames.masks.any()
        assert torch.equal(clips.masks, flow.masks)
        assert isinstance(flow, Moving)
        assert flow.ahead.shape == flow.back.shape == (2, 2, 2, 32, 40)
        earlier, later = flow.frames[:, :2].flatten(0, 1), flow.frames[:, 1:3].flatten(0, 1)
        for start, end, way in ((earlier, later, flow.ahead), (later, earlier, flow.back)):
            brought = [warp(end, sign * way.flatten(0, 1), padding_mode="border") for sign in (1, 0, -1)]
            errors += torch.stack([(frame - start).abs().mean() for frame in brought])
    assert errors[0] < 0.6 * min(errors[1:])


def test_processes_share_a_larger_batch() -> None:
    data = open_clips("synthetic", "train", (16, 16))
    one = next(batches(data, 4, (2, 0), seed=1))
    parts = [next(batches(data, 2, (2, 0), seed=1, shard=(rank, 2))) for rank in (0, 1)]
    assert torch.equal(one.frames, torch.cat([part.frames for part in parts]))


def test_objects_are_half_of_the_holes() -> None:
    class Everything:
        def draw(self, length: int, height: int, width: int, draw: random.Random) -> torch.Tensor:
            return torch.ones(length, 1, height, width)

    class Grey:
        def __len__(self) -> int:
            return 1

        def pick(self, index: int, choose: Callable[[int], Sequence[int]]) -> torch.Tensor:
            return torch.zeros(len(choose(9)), 3, 16, 16)

    data = Grey()
    found = itertools.islice(batches(data, 1, (2, 0), objects=Everything()), 30)  # type: ignore[arg-type]
    share = sum(bool(batch.masks.all()) for batch in found) / 30
    assert 0.25 < share < 0.75


def test_true_flows_bring_frames_together() -> None:
    frames = torch.rand(1, 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 9, 1, 4).unflatten(0, (1, 3))
    moved = torch.stack([frames[0, 0].roll(4 * t, dims=2) for t in range(3)])[None]
    right = torch.zeros(1, 2, 2, 8, 12)
    right[:, :, 0] = 1  # a pixel of a quarter of the size
    assert by_brightness(right, -right, moved) < 0.5 * by_brightness(0 * right, 0 * right, moved)


def test_spynet_weights_under_either_name() -> None:
    flow, ours = SPyNet(), dict(published_keys())
    own = flow.state_dict()
    for prefix in ("", "update_spynet."):
        state = {prefix + theirs: own[name] for theirs, name in ours.items()}
        assert all(torch.equal(value, own[name]) for name, value in spynet(state).state_dict().items())
    with pytest.raises(InputError, match="SPyNet's weights lack"):
        spynet({})
