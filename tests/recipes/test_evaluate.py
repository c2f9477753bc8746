"""The measuring recipe: its figures are those of the metrics, its files are whole, LPIPS is never made up."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vfikit import checkpoints
from vfikit.data import open_triplets
from vfikit.data.images import write_image
from vfikit.layers import I3D
from vfikit.models import build
from vfikit.tasks import interpolation, video_judges
from vfikit.tasks.judges import Judges

from ..metrics.test_flolpips import alex
from ..metrics.test_frechet import inception
from ..metrics.test_inception_score import weights as c3d
from ..metrics.test_lpips import weights
from ..models.toys import toy
from ..tasks.test_judges import pwcnet
from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/evaluate.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint, LPIPS weights, and two triplets; in the second nothing moves."""
    torch.manual_seed(0)
    checkpoints.save(build("adacof", "small"), tmp_path / "net.safetensors")
    torch.save(weights(), tmp_path / "lpips.pth")
    still = torch.rand(3, 40, 36)
    for number in (1, 2, 3):
        write_image(torch.rand(3, 40, 36), tmp_path / f"data/a/im{number}.png")
        write_image(still, tmp_path / f"data/b/im{number}.png")
    return tmp_path


def evaluate(folder: Path, *arguments: str) -> Done:
    return recipe(SCRIPT, "--checkpoint", "net.safetensors", "--device", "cpu", *arguments, folder=folder)


