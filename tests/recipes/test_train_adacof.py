"""The training recipe, on tiny crops: what it writes, that it goes on exactly where it was killed, what it refuses."""

import errno
import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

import vfikit.losses
from vfikit import checkpoints
from vfikit.data.images import write_image
from vfikit.losses import DualFrameAdversary, dual_frame_discriminator
from vfikit.models import build

from ..losses.test_perceptual import weights
from ..repo import ROOT
from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/train_adacof.py")
TINY = ("--crop", "32", "--batch-size", "1", "--validation-limit", "1", "--device", "cpu", "--log-every", "2")


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> None:
    """accelerate keeps its settings for the life of a process; each run here stands for a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def train(folder: Path, *arguments: str) -> Done:
    return recipe(SCRIPT, *TINY, *arguments, folder=folder)


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    return bool(a == b)


def differences(a: Any, b: Any) -> dict[str, Any]:
    """How far the tensors of two nested dictionaries lie apart, by name."""
    if isinstance(a, torch.Tensor):
        return {"": (a.double() - b.double()).abs().max().item()} if not torch.equal(a, b) else {}
    if isinstance(a, dict):
        return {f"{key}.{name}": far for key in a for name, far in differences(a[key], b[key]).items()}
    return {} if a == b else {"": (a, b)}


def test_what_a_run_leaves(tmp_path: Path) -> None:
    done = train(tmp_path, "--out", "run", "--steps", "5", "--validate-every", "4", "--channels-last")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "weights, state and log are in run"
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "log.jsonl", "model.safetensors", "state.pt"]
    rows = lines(run)
    assert [row["step"] for row in rows] == [2, 4, 4, 5]
    assert {"loss", "Charb", "g_Spatial", "g_Occlusion", "norm", "lr", "seconds_a_step"} <= rows[0].keys()
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["Charb"] + 0.01 * rows[0]["g_Spatial"] + 0.005 * rows[0]["g_Occlusion"], rel=1e-5
    )
    assert {"psnr", "ssim"} <= rows[-1].keys()
    kept, model = state(run), checkpoints.load(run / "model.safetensors")
    assert kept["step"] == 5
    assert equal(dict(model.state_dict()), dict(kept["average"]))  # what is written is the average
    assert not equal(dict(kept["average"]), dict(kept["model"]))


def test_resumes_bit_exactly_after_a_kill(tmp_path: Path) -> None:
    """Each run in a process of its own, as users have it: threads that other tests left compute in other ways."""
    settings = ("--save-every", "3", "--schedule", "step", "--warmup", "9", "--clip", "0.001", "--seed", "4")
    script = [sys.executable, str(ROOT / SCRIPT)]
    with subprocess.Popen(
        [*script, *TINY, *settings, "--out", "killed", "--steps", "1000"], cwd=tmp_path, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed/state.pt").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert 3 <= state(tmp_path / "killed")["step"] < 12
    for arguments in (["--resume", "killed"], [*TINY, *settings, "--out", "whole"]):
        done = subprocess.run([*script, *arguments, "--steps", "12"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    killed, whole = state(tmp_path / "killed"), state(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    for part in whole:
        assert equal(killed[part], whole[part]), f"{part}: {differences(killed[part], whole[part])}"


def test_init_and_a_budget_of_time(tmp_path: Path) -> None:
    """With a rate of zero the weights that went in come out; the clock stops the run, resuming finishes it."""
    torch.manual_seed(3)
    model = build("adacof-compressed", "small")
    checkpoints.save(model, tmp_path / "init.safetensors")
    arguments = ("--model", "adacof-compressed", "--init", "init.safetensors", "--lr", "0", "--out", "run")
    assert train(tmp_path, *arguments, "--steps", "3", "--minutes", "0.00001").code == 0
    assert state(tmp_path / "run")["step"] == 1
    assert train(tmp_path, "--resume", "run").code == 0
    assert state(tmp_path / "run")["step"] == 3
    assert equal(dict(state(tmp_path / "run")["model"]), dict(model.state_dict()))


@pytest.mark.parametrize("adversary", ["FI_GAN", "GAN", "WGAN", "WGAN_GP", "T_WGAN_GP"])
def test_every_loss_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adversary: str) -> None:
    torch.save(weights(), tmp_path / "vgg.pth")
    small = dual_frame_discriminator((4, 4, 4, 4), grid=4, hidden=8)
    monkeypatch.setitem(vfikit.losses.ADVERSARIES, "FI_GAN", lambda: DualFrameAdversary(small))
    monkeypatch.setattr(vfikit.losses.adversarial, "WIDTHS", (4, 4, 4, 4))
    terms = f"0.01*Charb+1*VGG+0.005*{adversary}+0.1*L1+0.1*MSE"
    arguments = ("--terms", terms, "--vgg-weights", "vgg.pth", "--mixed-precision", "bf16", "--out", "run")
    done = train(tmp_path, *arguments, "--steps", "2")
    assert done.code == 0, done.stderr
    assert {"Charb", "VGG", adversary, "L1", "MSE", "discriminator"} <= lines(tmp_path / "run")[0].keys()
    assert "adversary" in state(tmp_path / "run")
    AcceleratorState._reset_state(reset_partial_state=True)
    done = train(tmp_path, "--resume", "run", "--steps", "3")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("model", ["cdfi", "adacof+"])
def test_other_models(tmp_path: Path, model: str) -> None:
    done = train(tmp_path, "--model", model, "--out", "run", "--steps", "2", "--ema", "0")
    assert done.code == 0, done.stderr
    kept = state(tmp_path / "run")
    assert equal(dict(kept["average"]), dict(kept["model"]))  # no averaging
    assert ("g_Occlusion" in lines(tmp_path / "run")[0]) == (model != "cdfi")


@pytest.mark.parametrize("model", ["cdfi", "adacof-compressed"])
def test_vgg_weights_bring_the_published_loss(tmp_path: Path, model: str) -> None:
    torch.save(weights(), tmp_path / "vgg.pth")
    done = train(tmp_path, "--model", model, "--vgg-weights", "vgg.pth", "--out", "run", "--steps", "2")
    assert done.code == 0, done.stderr
    row = lines(tmp_path / "run")[0]
    assert row["VGG"] > 0
    assert row["loss"] == pytest.approx(row["Charb"] + 0.01 * row["g_Spatial"] + 0.005 * row["VGG"], rel=1e-5)


def test_vgg_weights_are_not_read_in_vain(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "vgg.pth")
    for more in ((), ("--model", "cdfi", "--terms", "1*Charb")):
        done = train(tmp_path, "--vgg-weights", "vgg.pth", "--steps", "1", "--out", "run", *more)
        assert done.code == 2
        assert done.stderr.splitlines()[-1].startswith("error: --vgg-weights vgg.pth: no term needs it")
    assert not (tmp_path / "run").exists()


def test_learning_rates() -> None:
    module = runpy.run_path(str(ROOT / SCRIPT), run_name="train_adacof")
    config, rate = module["Config"], module["learning_rate"]
    step = config(lr=0.1, halve_every=20)
    assert [rate(step, s, 5) for s in (0, 99, 100, 199, 200)] == [0.1, 0.1, 0.05, 0.05, 0.025]
    cosine = config(lr=0.1, schedule="cosine", steps=100, warmup=10)
    assert [rate(cosine, s, 5) for s in (0, 50, 100)] == pytest.approx([0.01, 0.05, 0.0])
    assert rate(config(lr=0.1, schedule="constant"), 10**6, 1) == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "absent"), "absent/state.pt: no such file"),
        (("--resume", "broken"), "broken: its state cannot be read"),
        (("--out", "broken"), "holds a run already; --resume broken"),
        (("--resume", "other"), "other: is a run of another recipe"),
        (("--model", "ldmvfi"), "--model ldmvfi: expected adacof"),
        (("--terms", "1*Foo"), "got '1*Foo'"),
        (("--terms", "1*VGG"), "VGG needs VGG-16 weights"),
        (("--vgg-weights", "absent.pth"), "absent.pth: no such file"),
        (("--data", "pictures"), "pictures/a/im2.png: cannot be read as an image"),
        (("--data", "small", "--crop", "64"), "frames are 40x40, expected at least the crop, 64x64"),
        (("--crop", "6"), "--crop is 6, expected at least 7"),
        (("--init", "absent.safetensors"), "absent.safetensors"),
        (("--steps", "3", "--lr", "1e30", "--out", "hot"), "the loss is nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_input(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.pt").write_text("no state")
    (tmp_path / "broken/config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    torch.save({"step": 1}, tmp_path / "other/state.pt")
    (tmp_path / "other/config.json").write_text('{"stage": "short"}')
    for number in (1, 2, 3):
        write_image(torch.rand(3, 40, 40), tmp_path / f"small/a/im{number}.png")
        write_image(torch.rand(3, 40, 40), tmp_path / f"pictures/a/im{number}.png")
    (tmp_path / "pictures/a/im2.png").write_text("no image")
    done = train(tmp_path, *arguments)
    assert done.code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path, "--out", "run", "--steps", "1").code == 0
    before = (tmp_path / "run/state.pt").read_bytes()

    def full(_: object, file: Any) -> None:
        file.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    done = train(tmp_path, "--resume", "run", "--steps", "2")
    assert done.code == 2
    assert done.stderr.splitlines()[-1] == (
        "error: run/state.pt: could not be written ([Errno 28] No space left on device)"
    )
    assert (tmp_path / "run/state.pt").read_bytes() == before
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
