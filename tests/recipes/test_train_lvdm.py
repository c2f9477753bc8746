"""The script as a user runs it: every stage of a toy network, resumed, its scale measured, wrong input."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vfikit import checkpoints
from vfikit.models import PRESETS, build

from ..models.toys import toy
from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/train_lvdm.py")
SHORT = ("--size", "24", "--batch-size", "1", "--validation-limit", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    checkpoints.save(toy("lvdm"), path)
    return path


def train(*arguments: object) -> Done:
    return recipe(SCRIPT, *map(str, arguments))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


STAGES = [pytest.param("autoencoder", marks=pytest.mark.slow), "short", "prediction", "interpolation"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_its_network_alone(stage: str, tmp_path: Path, weights: Path) -> None:
    more = ("--discriminator-start", 0) if stage == "autoencoder" else ("--ema", 0, "--checkpointing")
    more += ("--tint", 0.1, "--crop", 24) if stage == "autoencoder" else ()
    more += ("--from-short",) if stage == "interpolation" else ()
    arguments = ("--stage", stage, "--init", weights, "--steps", 2, "--log-every", 1, *more, *SHORT)
    done = train(*arguments, "--out", tmp_path / "run")
    assert done.code == 0, done.stderr
    assert f"weights, state and log are in {tmp_path / 'run'}" in done.stdout
    before, after = toy("lvdm").state_dict(), checkpoints.load(tmp_path / "run" / "model.safetensors").state_dict()
    changed = {key.partition(".")[0] for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    assert changed == {stage}
    last = rows(tmp_path / "run")[-1]
    if stage == "autoencoder":
        assert checkpoints.load(tmp_path / "run" / "model.safetensors").config.scale != 1
        assert "discriminator" in rows(tmp_path / "run")[0]
        assert last["psnr"] > 0
    else:
        assert last["loss_at_500"] > 0
        assert ("frechet_random" in last) == (stage == "short")


@pytest.mark.parametrize("published", [False, True], ids=["ours", "published"])
def test_a_stage_that_the_file_has_not_is_added(published: bool, tmp_path: Path) -> None:
    """Of an autoencoder alone, be it a published checkpoint, the next network is made by --preset."""
    torch.manual_seed(0)
    model = build(replace(PRESETS["lvdm"]["small"], short=None, prediction=None, interpolation=None, scale=0.5))
    path = tmp_path / ("auto.ckpt" if published else "auto.safetensors")
    if published:
        prefix = len("first_stage_model.")
        state = model.state_dict()
        torch.save({"state_dict": {theirs[prefix:]: state[ours] for theirs, ours in model.published_keys()}}, path)
    else:
        checkpoints.save(model, path)
    arguments = ("--stage", "prediction", "--preset", "small", "--init", path, "--steps", 1, *SHORT)
    done = train(*arguments, "--size", 16, "--out", tmp_path / "run")
    assert done.code == 0, done.stderr
    trained = checkpoints.load(tmp_path / "run" / "model.safetensors")
    assert trained.stages == ["prediction"]
    assert trained.config.scale == (1.0 if published else 0.5)  # a published file does not say: the preset's
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name
    run = tmp_path / "run" / "model.safetensors"
    done = train("--stage", "short", "--preset", "published-prediction", "--init", run, "--out", tmp_path / "no")
    assert done.code == 2
    assert "--preset published-prediction: has no U-Net 'short', nor has" in done.stderr


def test_resumed_as_if_never_stopped(tmp_path: Path, weights: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    arguments = ("--stage", "prediction", "--init", weights, "--log-every", 1, *SHORT)
    assert train(*arguments, "--steps", 2, "--out", whole).code == 0
    assert train(*arguments, "--steps", 1, "--out", halves).code == 0
    done = train("--resume", halves, "--steps", 2, "--device", "cpu")
    assert done.code == 0, done.stderr
    one, other = (torch.load(folder / "state.pt", weights_only=True)["model"] for folder in (whole, halves))
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor)


def test_scale_is_measured(tmp_path: Path, weights: Path) -> None:
    """Latents of what comes out are standard."""
    done = train("--stage", "scale", "--init", weights, "--size", 24, "--device", "cpu", "--out", tmp_path)
    assert done.code == 0, done.stderr
    model = checkpoints.load(tmp_path / "model.safetensors")
    assert f"latents: scale {model.config.scale:.6f}, shift {model.config.shift:.6f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "short"), "--stage short: got no --init, expected a checkpoint with a trained autoencoder"),
        (("--checkpointing",), "--checkpointing: is of U-Nets, expected none for --stage autoencoder"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--init", "none.safetensors"), "none.safetensors: no such file"),
        (("--size", "30"), "--size, --crop: expected multiples of 4, the pixels that"),
    ],
)
def test_wrong_input(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = train(*arguments, "--out", tmp_path / "run", "--device", "cpu", "--steps", 1)
    assert done.code == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