def report(folder: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads((folder / "out/report.json").read_text(), parse_constant=refuse)


def test_figures(folder: Path) -> None:
    arguments = ("--data", "data", "--lpips-weights", "lpips.pth", "--baselines", "average,repeat", "--out", "out")
    done = evaluate(folder, *arguments)
    assert done.code == 0, done.stderr
    found, model = report(folder), checkpoints.load(folder / "net.safetensors")
    names = ["psnr", "psnr_raw", "ssim", "ssim_gaussian", "ie", "nie", "lpips_unscaled", "lpips_scaled"]
    data = open_triplets(str(folder / "data"), "test")
    methods = {"adacof": model, **interpolation.BASELINES}
    assert found["images"] == 2
    assert found["not_computed"] == []
    assert found["per_image"].keys() == methods.keys()
    for method, interpolate in methods.items():
        expected = list(interpolation.measure(interpolate, data, names, Judges({"lpips": weights()})))
        for row, wanted in zip(found["per_image"][method], expected, strict=True):
            assert row["name"] == wanted["name"]
            for name in names:
                assert float(row[name]) == pytest.approx(wanted[name], rel=1e-5, abs=1e-12), (method, name)
    assert found["per_image"]["repeat"][1]["psnr"] == found["mean"]["repeat"]["psnr"] == "inf"
    assert found["mean"]["adacof"]["psnr"] == pytest.approx(
        sum(row["psnr"] for row in found["per_image"]["adacof"]) / 2
    )
    page = (folder / "out/report.md").read_text()
    assert f"| adacof | {found['mean']['adacof']['psnr']:.2f} |" in page
    assert "not computed" not in page
    assert page.count("\n| b |") == 1


def test_lpips_is_not_computed_without_weights(folder: Path) -> None:
    done = evaluate(folder, "--size", "32", "--limit", "2", "--out", "out", "--metrics", "psnr,lpips_scaled")
    assert done.code == 0, done.stderr
    assert "| adacof |" in done.stdout
    assert "not computed" in done.stdout
    assert done.stdout.splitlines()[-1] == "report.json and report.md are in out"
    found = report(folder)
    assert found["not_computed"] == ["lpips_scaled"]
    assert found["mean"]["adacof"].keys() == {"psnr"}
    assert found["images"] == 2
    assert [row["name"] for row in found["per_image"]["adacof"]] == ["scene 0", "scene 1"]


@pytest.mark.slow
def test_all_judges(folder: Path) -> None:
    for name, state in (("alex", alex()), ("pwcnet", pwcnet()), ("inception", inception())):
        torch.save(state, folder / f"{name}.pth")
    judges = (
        "--lpips-alex-weights",
        "alex.pth",
        "--pwcnet-weights",
        "pwcnet.pth",
        "--inception-weights",
        "inception.pth",
    )
    done = evaluate(folder, "--size", "64", "--limit", "2", "--out", "out", "--baselines", "repeat", *judges)
    assert done.code == 0, done.stderr
    found = report(folder)
    assert found["not_computed"] == ["lpips_unscaled", "lpips_scaled"]
    for row in found["mean"].values():
        assert all(row[name] > 0 for name in ("lpips_alex", "flolpips", "fid"))
    assert found["mean"]["adacof"]["fid"] != found["mean"]["repeat"]["fid"]
    assert "fid" not in found["per_image"]["adacof"][0]
    assert (
        "Not computed: lpips_unscaled, lpips_scaled; see `--lpips-weights`." in (folder / "out/report.md").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--inception-weights", "inception.pth", "--metrics", "fid"), "fid: got 1 image, expected at least two"),
        (("--inception-weights", "vgg.pth"), "Inception weights lack"),
        (("--pwcnet-weights", "package"), "package: no such file"),
        (("--metrics", "fvd"), "got 'fvd', expected some of psnr"),
        (("--baselines", "flow"), "got 'flow', expected some of average, repeat"),
        (("--data", "absent"), "absent: no such folder"),
        (("--data", "broken"), "broken/a/im3.png: cannot be read as an image"),
        (("--lpips-weights", "absent.pth"), "absent.pth: no such file"),
        (("--lpips-weights", "vgg.pth"), "LPIPS (squeeze) weights lack"),
        (("--out", "lpips.pth"), "is a file, expected a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_input(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, folder / "vgg.pth")
    if "inception.pth" in arguments:
        torch.save(inception(), folder / "inception.pth")
    for number in (1, 2, 3):
        write_image(torch.rand(3, 8, 8), folder / f"broken/a/im{number}.png")
    (folder / "broken/a/im3.png").write_text("no image")
    done = evaluate(folder, "--size", "16", "--limit", "1", *arguments)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()


def test_clips_with_holes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoints.save(build("e2fgvi-hq", "small"), tmp_path / "net.safetensors")
    given = ("--model", "e2fgvi-hq", "--size", "66", "--frames", "2", "--limit", "2", "--out", "out")
    done = evaluate(tmp_path, *given, "--baselines", "still,exact_flow")
    assert done.code == 0, done.stderr
    found = report(tmp_path)
    assert found["clips"] == 2
    assert found["not_computed"] == ["vfid"]
    assert found["mean"].keys() == {"e2fgvi-hq", "still", "exact_flow"}
    wanted = {"psnr", "ssim", "ssim_wide", "psnr_hole", "flicker", "e_warp"}
    assert all(row.keys() == wanted for row in found["mean"].values())
    assert found["multiply-adds of 5 + 3 frames 432x240 (G)"] > 1
    assert "Not computed: vfid; see `--i3d-weights`." in (tmp_path / "out/report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "2"), "--steps: got (2,) for e2fgvi-hq"),
        (("--baselines", "average"), "got 'average', expected some of still, flow, exact_flow"),
        (("--baselines", "exact_flow", "--resize", "32", "32"), "flows are known of synthetic clips alone"),
        (("--metrics", "fid"), "got 'fid', expected some of psnr"),
        (("--i3d-weights", "vgg.pth"), "I3D weights lack"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_input_about_clips(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    checkpoints.save(build("e2fgvi-hq", "small"), tmp_path / "net.safetensors")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    done = evaluate(tmp_path, "--model", "e2fgvi-hq", "--limit", "1", *arguments)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    checkpoints.save(toy("lvdm"), tmp_path / "net.safetensors")
    return tmp_path


VIDEOS = ("--model", "lvdm", "--size", "24", "--frames", "8", "--steps", "2")


def test_videos_against_clips(videos: Path) -> None:
    done = evaluate(videos, *VIDEOS, "--limit", "2", "--out", "out")
    assert done.code == 0, done.stderr
    found = report(videos)
    assert found["videos"] == 2
    assert found["mean"]["lvdm"].keys() == {"frechet_random"}
    assert found["mean"]["lvdm"]["frechet_random"] > 0
    assert found["not_computed"] == ["fvd", "kvd", "inception_score", "fid", "clipsim"]
    options = "`--i3d-weights`, `--c3d-weights`, `--inception-weights`, `--clip-weights`"
    assert (
        f"Not computed: fvd, kvd, inception_score, fid, clipsim; see {options}."
        in (videos / "out/report.md").read_text()
    )
    assert "not computed" in done.stdout


def test_a_part_of_the_real_clips(videos: Path) -> None:
    """The published split's training part, and the clips that are long enough for it."""
    for part, counts in (("sky_train", (8, 3, 9)), ("sky_test", (8,))):
        for k, count in enumerate(counts):
            for frame in range(count):
                write_image(torch.rand(3, 8, 8), videos / "sky" / part / "video" / f"clip{k}" / f"{frame:03d}.png")
    with pytest.warns(UserWarning, match="has 3 frames, expected at least 8"):
        done = evaluate(videos, *VIDEOS, "--data", "sky@train", "--out", "out")
    assert done.code == 0, done.stderr
    assert [row["name"] for row in report(videos)["per_video"]["lvdm"]] == ["clip0", "clip2"]


@pytest.mark.slow
def test_videos_by_every_judge(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_judges, "RUNS", 2)
    for name, state in (("i3d", I3D().state_dict()), ("c3d", c3d()), ("inception", inception())):
        torch.save(state, videos / f"{name}.pt")
    given = [text for name in ("i3d", "c3d", "inception") for text in (f"--{name}-weights", f"{name}.pt")]
    done = evaluate(videos, *VIDEOS, "--frames", "16", "--limit", "2", "--published", "--out", "out", *given)
    assert done.code == 0, done.stderr
    found = report(videos)
    assert found["not_computed"] == ["clipsim"]
    assert found["mean"]["lvdm"]["fid"] > 0
    assert found["mean"]["lvdm"].keys() >= {"fvd_std", "kvd_std"}
    assert "made videos in fvd and kvd: 2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "1"), "got 1 clip, expected at least two"),
        (("--metrics", "psnr"), "got 'psnr', expected some of frechet_random, fvd"),
        (("--clip-weights", "somewhere"), "--clip-weights: lvdm, preset small, makes no videos of texts"),
        (("--baselines", "average"), "--baselines: got several for lvdm"),
        (("--data", "absent"), "absent: no such folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_wrong_input_of_videos(videos: Path, arguments: tuple[str, ...], message: str) -> None:
    done = evaluate(videos, *VIDEOS, *arguments)
    assert done.code == 2, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "-3"), "--limit is -3, expected at least 1"),
        (("--limit", "0"), "--limit is 0, expected at least 1"),
        (("--size", "-5"), "--size is -5, expected at least 1"),
        (("--resize", "0", "32"), "--resize is 0 32, expected at least 1"),
        (("--frames", "4"), "are of clips, adacof makes single frames"),
        (("--out", "net.safetensors/here"), "net.safetensors is no folder that can be written to"),
    ],
)
def test_wrong_numbers_are_said_before_anything_is_measured(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = evaluate(folder, "--data", "data", *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
