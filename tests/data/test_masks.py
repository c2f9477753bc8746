import numpy as np
import pytest
import torch

from vfikit.data.masks import Draws, Motion, irregular_masks, random_blob


@pytest.mark.parametrize("size", [(4, 4), (13, 40), (64, 96)])
def test_any_size_and_the_same_again(size: tuple[int, int]) -> None:
    for seed in range(8):
        masks = irregular_masks(5, *size, Draws.seeded(seed))
        assert masks.shape == (5, 1, *size)
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        assert masks[0].any()
        assert torch.equal(masks, irregular_masks(5, *size, Draws.seeded(seed)))


def test_seeds_differ() -> None:
    assert len({float(irregular_masks(1, 64, 96, Draws.seeded(seed)).sum()) for seed in range(8)}) > 5


def test_about_half_stand_still_and_the_others_keep_their_shape() -> None:
    clips = [irregular_masks(6, 60, 80, Draws.seeded(seed)) for seed in range(60)]
    still = [bool((clip == clip[0]).all()) for clip in clips]
    assert 0.25 < np.mean(still) < 0.85  # some wanderers do not get far in six frames
    assert all(len(set(clip.sum((1, 2, 3)).tolist())) == 1 for clip in clips)
    coverage = np.mean([float(clip[0].mean()) for clip in clips])
    assert 0.04 < coverage < 0.11


def test_a_blob_fills_its_box_but_the_last_row_and_column() -> None:
    for seed in range(10):
        blob = random_blob(120, 160, Draws.seeded(seed))
        assert blob.shape[0] < 120
        assert blob.shape[1] < 160
        assert blob[0].any()
        assert blob[:, 0].any()


def test_motion_stays_within_its_room_and_turns_there() -> None:
    draw, motion = np.random.RandomState(3), Motion(0, 5, 3.0, np.pi)
    after = motion.next((40, 30), draw)
    assert (after.row, after.column) == (0, 5)
    assert after.angle != pytest.approx(np.pi, abs=1e-3)
    for _ in range(300):
        motion = motion.next((40, 30), draw)
        assert 0 <= motion.row <= 40
        assert 0 <= motion.column <= 30


def test_frames_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="irregular_masks: frames are 3x40, expected at least 4 pixels"):
        irregular_masks(2, 3, 40, Draws.seeded(0))
