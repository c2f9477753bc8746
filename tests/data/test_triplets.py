"""Every published layout, made up here; what is missing or wrong is named."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from vfikit.data.images import write_image
from vfikit.data.layouts import find_triplets
from vfikit.data.triplets import TripletFolder
from vfikit.files import InputError


def make(folder: Path, names: Iterable[str], size: tuple[int, int] = (4, 5), first: int = 0) -> None:
    """Flat frames: the n-th of level first + n."""
    for level, name in enumerate(names, first):
        write_image(torch.full((3, *size), level / 255), folder / name)


def levels(paths: Iterable[object]) -> list[tuple[int, ...]]:
    return [tuple(round(float(f[0, 0, 0]) * 255) for f in triplet) for triplet in TripletFolder(list(paths))]  # type: ignore


IM = ("im1.png", "im2.png", "im3.png")


@pytest.fixture
def vimeo(tmp_path: Path) -> Path:
    for number in range(1, 6):
        make(tmp_path / f"sequences/00001/000{number}", IM, first=10 * number)
    (tmp_path / "tri_trainlist.txt").write_text("00001/0001\n00001/0003\n00001/0004\n")
    (tmp_path / "tri_testlist.txt").write_text("00001/0002\n00001/0005")  # no newline at the end, as published
    return tmp_path


def test_vimeo(vimeo: Path) -> None:
    assert [p.name for p in find_triplets(vimeo, "train")] == ["00001/0001", "00001/0003", "00001/0004"]
    assert [p.name for p in find_triplets(vimeo, "test", explicit=False)] == ["00001/0002", "00001/0005"]
    assert len(find_triplets(vimeo)) == 5
    assert levels(find_triplets(vimeo, "test")) == [(20, 21, 22), (50, 51, 52)]


def test_vimeo_lists_and_files_must_agree(vimeo: Path) -> None:
    (vimeo / "sequences/00001/0005/im2.png").unlink()
    assert find_triplets(vimeo, "train")
    with pytest.raises(InputError, match=r"0005/im2"):
        find_triplets(vimeo, "test")
    (vimeo / "tri_trainlist.txt").write_text("00001/0009\n")
    with pytest.raises(InputError, match=r"0009: no such folder"):
        find_triplets(vimeo, "train")
    (vimeo / "tri_trainlist.txt").unlink()
    with pytest.raises(InputError, match=r"tri_trainlist.txt"):
        find_triplets(vimeo, "train")


def test_ucf101(tmp_path: Path) -> None:
    """Folders 1, 11, 21, ... of which every third is held out: n // 10 % 3 == 0."""
    for number in range(1, 92, 10):
        make(tmp_path / str(number), ("frame_00.png", "frame_01_gt.png", "frame_02.png"), first=number)
    assert [p.name for p in find_triplets(tmp_path)] == [str(n) for n in range(1, 92, 10)]
    assert [int(p.name) // 10 % 3 for p in find_triplets(tmp_path, "test")] == [0] * 4
    assert all(int(p.name) // 10 % 3 for p in find_triplets(tmp_path, "train"))
    assert len(find_triplets(tmp_path, "test", explicit=False)) == 10
    assert levels(find_triplets(tmp_path))[1] == (11, 12, 13)


def test_middlebury_in_one_folder(tmp_path: Path) -> None:
    make(tmp_path / "Venus", ("frame10.png", "frame10i11.png", "frame11.png"))
    assert levels(find_triplets(tmp_path)) == [(0, 1, 2)]


@pytest.mark.parametrize("folders", [("other-data", "other-gt-interp"), ("input", "gt")])
def test_middlebury_split(tmp_path: Path, folders: tuple[str, str]) -> None:
    for scene in ("Venus", "Army"):  # Army's middle frame is not published
        make(tmp_path / folders[0] / scene, ("frame10.png", "frame11.png"))
    make(tmp_path / folders[1] / "Venus", ("frame10i11.png",), first=9)
    assert [p.name for p in find_triplets(tmp_path)] == ["Venus"]
    assert levels(find_triplets(tmp_path)) == [(0, 9, 1)]


def test_plain_folders_of_any_format(tmp_path: Path) -> None:
    make(tmp_path / "swan", ("im1.webp", "im2.png", "im3.bmp"))
    make(tmp_path / "boxing", ("im1.tif", "im2.ppm", "im3.gif"))
    (tmp_path / "notes").mkdir()
    assert [p.name for p in find_triplets(tmp_path)] == ["boxing", "swan"]
    assert len(levels(find_triplets(tmp_path))) == 2
    assert [p.name for p in find_triplets(tmp_path / "swan")] == ["swan"]


def test_clips(tmp_path: Path) -> None:
    make(tmp_path / "a", [f"{n}.png" for n in (8, 9, 10, 11)], first=8)
    make(tmp_path / "b/frames", [f"shot_{n:03}.jpg" for n in range(3)])
    make(tmp_path / "b/masks", [f"{n:03}.png" for n in range(3)])
    make(tmp_path / "c", ["1.png", "2.png"])
    assert [p.name for p in find_triplets(tmp_path)] == ["a/9", "a/10", "b/shot_001"]
    assert levels(find_triplets(tmp_path / "a")) == [(8, 9, 10), (9, 10, 11)]
    assert len(find_triplets(tmp_path / "b")) == 1
    assert [p.name for p in find_triplets(tmp_path, "train")] == ["b/shot_001"]
    with pytest.raises(InputError, match="cannot be split"):
        find_triplets(tmp_path / "a", "test")


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        find_triplets(tmp_path / "absent")
    with pytest.raises(InputError, match="no triplets found"):
        find_triplets(tmp_path)
    with pytest.raises(InputError, match="part is 'validation'"):
        find_triplets(tmp_path, "validation")
    make(tmp_path / "one", IM)
    make(tmp_path / "two", IM[:2])
    with pytest.raises(InputError, match=r"two/im3"):
        find_triplets(tmp_path)


def test_wrong_images(tmp_path: Path) -> None:
    make(tmp_path / "one", IM)
    make(tmp_path / "two", IM)
    make(tmp_path / "two", IM[1:2], size=(4, 6))
    (tmp_path / "one/im3.png").write_bytes(b"")
    data = TripletFolder(find_triplets(tmp_path))
    with pytest.raises(InputError, match=r"one/im3.png: cannot be read"):
        data[0]
    with pytest.raises(InputError, match=r"im1.png 5x4, im2.png 6x4, im3.png 5x4"):
        data[1]


def test_cache_keeps_bytes_within_its_room(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, IM)
    data = TripletFolder(find_triplets(tmp_path), cache_bytes=3 * 3 * 4 * 5)
    before = [data[0], data[1]]
    before[0].target.add_(1)  # what a caller does to its frames stays with it
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert float(data[0].target.max()) == pytest.approx(1 / 255)
    with pytest.raises(InputError, match=r"b/im1\.png"):
        data[1]
