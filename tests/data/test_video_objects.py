import json
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from vfikit.data import ObjectMasks, open_clips
from vfikit.data.images import write_image
from vfikit.data.video_objects import sequences
from vfikit.files import InputError


def write(folder: Path, count: int = 6, size: tuple[int, int] = (12, 16)) -> None:
    """Numbered frames, each of its own grey."""
    folder.mkdir(parents=True)
    for number in range(count):
        write_image(torch.full((3, *size), number / 10), folder / f"{number:05}.png")


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    for name in ("bear", "camel", "dog"):
        write(tmp_path / "JPEGImages" / "480p" / name)
        masks = tmp_path / "Annotations" / "480p" / name
        masks.mkdir(parents=True)
        for number in range(6):
            mask = torch.zeros(3, 12, 16)
            mask[:, 2 + number : 5 + number, 3:9] = 0.5
            write_image(mask, masks / f"{number:05}.png")
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\ndog\n")
    (lists / "val.txt").write_text("camel\n")
    return tmp_path


def zipped(folder: Path, archive: Path, within: str = "") -> None:
    """Packs a folder's frames, and takes it away."""
    with zipfile.ZipFile(archive, "w") as file:
        for frame in sorted(folder.iterdir(), reverse=True):
            file.write(frame, f"{within}{frame.name}")
    shutil.rmtree(folder)


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_davis_has_its_own_parts(davis: Path) -> None:
    assert names(sequences(davis, "train")) == ["bear", "dog"]
    assert names(sequences(davis, "test")) == ["camel"]
    assert names(sequences(davis, "all")) == ["bear", "camel", "dog"]
    clips = open_clips(str(davis), "test", (12, 16))
    assert (len(clips), clips.name(0)) == (1, "camel")


def test_youtube_vos_and_prepared_lists(tmp_path: Path) -> None:
    for part, name in (("train", "a1"), ("valid", "b2")):
        write(tmp_path / "vos" / part / "JPEGImages" / name)
    assert names(sequences(tmp_path / "vos", "train")) == ["a1"]
    assert names(sequences(tmp_path / "vos", "test")) == ["b2"]
    for name in ("x", "y"):
        write(tmp_path / "prepared" / "JPEGImages" / name)
    (tmp_path / "prepared" / "train.json").write_text(json.dumps({"y": 6}))
    (tmp_path / "prepared" / "test.json").write_text(json.dumps({"x": 6}))
    assert names(sequences(tmp_path / "prepared", "train")) == ["y"]
    assert names(sequences(tmp_path / "prepared", "test")) == ["x"]
    (tmp_path / "prepared" / "train.json").write_text("{")
    with pytest.raises(InputError, match=r"train\.json: cannot be read as a list of clips"):
        sequences(tmp_path / "prepared", "train")
    assert sequences(tmp_path, "train") == []


def test_frames_are_picked_by_number_in_any_order(davis: Path) -> None:
    clips = open_clips(str(davis), "train", (12, 16))
    counts: list[int] = []
    picked = clips.pick(0, lambda count: counts.append(count) or [4, 5, 1])  # type: ignore[func-returns-value]
    assert counts == [6]
    torch.testing.assert_close(picked.mean((1, 2, 3)), torch.tensor([0.4, 0.5, 0.1]), rtol=0, atol=2e-3)


def test_objects_are_holes_that_move(davis: Path) -> None:
    objects = ObjectMasks(davis, "train")
    drawn = [objects.draw(4, 24, 32, random.Random(seed)) for seed in range(6)]
    for masks in drawn:
        assert masks.shape == (4, 1, 24, 32)
        assert set(masks.unique().tolist()) == {0.0, 1.0}
        assert masks.sum((1, 2, 3)).eq(6 * 12).all()
        assert not torch.equal(masks[0], masks[1])
    assert len({tuple(masks.flatten().tolist()) for masks in drawn}) > 2
    assert torch.equal(objects.draw(9, 12, 16, random.Random(0))[-1], objects.draw(9, 12, 16, random.Random(0))[-2])


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no masks found"):
        ObjectMasks(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        ObjectMasks(tmp_path / "nowhere")


def test_zipped_frames_are_read_as_their_folders_are(tmp_path: Path) -> None:
    """As the prepared data sets of video inpainting hold them, with or without a folder inside."""
    frames = tmp_path / "JPEGImages"
    for name in ("a", "b", "c"):
        write(frames / name)
    (tmp_path / "train.json").write_text(json.dumps({"a": 6, "b": 6}))
    (tmp_path / "test.json").write_text(json.dumps({"c": 6}))
    as_folders = open_clips(str(tmp_path), "train", (12, 16)).read(0, 4, place=1.0)
    for name, within in (("a", ""), ("b", "b/"), ("c", "")):
        zipped(frames / name, frames / f"{name}.zip", within)
    clips = open_clips(str(tmp_path), "train", (12, 16))
    assert [clips.name(index) for index in range(len(clips))] == ["a", "b"]
    assert all(torch.equal(clips.read(index, 4, place=1.0), as_folders) for index in (0, 1))
    assert [path.stem for path in sequences(tmp_path, "test")] == ["c"]
    assert len(open_clips(str(frames), "all", (12, 16))) == 3


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"none")
    with pytest.raises(InputError, match=r"a\.zip: cannot be read as a \.zip of frames"):
        open_clips(str(tmp_path), "all")
