"""The sets that LDMVFI is trained on and measured by, made up here in their published layouts."""

from pathlib import Path

import pytest
import torch

from vfikit.data import open_triplets
from vfikit.data.images import write_image
from vfikit.data.sources import Joined
from vfikit.data.triplets import TripletFolder
from vfikit.files import InputError
from vfikit.tasks.interpolation import means

from .test_triplets import levels, make


def opened(spec: str, split: str = "test") -> TripletFolder:
    data = open_triplets(spec, split)
    assert isinstance(data, TripletFolder)
    return data


def names(data: TripletFolder) -> list[str]:
    return [data.name(index) for index in range(len(data))]


@pytest.fixture
def septuplets(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        make(tmp_path / f"sequences/00001/000{number}", [f"im{k}.png" for k in range(1, 8)], first=10 * number)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00001/0003\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002\n\n")
    return tmp_path


def test_vimeo_septuplets(septuplets: Path) -> None:
    """Images 3 and 5 make the fourth."""
    train = opened(str(septuplets), "train")
    assert names(train) == ["00001/0001", "00001/0003"]
    assert levels(train.paths) == [(12, 13, 14), (32, 33, 34)]
    assert names(opened(str(septuplets))) == ["00001/0002"]
    (septuplets / "sep_testlist.txt").unlink()
    with pytest.raises(InputError, match=r"sep_testlist.txt: no such file, expected Vimeo-90K's list of test"):
        open_triplets(str(septuplets), "test")
    (septuplets / "sequences/00001/0003/im5.png").unlink()
    with pytest.raises(InputError, match=r"0003/im5"):
        open_triplets(str(septuplets), "train")


def sheet(path: Path, first: int, tiles: int = 5) -> None:
    """Flat tiles side by side, the k-th of level first + k."""
    flat = [torch.full((3, 4, 6), (first + k) / 255) for k in range(tiles)]
    write_image(torch.cat(flat, dim=2), path)


@pytest.mark.parametrize("place", ["quintuplets/{}.png", "quintuplets/{}/0.png"])
def test_bvi_dvc_quintuplets(tmp_path: Path, place: str) -> None:
    """Tiles are frames 1, 3, 5, 7, 4: the second and third make the fifth."""
    for number in (2, 10, 1):
        sheet(tmp_path / place.format(number), first=10 * number)
    for folder in (tmp_path, tmp_path / "quintuplets"):
        data = opened(str(folder), "train")
        assert [name.split("/")[0] for name in names(data)] == ["1", "2", "10"]
        assert levels(data.paths) == [(11, 14, 12), (21, 24, 22), (101, 104, 102)]
        assert data[0].target.shape == (3, 4, 6)
    assert len(opened(f"{tmp_path}@test")) == 1


def test_wrong_quintuplets(tmp_path: Path) -> None:
    (tmp_path / "quintuplets").mkdir()
    with pytest.raises(InputError, match="no images found, expected quintuplets"):
        open_triplets(str(tmp_path))
    write_image(torch.zeros(3, 4, 31), tmp_path / "quintuplets/0.png")
    with pytest.raises(InputError, match=r"0.png: is 31 pixels wide, expected five tiles of one width"):
        opened(str(tmp_path))[0]


def test_ucf101_of_qvi(tmp_path: Path) -> None:
    for number in (1, 2):
        make(tmp_path / str(number), [f"{stem}.png" for stem in ("frame0", "frame1", "framet", "frame2", "frame3")])
    assert levels(opened(str(tmp_path)).paths) == [(1, 2, 3)] * 2
    (tmp_path / "2/framet.png").unlink()
    with pytest.raises(InputError, match=r"2/framet"):
        open_triplets(str(tmp_path))


@pytest.mark.parametrize("inside", ["", "JPEGImages/480p"])
def test_davis(tmp_path: Path, inside: str) -> None:
    """Of n frames: t + 2, t + 3, t + 4 for t = 0, 2, ... while t < n - 6."""
    for name, count in (("bear", 9), ("swan", 8), ("short", 6)):
        make(tmp_path / inside / name, [f"{k:05}.png" for k in range(count)])
    data = opened(f"{tmp_path}@davis")
    assert names(data) == ["bear#00003", "bear#00005", "swan#00003"]
    assert levels(data.paths) == [(2, 3, 4), (4, 5, 6), (2, 3, 4)]
    if inside:
        assert names(opened(str(tmp_path))) == names(data)


def test_sequences_count_once_in_the_mean() -> None:
    rows = [("bear#3", 1.0), ("bear#5", 3.0), ("swan#3", 8.0), ("still", 5.0), ("still", 5.0)]
    assert means([{"name": name, "psnr": value} for name, value in rows]) == {"psnr": (2 + 8 + 5 + 5) / 4}


def test_vfitex_halves_4k(tmp_path: Path) -> None:
    make(tmp_path / "small", [f"{k:03}.png" for k in range(1, 10)], first=1)
    frame = torch.zeros(3, 8, 3840)
    frame[:, 2:6, 960:2880] = 1
    for k in range(1, 8):
        write_image(frame, tmp_path / f"large/{k:03}.png")
    data = opened(f"{tmp_path}@vfitex")
    assert names(data) == ["large#004", "small#004", "small#006"]
    assert data[0].target.shape == (3, 4, 1920)
    assert data[0].target.min() == 1
    assert [round(float(f.mean()) * 255) for f in data[1]] == [3, 4, 5]


def test_bvi_hfr(tmp_path: Path) -> None:
    make(tmp_path / "cyclist", [f"{k}.png" for k in range(6)])
    data = opened(f"{tmp_path}@bvihfr")
    assert names(data) == ["cyclist#1", "cyclist#3"]
    assert levels(data.paths) == [(0, 1, 2), (2, 3, 4)]


@pytest.fixture
def snu_film(tmp_path: Path) -> Path:
    make(tmp_path / "test/GOPRO_test/A", [f"{k:06}.png" for k in range(1, 10)], first=1)
    make(tmp_path / "test/YouTube_test/B", [f"{k:05}.png" for k in range(3)])
    a, b = "data/SNU-FILM/test/GOPRO_test/A", "data/SNU-FILM/test/YouTube_test/B"
    for level, gap in (("easy", 1), ("medium", 2), ("hard", 3), ("extreme", 4)):
        lines = [" ".join(f"{a}/{k:06}.png" for k in (5 - gap, 5, 5 + gap))]
        if level == "easy":
            lines.append(" ".join(f"{b}/{k:05}.png" for k in range(3)))
        (tmp_path / f"test-{level}.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


def test_snu_film(snu_film: Path) -> None:
    assert levels(opened(f"{snu_film}@easy").paths) == [(4, 5, 6), (0, 1, 2)]
    assert levels(opened(f"{snu_film}@extreme").paths) == [(1, 5, 9)]
    assert names(opened(str(snu_film))) == [
        *("easy/A/000005", "easy/B/00001", "medium/A/000005", "hard/A/000005", "extreme/A/000005")
    ]
    both = open_triplets(f"{snu_film}@hard,{snu_film}@medium", "test")
    assert isinstance(both, Joined)
    assert [both.name(k) for k in range(len(both))] == ["hard/A/000005", "medium/A/000005"]


def test_wrong_snu_film(snu_film: Path) -> None:
    (snu_film / "test-medium.txt").write_text("test/GOPRO_test/A/000001.png test/GOPRO_test/A/000002.png\n")
    with pytest.raises(InputError, match="line 1 names 2 files, expected frame0 target frame1"):
        open_triplets(f"{snu_film}@medium")
    (snu_film / "test/YouTube_test/B/00002.png").unlink()
    with pytest.raises(InputError, match=r"B/00002.png: no such file, but line 2 of test-easy.txt names it"):
        open_triplets(f"{snu_film}@easy")
    (snu_film / "test-hard.txt").unlink()
    with pytest.raises(InputError, match=r"test-hard.txt: no such file, expected SNU-FILM's list of hard"):
        open_triplets(f"{snu_film}@hard")
    (snu_film / "test-extreme.txt").write_text("\n")
    with pytest.raises(InputError, match=r"test-extreme.txt: is empty"):
        open_triplets(f"{snu_film}@extreme")


def test_wrong_parts(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for part in ("davis", "vfitex", "bvihfr"):
        with pytest.raises(InputError, match="notes: no numbered frames, expected a sequence in every folder"):
            open_triplets(f"{tmp_path}@{part}")
    make(tmp_path / "notes", ["1.png", "2.png"])
    with pytest.raises(InputError, match="no sequences long enough"):
        open_triplets(f"{tmp_path}@davis")
    with pytest.raises(InputError, match="part is 'xiph', expected one of train, test, all, davis"):
        open_triplets(f"{tmp_path}@xiph")
    with pytest.raises(InputError, match="synthetic@davis: expected one of train, test, all"):
        open_triplets("synthetic@davis")
