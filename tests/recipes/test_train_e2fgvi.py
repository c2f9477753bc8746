"""Training E2FGVI on tiny crops: what it writes, that a run goes on exactly, the guards, what is refused."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from vfikit import checkpoints
from vfikit.losses import InpaintingLoss
from vfikit.models import build

from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/train_e2fgvi.py")
TINY = ("--batch-size", "1", "--size", "40", "40", "--crop", "32", "32", "--local", "3", "--references", "1")
MORE = ("--validation-limit", "1", "--device", "cpu", "--log-every", "1")


def train(folder: Path, *arguments: str, code: int = 0) -> Done:
    AcceleratorState._reset_state(reset_partial_state=True)
    done = recipe(SCRIPT, *TINY, *MORE, *arguments, folder=folder)
    assert done.code == code, done.stderr
    return done


@pytest.mark.slow
def test_writes_a_model_and_resumes_bit_exactly(tmp_path: Path) -> None:
    more = ("--seed", "2", "--ema", "0.5", "--pool", "3")
    done = train(tmp_path, "--steps", "4", *more, "--out", "whole")
    assert done.stdout.splitlines()[-1] == "weights, state and log are in whole"
    train(tmp_path, "--steps", "2", *more, "--out", "half")
    train(tmp_path, "--resume", "half", "--steps", "4")
    whole, half = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "half"))
    for part in ("model", "average", "discriminator"):
        assert all(torch.equal(value, half[part][name]) for name, value in whole[part].items())
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "hole", "valid", "flow", "adversarial", "norm", "discriminator"} <= rows[0].keys()
    assert "psnr" in rows[-1]
    assert checkpoints.load(tmp_path / "whole" / "model.safetensors").config is not None


@pytest.mark.slow
def test_one_step_of_large_crops_and_many_frames(tmp_path: Path) -> None:
    """Sizes and lengths that the published code does not take."""
    large = ("--size", "256", "256", "--crop", "256", "256", "--local", "7", "--references", "5")
    done = train(tmp_path, *large, "--steps", "1", "--out", "run")
    assert "skipped" not in done.stdout + done.stderr
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert 0 < row["norm"] < float("inf")  # of all gradients
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert len(state["optimizer"]["state"]) == len(list(build("e2fgvi-hq", "small").parameters()))
    for weights in (state["model"], state["discriminator"]):
        assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


@pytest.mark.slow
def test_stages_one_after_the_other(tmp_path: Path) -> None:
    """Each starts with the weights before, and leaves what it does not train."""
    common = ("--warmup", "1", "--schedule", "cosine", "--ema", "0.5", "--adversarial", "0", "--pool", "2")
    before: dict[str, torch.Tensor] = {}
    for stage, init in (("frames", None), ("flow", "frames"), ("clips", "flow")):
        start = () if init is None else ("--init", f"{init}/model.safetensors")
        train(tmp_path, "--stage", stage, "--steps", "2", "--out", stage, *start, *common)
        state = checkpoints.load(tmp_path / stage / "model.safetensors").state_dict()
        changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, state[name])}
        if before:
            assert changed == ({"flow"} if stage == "flow" else {name.split(".")[0] for name in state})
        before = state
    row = json.loads((tmp_path / "flow" / "log.jsonl").read_text().splitlines()[0])
    assert row["flow"] == row["loss"] > 0


@pytest.mark.slow
def test_clips_too_short_to_validate_on_are_trained_on(tmp_path: Path) -> None:
    frames = numpy.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), numpy.uint8)
    for clip in ("a", "b"):
        (tmp_path / "clips" / clip).mkdir(parents=True)
        for number, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(tmp_path / "clips" / clip / f"im{number}.png")
    arguments = ("--data", "clips", "--references", "0", "--adversarial", "0", "--steps", "1", "--out", "run")
    done = train(tmp_path, *arguments, code=2)
    assert "has 3 frames, expected at least 5" in done.stderr
    train(tmp_path, *arguments, "--validation-data", "synthetic")
    assert "psnr" in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [0], InpaintingLoss.forward

    def sometimes(self, *arguments):  # type: ignore[no-untyped-def]
        calls[0] += 1
        found = plain(self, *arguments)
        return found._replace(total=found.total * torch.nan) if calls[0] == 2 else found

    monkeypatch.setattr(InpaintingLoss, "forward", sometimes)
    done = train(tmp_path, "--steps", "3", "--adversarial", "0", "--squares", "1", "--beta1", "0.9", "--out", "run")
    assert "step 2: loss nan" in done.stdout + done.stderr
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


@pytest.mark.slow
def test_the_discriminator_is_clipped_and_skips_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [0], InpaintingLoss.discriminator_loss

    def sometimes(self, *arguments):  # type: ignore[no-untyped-def]
        calls[0] += 1
        found = plain(self, *arguments)
        return found._replace(total=found.total * torch.nan) if calls[0] == 2 else found

    monkeypatch.setattr(InpaintingLoss, "discriminator_loss", sometimes)
    done = train(tmp_path, "--steps", "3", "--clip", "1e-4", "--out", "run")
    assert "discriminator: loss nan" in done.stdout + done.stderr
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["discriminator"].values())
    gradients = [kept["exp_avg"] for kept in state["judge"]["state"].values()]  # it keeps nothing of earlier ones
    assert 0 < torch.stack([gradient.norm() for gradient in gradients]).norm() < 1.001e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--objects", "nowhere"), "nowhere: no such folder"),
        (("--spynet-weights", "nowhere.pth"), "nowhere.pth"),
        (("--steps", "0"), "--steps is 0, expected at least 1"),
    ],
)
def test_wrong_input_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = train(tmp_path, *arguments, "--out", "run", code=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
