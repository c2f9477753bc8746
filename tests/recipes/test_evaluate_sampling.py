"""The measuring recipe on models that sample: by steps, with another sampler, as published."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vfikit import checkpoints
from vfikit.data import open_triplets
from vfikit.metrics import psnr
from vfikit.models import build

from ..models.toys import toy
from ..test_recipes_cli import recipe

SCRIPT = Path("recipes/evaluate.py")


def test_quality_and_time_by_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoints.save(build("ldmvfi", "small"), tmp_path / "ldmvfi.safetensors")
    given = ("--model", "ldmvfi", "--checkpoint", "ldmvfi.safetensors", "--size", "32", "--limit", "1")
    done = recipe(SCRIPT, *given, "--steps", "1", "2", "--metrics", "psnr", "--out", "out", folder=tmp_path)
    assert done.code == 0, done.stderr
    mean = json.loads((tmp_path / "out" / "report.json").read_text())["mean"]
    assert mean.keys() == {"ldmvfi", "1 step", "2 steps", "latent of zeros", "latent of noise"}
    assert all(row["seconds"] > 0 for row in mean.values())
    assert (tmp_path / "out" / "steps.png").stat().st_size > 1000


def test_steps_are_for_models_that_sample(tmp_path: Path) -> None:
    done = recipe(SCRIPT, "--steps", "2", "--out", "out", folder=tmp_path)
    assert done.code == 2
    assert "--steps: got (2,) for adacof, expected a model that samples" in done.stderr


def test_published_padding_and_another_sampler(tmp_path: Path) -> None:
    """Each makes other frames than the model by itself does, and the same as in Python."""
    net = toy("ldmvfi")
    checkpoints.save(net, tmp_path / "net.safetensors")
    given = ("--model", "ldmvfi", "--checkpoint", "net.safetensors", "--size", "200", "--limit", "1")
    found = []
    for index, more in enumerate(((), ("--published",), ("--sampler", "dpm++"))):
        done = recipe(SCRIPT, *given, *more, "--metrics", "psnr_raw", "--out", f"out{index}", folder=tmp_path)
        assert done.code == 0, done.stderr
        found.append(json.loads((tmp_path / f"out{index}/report.json").read_text())["mean"]["ldmvfi"]["psnr_raw"])
    frame0, target, frame1 = (frame[None] for frame in open_triplets("synthetic", "test", 200, 0)[0])
    with torch.no_grad():
        expected = [psnr(net(frame0, frame1), target), psnr(net(frame0, frame1, published_padding=True), target)]
        net.config = replace(net.config, sampling=replace(net.config.sampling, sampler="dpm++"))
        expected.append(psnr(net(frame0, frame1), target))
    assert found == pytest.approx([float(x) for x in expected])
    assert len(set(found)) == 3
    done = recipe(SCRIPT, "--sampler", "dpm++", folder=tmp_path)
    assert done.code == 2
    assert "--sampler: got dpm++ for adacof, expected a model that samples" in done.stderr


def test_more_steps_than_the_schedule_has(tmp_path: Path) -> None:
    given = ("--model", "ldmvfi", "--size", "32", "--limit", "1", "--steps", "2", "5000", "--out", "out")
    done = recipe(SCRIPT, *given, folder=tmp_path)
    assert done.code == 2
    assert "--steps: got 5000, expected at most 1000" in done.stderr
    assert not (tmp_path / "out").exists()
