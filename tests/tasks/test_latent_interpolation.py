"""The terms that LDMVFI trains on, and what a teacher adds."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from vfikit.data import Triplet
from vfikit.diffusion import Sampling
from vfikit.tasks import TASKS

from ..models.toys import pair, toy

TASK = TASKS["ldmvfi"]


def batch() -> Triplet:
    frame0, frame1 = pair(16, 24, batch=2)
    return Triplet(frame0, (frame0 + frame1) / 2, frame1)


def test_loss() -> None:
    torch.manual_seed(0)
    net = toy("ldmvfi").train()
    found = TASK.loss(net, batch())
    torch.testing.assert_close(found.total, found.frame + found.codebook + found.noise)
    found.total.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_times_cover_the_schedule() -> None:
    torch.manual_seed(0)
    frames = torch.zeros(5000, 3, 1, 1)
    t = TASK.times(toy("ldmvfi"), Triplet(frames, frames, frames))
    assert t.min() == 0
    assert t.max() == 999
    assert t.double().mean() == pytest.approx(499.5, abs=15)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it() -> None:
    net = toy("ldmvfi")
    teacher = copy.deepcopy(net)

    def value(teacher: nn.Module | None, share: float) -> float:
        torch.manual_seed(0)
        return float(TASK.distilled(net, teacher, batch(), share).detach())

    alone = value(teacher, 0.0)
    assert value(teacher, 1.0) == pytest.approx(alone + 1e-3, abs=1e-5)  # Charbonnier's epsilon
    with torch.no_grad():
        teacher.autoencoder.decoder.synthesis.heads["alpha1"][-1].bias.add_(3)
    assert value(teacher, 1.0) > alone + 0.002
    assert value(None, 1.0) > alone


class One:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Triplet:
        return Triplet(*(frame[0] for frame in batch()))

    def name(self, index: int) -> str:
        return "one"


def test_quality_takes_few_steps() -> None:
    for own, expected in ((50, 4), (2, 2)):
        net, calls = toy("ldmvfi"), []
        net.config = replace(net.config, sampling=Sampling(steps=own))
        net.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        TASK.quality(net, One())
        assert len(calls) == expected


def test_quality() -> None:
    found = TASK.quality(toy("ldmvfi"), One())
    assert 0 < found.psnr < 60
    assert TASK.quality(toy("ldmvfi"), One()).psnr == found.psnr
    assert TASK.reconstruction(toy("ldmvfi"), One()).psnr != found.psnr
