"""Every training recipe on two processes: both hold the same weights after each step."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vfikit import checkpoints

from ..models.toys import toy
from ..repo import ROOT

# Runs the script, keeps the weights after every step, and which update of the average each was.
CODE = """
import os, runpy, sys, torch
from vfikit import training
from vfikit.training_run import TrainingRun
kept, updates, done, update = [], [], TrainingRun.done, training.update_average
def after(self, losses, **more):
    done(self, losses, **more)
    nets = [part for part in self.parts.values() if isinstance(part, torch.nn.Module)]
    kept.append([parameter.detach().clone() for net in nets for parameter in net.parameters()])
def counted(average, model, decay, number):
    update(average, model, decay, number)
    updates.append(number)
TrainingRun.done, training.update_average = after, counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
torch.save({"kept": kept, "updates": updates}, "rank" + os.environ["RANK"] + ".pt")
"""
LATE = ("--discriminator-start", "2")
RECIPES = {
    "adacof": ("--crop", "32", "--validation-limit", "1"),
    "e2fgvi": (
        *("--size", "40", "40", "--crop", "32", "32", "--local", "3", "--references", "1", "--pool", "2"),
        *("--ema", "0.5", "--validation-limit", "1"),
    ),
    "ldmvfi": ("--crop", "32", "--validation-limit", "1", *LATE),
    "lvdm": ("--init", "toy.safetensors", "--size", "24", "--validation-limit", "1", *LATE),
    "video_ldm": ("--stage", "autoencoder", "--size", "32", "32", "--frames", "2", "--discriminator-width", "8", *LATE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_processes_hold_the_same_weights(name: str, tmp_path: Path) -> None:
    checkpoints.save(toy("lvdm"), tmp_path / "toy.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", CODE, str(ROOT / f"recipes/train_{name}.py"), *RECIPES[name]]
    command += ["--batch-size", "1", "--steps", "3", "--device", "cpu", "--out", "run"]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for step, (ours, theirs) in enumerate(zip(one["kept"], other["kept"], strict=True)):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), f"after step {step}"
    assert not all(torch.equal(a, b) for a, b in zip(one["kept"][0], one["kept"][2], strict=True))
    assert one["updates"] == other["updates"] == [1, 2, 3]
