"""What training recipes share: going on with a saved run, the end of the time allowed, averaged weights."""

import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .files import InputError, atomic

Batch = TypeVar("Batch")


def settings(
    config: Any,
    defaults: Mapping[str, Any],
    paths: Sequence[str] = ("init",),
    mine: Sequence[str] = ("minutes", "device"),
) -> tuple[Any, dict[str, Any] | None]:
    """The settings that hold (a recipe's dataclass), and the state to go on from, None for a new run.

    Fields named in ``defaults`` are None unless given; a new run takes their defaults, a resumed one (``resume``) what
    it was begun with unless they are given. All others are the saved run's, but for ``mine``. ``paths`` are saved as
    text. Raises ``InputError`` for a run that is there already, or that cannot be read.
    """
    if config.out is not None and (config.out / "state.pt").exists():
        raise InputError(f"{config.out}: holds a run already; --resume {config.out} goes on with it")
    given = {name: value for name in defaults if (value := getattr(config, name)) is not None}
    if (folder := config.resume) is None:
        return replace(config, **{**defaults, **given}), None
    if not (folder / "state.pt").exists():
        raise InputError(f"{folder / 'state.pt'}: no such file, expected the folder of a run that was saved")
    try:
        saved = json.loads((folder / "config.json").read_text())
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{folder}: its state cannot be read ({str(error).splitlines()[0]})") from error
    own = {name: getattr(config, name) for name in mine}
    as_paths = {name: Path(saved[name]) for name in paths if saved.get(name)}
    kept = type(config)(**{**saved, **as_paths, "out": folder, "resume": folder})
    return replace(kept, **own, **given), state


def until(end: float, accelerator: Any, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches until the main process's clock (``time.monotonic``) says ``end``."""
    from accelerate.utils import broadcast

    for batch in batches:
        yield batch
        over = torch.tensor(time.monotonic() > end, device=accelerator.device)
        if bool(broadcast(over) if accelerator.num_processes > 1 else over):
            return


def learning_rate(lr: float, step: int, steps: int, warmup: int = 0, cosine: bool = False) -> float:
    """The rate of ``step``, a function of nothing else: resuming needs no scheduler's state.

    It rises over ``warmup`` steps and, where ``cosine``, falls to zero at the last of ``steps``.
    """
    rate = lr * min(1.0, (step + 1) / max(warmup, 1))
    return rate * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))) if cosine else rate


def judge_step(
    optimizer: torch.optim.Optimizer,
    accelerator: Any,
    losses: dict[str, torch.Tensor],
    loss: Callable[..., Any],
    *seen: Any,
) -> None:
    """A discriminator's own step: ``loss(*seen).total`` down, which also goes into ``losses``.

    It is no part of what accelerate wraps, so its gradients are averaged over processes here.
    """
    optimizer.zero_grad()  # what the generator's term left there
    judged = loss(*seen)
    judged.total.backward()
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = accelerator.reduce(parameter.grad, "mean")
    optimizer.step()
    losses["discriminator"] = judged.total


def stepped(
    lr: float,
    step: int,
    milestones: Sequence[int],
    gamma: float = 0.1,
    restarts: Sequence[tuple[int, float]] = (),
) -> float:
    """The rate of ``step``: times ``gamma`` at each milestone, twice where one stands twice.

    A restart (step, weight) begins anew with ``weight`` times the first rate, no decay carried over.
    """
    start, weight = max(((at, w) for at, w in restarts if at <= step), default=(0, 1.0))
    return lr * weight * gamma ** sum(start < milestone <= step for milestone in milestones)


def cosine_restarts(
    lr: float, step: int, periods: Sequence[int], weights: Sequence[float], least: float = 1e-7
) -> float:
    """The rate of ``step``: half a cosine from ``weights[i]`` times the first rate to ``least``, period after period.

    The last step of a period belongs to it: the next one begins right after its start.
    """
    end = 0
    for period, weight in zip(periods, weights, strict=True):
        begin, end = end, end + period
        if step <= end:
            return least + weight * 0.5 * (lr - least) * (1 + math.cos(math.pi * (step - begin) / period))
    raise ValueError(f"cosine_restarts: step is {step}, expected at most {end}, the sum of the periods")


def all_finite(accelerator: Any, *tensors: torch.Tensor) -> bool:
    """Whether all numbers are, on every process, so that all skip the same steps."""
    good = torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all().float()
    return bool(accelerator.reduce(good, "mean") == 1)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Moves ``average`` towards ``model``, quicker at the beginning: with min(decay, (1 + step) / (10 + step))."""
    average_in(average, model, 1 - min(decay, (1 + step) / (10 + step)))


@torch.no_grad()
def average_in(average: nn.Module, model: nn.Module, weight: float) -> None:
    """Moves the parameters of ``average`` by the share ``weight``; buffers (norms' statistics) become ``model``'s."""
    ours, theirs = ([p.detach() for p in m.parameters()] for m in (average, model))
    torch._foreach_lerp_(ours, theirs, weight)
    for own, other in zip(average.buffers(), model.buffers(), strict=True):
        own.copy_(other)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Writes ``state`` whole or not at all; a full disk is an ``OSError``."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
