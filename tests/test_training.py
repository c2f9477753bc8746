"""What training recipes share."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vfikit.diffusion import EMA
from vfikit.training import (
    average_in,
    cosine_restarts,
    judge_step,
    learning_rate,
    save_state,
    stepped,
    update_average,
)


def test_averages_follow_parameters_and_take_the_statistics_of_norms() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = copy.deepcopy(model)
    start = average[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    model(torch.rand(2, 3, 5, 5))  # moves the running statistics
    average_in(average, model, 0.25)
    assert torch.allclose(average[0].weight, start + 0.25)
    assert torch.equal(average[1].running_mean, model[1].running_mean)
    assert average[1].num_batches_tracked == 1
    update_average(average, model, 0.0, number=5)  # no averaging
    assert torch.equal(average[0].weight, model[0].weight)


def test_averages_begin_as_the_published_ones() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average, published = copy.deepcopy(model), EMA(model, 0.3)
    for number in range(1, 6):  # the first three are below the decay
        with torch.no_grad():
            model.weight.normal_()
        update_average(average, model, 0.3, number)
        published.update(model)
        torch.testing.assert_close(average.weight.detach(), published.average["weight"])


def test_learning_rate_rises_and_falls() -> None:
    assert learning_rate(0.5, 3, 10) == 0.5
    assert [learning_rate(1.0, step, 10, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(1.0, 5, 10, cosine=True) == pytest.approx(0.5)
    assert learning_rate(1.0, 10, 10, cosine=True) == pytest.approx(0.0)


def test_stepped_rates_decay_at_milestones_and_begin_anew_at_restarts() -> None:
    assert [stepped(1.0, step, (2, 4, 4), 0.5) for step in (0, 1, 2, 3, 4)] == [1, 1, 0.5, 0.5, 0.125]
    assert [stepped(1.0, step, (2, 5), 0.5, ((4, 0.25),)) for step in (3, 4, 5)] == [0.5, 0.25, 0.125]


def test_cosine_restarts_end_each_period_at_the_least_rate() -> None:
    rates = [cosine_restarts(1.0, step, (4, 2), (1, 0.5), least=0.1) for step in range(7)]
    assert rates[0] == 1
    assert rates[4] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.1 + 0.5 * 0.5 * 0.9)
    with pytest.raises(ValueError, match="step is 7, expected at most 6"):
        cosine_restarts(1.0, 7, (4, 2), (1, 0.5))


@pytest.mark.parametrize(("room", "numbers"), [(100_000, 100_000), (1000, 100)], ids=["while writing", "at the end"])
def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, room: int, numbers: int) -> None:
    """As torch meets it: closing the archive fails, too, with an error of its own."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match=r"state\.pt: could not be written \(\[Errno 27\] File too large\)"):
            save_state({"weights": torch.zeros(numbers)}, tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_another_failure_of_saving_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        save_state({}, tmp_path / "state.pt")


def test_a_discriminator_steps_down_its_clipped_gradient() -> None:
    judge = nn.Linear(3, 1, bias=False)
    before, optimizer = judge.weight.detach().clone(), torch.optim.SGD(judge.parameters(), lr=1.0)
    gradient = torch.tensor([[3.0, 0.0, 4.0]])
    for clip, scale in ((0.0, 1.0), (10.0, 1.0), (0.5, 0.1)):
        judge.load_state_dict({"weight": before})
        judge_step(Accelerator(cpu=True), optimizer, (judge.weight * gradient).sum(), clip)
        assert torch.allclose(judge.weight, before - scale * gradient, atol=1e-5)


@pytest.mark.parametrize("wrong", ["loss", "gradient"])
def test_a_discriminator_rests_where_loss_or_gradient_is_not_finite(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = nn.Linear(3, 1, bias=False)
    before, optimizer = judge.weight.detach().clone(), torch.optim.Adam(judge.parameters())
    loss = judge.weight.sum() * torch.nan if wrong == "loss" else (0 * judge.weight).sqrt().sum()
    assert bool(loss.isnan()) == (wrong == "loss")
    judge_step(Accelerator(cpu=True), optimizer, loss, clip=1.0)
    assert torch.equal(judge.weight, before)
    assert "discriminator: loss" in capsys.readouterr().out
    judge_step(Accelerator(cpu=True), optimizer, judge.weight.sum())
    assert judge.weight.isfinite().all()
    assert not torch.equal(judge.weight, before)
