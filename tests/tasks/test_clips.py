"""Batches and held-out clips pass over what is too short."""

from pathlib import Path

import pytest
import torch

from vfikit.data.clips import FileClips, Source
from vfikit.files import InputError
from vfikit.tasks import clips

from ..data.test_clips import frame_folder, numbers


def folder(tmp_path: Path, *counts: int) -> FileClips:
    return FileClips([Source(frame_folder(tmp_path / str(k), count)) for k, count in enumerate(counts)])


def test_batches_draw_another_clip(tmp_path: Path) -> None:
    """The same at every call, and from where a training stopped."""
    data = folder(tmp_path, 2, 6, 2, 9)
    with pytest.warns(UserWarning, match="has 2 frames, expected at least 5: left out"):
        whole = list(clips.batches(data, 2, steps=6, frames=5))
    assert {int(item) for batch in whole for item in batch.item} == {1, 3}
    assert all(batch.frames.shape == (2, 5, 3, 10, 14) for batch in whole)
    with pytest.warns(UserWarning, match="left out"):
        rest = list(clips.batches(data, 2, steps=6, start=3, frames=5))
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[3:], rest, strict=True))
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InputError, match="100 in a row were too short"):
        next(clips.batches(data, 1, frames=20))


def test_the_first_that_are_long_enough(tmp_path: Path) -> None:
    data = folder(tmp_path, 2, 6, 2, 9)
    with pytest.warns(UserWarning, match="has 2 frames"):
        found = list(clips.read_long_enough(data, 5, 2))
    assert [index for index, _ in found] == [1, 3]
    assert numbers(found[1][1]) == [0, 1, 2, 3, 4]
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InputError, match="no clip has 20 frames"):
        list(clips.read_long_enough(data, 20))


def test_random_ones_from_random_places(tmp_path: Path) -> None:
    data = folder(tmp_path, *[12] * 8)
    orders, places = set(), set()
    for seed in range(4):
        found = list(clips.read_long_enough(data, 3, 5, seed))
        assert len({index for index, _ in found}) == 5
        again = list(clips.read_long_enough(data, 3, 5, seed))
        assert [i for i, _ in found] == [i for i, _ in again]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, again, strict=True))
        orders.add(tuple(index for index, _ in found))
        places |= {numbers(clip)[0] for _, clip in found}
    assert len(orders) == 4
    assert len(places) > 4
