"""Clips from made-up scenes, videos, folders of frames and lists."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vfikit.data import images
from vfikit.data.clips import FileClips, Source, SyntheticClips, cover, long_enough, open_clips
from vfikit.files import InputError


def frame_folder(path: Path, count: int = 12, size: tuple[int, int] = (10, 14)) -> Path:
    """Frames of one grey each, that tell their number."""
    path.mkdir(parents=True)
    for k in range(count):
        images.write_image(torch.full((3, *size), k / 255), path / f"{k:05d}.png")
    return path


def numbers(frames: torch.Tensor) -> list[int]:
    return [round(float(x) * 255) for x in frames.mean((1, 2, 3))]


def video(path: Path, count: int = 12) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for k in range(count):
            pixels = torch.full((24, 32, 3), 20 * k, dtype=torch.uint8).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return path


def test_a_folder_of_frames_is_read_at_stride_and_place(tmp_path: Path) -> None:
    clips = FileClips([Source(frame_folder(tmp_path / "a"))])
    assert numbers(clips.read(0, 3)) == [0, 1, 2]
    assert numbers(clips.read(0, 3, stride=4)) == [0, 4, 8]
    assert numbers(clips.read(0, 3, stride=4, place=1.0)) == [3, 7, 11]
    assert numbers(clips.read(0, 4, stride=9)) == [0, 3, 6, 9]  # as far apart as there are frames
    with pytest.raises(InputError, match="has 12 frames, expected at least 13"):
        clips.read(0, 13)


def test_a_video_is_read_likewise(tmp_path: Path) -> None:
    clips = open_clips(str(video(tmp_path / "b.mp4").parent), "all", (24, 32))
    frames = clips.read(0, 3, stride=3, place=1.0)
    assert frames.shape == (3, 3, 24, 32)
    assert numbers(frames) == pytest.approx([100, 160, 220], abs=4)


def test_clips_cover_the_size_asked_for() -> None:
    frames = torch.rand(2, 3, 20, 60)
    assert cover(frames, (10, 10)).shape == (2, 3, 10, 10)
    assert torch.equal(cover(frames, (20, 20)), frames[:, :, :, 20:40])
    assert cover(frames, (37, 41)).shape == (2, 3, 37, 41)


def test_every_tenth_clip_is_held_out(tmp_path: Path) -> None:
    for k in range(12):
        frame_folder(tmp_path / f"clip{k}", 2)
    train, test, both = (open_clips(str(tmp_path), split) for split in ("train", "test", "all"))
    assert [test.name(k) for k in range(len(test))] == ["clip0", "clip10"]
    assert len(train) == 10
    assert len(both) == 12


def test_ucf_101_in_its_classes(tmp_path: Path) -> None:
    for name in ("Archery", "Biking"):
        (tmp_path / name).mkdir()
        video(tmp_path / name / f"v_{name}_g01_c01.avi", 3)
    clips = open_clips(str(tmp_path), "all", (16, 16))
    assert [clips.name(k) for k in range(len(clips))] == ["v_Archery_g01_c01", "v_Biking_g01_c01"]
    assert clips.read(1, 3).shape == (3, 3, 16, 16)


def test_sky_timelapse_in_its_parts(tmp_path: Path) -> None:
    """sky_train/VIDEO/CLIP: the published split, not every tenth."""
    for place in ("sky_train/one/one_1", "sky_train/one/one_2", "sky_train/two/two_1", "sky_test/three/three_1"):
        frame_folder(tmp_path / place, 2)
    train, test, both = (open_clips(str(tmp_path), split) for split in ("train", "test", "all"))
    assert [train.name(k) for k in range(len(train))] == ["one_1", "one_2", "two_1"]
    assert [test.name(k) for k in range(len(test))] == ["three_1"]
    assert len(both) == 4


def test_taichi_in_its_parts(tmp_path: Path) -> None:
    for part, names in (("train", "ab"), ("test", "c")):
        (tmp_path / part).mkdir()
        for name in names:
            video(tmp_path / part / f"{name}.mp4", 3)
    train, test, both = (open_clips(str(tmp_path), split) for split in ("train", "test", "all"))
    assert [train.name(k) for k in range(len(train))] == ["a", "b"]
    assert [test.name(k) for k in range(len(test))] == ["c"]
    assert len(both) == 3


def test_folders_that_are_too_short_are_left_out(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 6), ("c", 5)):
        frame_folder(tmp_path / name, count)
    video(tmp_path / "d.mp4", 3)
    clips = open_clips(str(tmp_path), "all", None)
    with pytest.warns(UserWarning, match="1 of 4 clips have fewer than 5 frames: left out"):
        kept = long_enough(clips, 5)
    assert [kept.name(k) for k in range(len(kept))] == ["d", "b", "c"]  # how long a video is shows when it is read
    frame_folder(tmp_path / "only" / "a", 2)
    with pytest.raises(InputError, match="no clip has 3 frames"):
        long_enough(open_clips(str(tmp_path / "only"), "all"), 3)
    synthetic = SyntheticClips(2)
    assert long_enough(synthetic, 100) is synthetic


def test_a_list_gives_captions_and_passes_over_what_is_gone(tmp_path: Path) -> None:
    video_folder = tmp_path / "videos" / "p1"
    video_folder.mkdir(parents=True)
    video(video_folder / "7.mp4")
    frame_folder(tmp_path / "mine")
    (tmp_path / "list.csv").write_text("videoid,page_dir,name\n7,p1,a dog\n8,p1,gone\n")
    (tmp_path / "own.csv").write_text("path,caption\nmine,a cat\n")
    clips = open_clips(str(tmp_path / "list.csv"), "all")
    assert [clips.caption(k) for k in range(len(clips))] == ["a dog"]
    assert clips.read(0, 2).shape == (2, 3, 64, 64)
    assert open_clips(str(tmp_path / "own.csv"), "all").caption(0) == "a cat"


def test_synthetic_clips_depend_on_index_and_seed() -> None:
    clips = SyntheticClips(size=(16, 24))
    assert torch.equal(clips.read(3, 4), clips.read(3, 4))
    assert not torch.equal(clips.read(3, 4), SyntheticClips(size=(16, 24), seed=1).read(3, 4))
    five, wide = clips.read(3, 5), clips.read(3, 3, stride=2)
    torch.testing.assert_close(five[::2], wide)
    assert open_clips("synthetic", "test").read(0, 2).shape == (2, 3, 64, 64)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("videoid,page_dir,name\n1,p,x\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no such folder"):
        open_clips(str(tmp_path / "none"))
    with pytest.raises(InputError, match="no clips found"):
        open_clips(str(tmp_path))
    with pytest.raises(InputError, match="none of its 1 videos is there"):
        open_clips(str(tmp_path / "empty.csv"))
    with pytest.raises(InputError, match="a row without videoid or path"):
        open_clips(str(tmp_path / "other.csv"))
    with pytest.raises(InputError, match="split is 'half'"):
        open_clips("synthetic", "half")
    frame_folder(tmp_path / "one" / "only")
    with pytest.raises(InputError, match="holds no train clips"):
        open_clips(str(tmp_path / "one"))
