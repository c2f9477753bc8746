"""Training LDMVFI on tiny crops: both stages, what they write, that a run goes on exactly, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from vfikit import checkpoints

from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/train_ldmvfi.py")
TINY = ("--crop", "32", "--batch-size", "1", "--validation-limit", "1", "--device", "cpu", "--log-every", "1")


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


def train(folder: Path, *arguments: str) -> Done:
    AcceleratorState._reset_state(reset_partial_state=True)
    done = recipe(SCRIPT, *TINY, *arguments, folder=folder)
    assert done.code == 0, done.stderr
    return done


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_both_stages(tmp_path: Path) -> None:
    more = ("--discriminator-start", "1", "--warp", "0.5", "--clip", "1", "--schedule", "cosine")
    done = train(tmp_path, *more, "--steps", "2", "--out", "first")
    assert done.stdout.splitlines()[-1] == "weights, state and log are in first"
    names = {"loss", "reconstruction", "adversarial", "adversarial_weight", "codebook", "warp", "norm", "discriminator"}
    found = rows(tmp_path / "first")
    assert names <= found[0].keys()
    assert found[0]["discriminator"] == 0 < found[1]["discriminator"]
    assert "psnr" in found[-1]
    first = checkpoints.load(tmp_path / "first" / "model.safetensors")
    train(tmp_path, "--stage", "denoiser", "--init", "first/model.safetensors", "--steps", "2", "--out", "second")
    second = checkpoints.load(tmp_path / "second" / "model.safetensors")
    assert {"loss"} <= rows(tmp_path / "second")[0].keys()
    moved = {name for name, value in second.state_dict().items() if not torch.equal(value, first.state_dict()[name])}
    assert moved
    assert all(name.startswith("denoiser.") for name in moved)


@pytest.mark.slow
def test_resumes_bit_exactly(tmp_path: Path) -> None:
    more = ("--discriminator-start", "2", "--seed", "4")
    train(tmp_path, *more, "--steps", "4", "--out", "whole")
    train(tmp_path, *more, "--steps", "2", "--out", "half")
    train(tmp_path, "--resume", "half", "--steps", "4")
    whole, half = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "half"))
    for part in ("model", "average", "discriminator"):
        assert all(torch.equal(value, half[part][name]) for name, value in whole[part].items())


def test_the_denoiser_needs_an_autoencoder(tmp_path: Path) -> None:
    done = recipe(SCRIPT, *TINY, "--stage", "denoiser", "--out", "run", folder=tmp_path)
    assert done.code == 2
    assert "--stage denoiser: got no --init, expected a checkpoint with a trained autoencoder" in done.stderr
    assert not (tmp_path / "run").exists()
