"""The frame of a training recipe, with a tiny network: going on exactly, what is due when, noise of each process."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vfikit.checkpoints import load
from vfikit.files import InputError
from vfikit.models import build
from vfikit.training_run import TrainingConfig, TrainingRun, settings


def process(index: int = 0, processes: int = 1) -> Any:
    """What a run needs of accelerate's Accelerator."""
    return SimpleNamespace(
        process_index=index,
        num_processes=processes,
        is_main_process=index == 0,
        scaler=None,
        device=torch.device("cpu"),
    )


def parts(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    net = torch.nn.Linear(3, 2)
    return {"net": net, "optimizer": torch.optim.Adam(net.parameters(), lr=0.1)}


def train(run: TrainingRun, steps: Iterator[int]) -> list[float]:
    """Noise in, noise out; what is drawn in each step."""
    drawn = []
    with run.over(steps) as left:
        for _ in left:
            noise = torch.randn(4, 3)
            loss = run.parts["net"](noise).square().mean()
            loss.backward()
            run.parts["optimizer"].step()
            run.parts["optimizer"].zero_grad()
            run.done({"loss": loss})
            drawn.append(noise[0, 0].item())
    return drawn


def config(folder: Path, **values: Any) -> TrainingConfig:
    return settings(TrainingConfig(out=folder, log_every=2, **values), {"steps": 6})[0]


def test_a_saved_run_goes_on_exactly(tmp_path: Path) -> None:
    written = build("adacof-compressed", "small")
    whole = TrainingRun("x", config(tmp_path / "whole"), process(), parts(), None)
    drawn = train(whole, iter(range(6)))
    half = TrainingRun("x", config(tmp_path / "half"), process(), parts(), None)
    assert train(half, iter(range(3))) == drawn[:3]
    half.save(written, stage="half")
    assert load(tmp_path / "half" / "model.safetensors").config is not None
    torch.manual_seed(99)
    resumed, state = settings(TrainingConfig(resume=tmp_path / "half", minutes=5.0), {"steps": 6})
    assert (resumed.steps, resumed.minutes, resumed.out, resumed.log_every) == (6, 5.0, tmp_path / "half", 2)
    again = TrainingRun("x", resumed, process(), parts(seed=7), state)
    assert again.step == 3
    assert train(again, iter(range(3, 6))) == drawn[3:]
    for name, value in whole.parts["net"].state_dict().items():
        assert torch.equal(again.parts["net"].state_dict()[name], value)


def test_each_process_draws_its_own_noise_by_the_step(tmp_path: Path) -> None:
    main, other = (TrainingRun("x", config(tmp_path), process(i, 2), parts(), None) for i in range(2))
    assert (main.shard, other.shard) == ((0, 2), (1, 2))
    torch.manual_seed(0)
    main._draw_apart()
    first = torch.rand(1)
    other._draw_apart()
    second = torch.rand(1)
    assert first != second
    torch.manual_seed(5)  # whatever came before
    other._draw_apart()
    assert torch.equal(torch.rand(1), second)
    other.step += 1
    other._draw_apart()
    assert not torch.equal(torch.rand(1), second)


def test_what_is_due(tmp_path: Path) -> None:
    run = TrainingRun("x", config(tmp_path), process(), parts(), None)
    other = TrainingRun("x", config(tmp_path), process(1, 2), parts(), None)
    due = []
    for step in range(1, 7):
        run.step = other.step = step
        due.append(run.due(3))
        assert not other.due(3)  # only the main process writes
    assert due == [False, False, True, False, False, False]  # the last step has an end of its own


def test_no_step_left_leaves_nothing(tmp_path: Path) -> None:
    run = TrainingRun("x", config(tmp_path / "run"), process(), parts(), None)
    with pytest.raises(InputError, match="--steps is 6, expected more than the 0 done"), run.over(iter(())):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("steps", "left"), [(1, []), (2, ["config.json", "log.jsonl"])])
def test_a_run_that_fails_before_its_first_line_leaves_nothing(tmp_path: Path, steps: int, left: list[str]) -> None:
    """As over an image that cannot be read; what was there before the run, stays."""

    def batches() -> Iterator[int]:
        yield from range(steps)
        raise InputError("a.png: cannot be read as an image")

    (tmp_path / "old").mkdir()
    for name in ("run", "old"):
        run = TrainingRun("x", config(tmp_path / name), process(), parts(), None)
        with pytest.raises(InputError, match="cannot be read"):
            train(run, batches())
        assert run.folder.exists() == bool(left or name == "old")
    assert [path.name for path in sorted(tmp_path.glob("run/*"))] == left


def test_counts_are_at_least_one() -> None:
    for name in ("steps", "log_every", "save_every"):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is 0, expected at least 1"):
            settings(TrainingConfig(**{name: 0}), {"steps": 6})


def test_a_place_for_no_run_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, message in (("file", "is a file, expected a folder"), ("file/x", "no folder that can be written to")):
        with pytest.raises(InputError, match=message):
            settings(TrainingConfig(out=tmp_path / out), {"steps": 6})


def test_any_seed_draws_in_another_process(tmp_path: Path) -> None:
    TrainingRun("x", config(tmp_path, seed=2**32 - 1), process(1, 2), parts(), None)
