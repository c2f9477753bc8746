"""How training moves weights: rates over the steps, steps, averages, the state to go on from."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .files import InputError, atomic

Batch = TypeVar("Batch")
MOST_SKIPPED = 50  # steps in a row: then the weights themselves are lost


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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group of parameters ``rate``, times the group's own ``factor`` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def descend(
    accelerator: Any,
    optimizer: torch.optim.Optimizer,
    loss: torch.Tensor,
    parameters: Iterable[nn.Parameter],
    clip: float = 0.0,
) -> torch.Tensor:
    """One step down ``loss``; returns the gradient's norm before it is clipped to ``clip`` (0: it is not)."""
    accelerator.backward(loss)
    norm: torch.Tensor = accelerator.clip_grad_norm_(parameters, clip or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def prepared(
    accelerator: Any, module: nn.Module, optimizer: torch.optim.Optimizer, discriminator: nn.Module | None
) -> tuple[Any, Any]:
    """``module`` and its ``optimizer`` as accelerate wraps them, all but a ``discriminator`` that is inside.

    Its gradients are averaged in ``judge_step``; those of all others would wait for them in steps that it has no part
    in.
    """
    for parameter in (parameters := list(discriminator.parameters()) if discriminator is not None else []):
        parameter.requires_grad_(False)
    wrapped = accelerator.prepare(module, optimizer)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return wrapped


class FiniteDescent:
    """``descend`` that leaves the weights as they are where loss or gradient is not finite, and reports it."""

    def __init__(self) -> None:
        self.skipped = 0  # steps in a row

    def __call__(
        self,
        step: int,
        accelerator: Any,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        parameters: Iterable[nn.Parameter],
        clip: float = 0.0,
    ) -> torch.Tensor | None:
        """The gradient's norm, None where ``step`` was skipped; ``InputError`` after too many such steps in a row."""
        from tqdm import tqdm

        optimizer.zero_grad()
        accelerator.backward(loss)
        norm: torch.Tensor = accelerator.clip_grad_norm_(parameters, clip or math.inf)
        good = all_finite(accelerator, loss, norm)
        if good or accelerator.scaler is not None:
            optimizer.step()  # a scaler skips by itself, and lowers its scale
        optimizer.zero_grad()
        self.skipped = 0 if good else self.skipped + 1
        if good:
            return norm
        tqdm.write(f"step {step}: loss {loss.item():.4g}, gradient {norm.item():.4g}: skipped")
        if self.skipped == MOST_SKIPPED:
            raise InputError(f"step {step}: {MOST_SKIPPED} steps in a row were not finite; try a smaller --lr")
        return None


def judge_step(
    accelerator: Any, optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float = 0.0
) -> torch.Tensor:
    """A discriminator's own step down ``loss``, which it returns; its gradient is clipped to ``clip`` (0: it is not).

    It is no part of what accelerate wraps, so its gradients are averaged over processes here. Where the loss or the
    gradient is not finite, the step is skipped and reported.
    """
    from tqdm import tqdm

    optimizer.zero_grad()  # what the generator's term left there
    loss.backward()
    parameters = optimizer.param_groups[0]["params"]
    for parameter in parameters:
        parameter.grad = accelerator.reduce(parameter.grad, "mean")
    norm = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
    if all_finite(accelerator, loss, norm):
        optimizer.step()
    else:
        optimizer.zero_grad()
        tqdm.write(f"discriminator: loss {loss.item():.4g}, gradient {norm.item():.4g}: skipped")
    return loss


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
def update_average(average: nn.Module, model: nn.Module, decay: float, number: int) -> None:
    """Moves ``average`` towards ``model``, quicker at the beginning: with min(decay, (1 + number) / (10 + number)).

    ``number`` counts updates from 1, as ``vfikit.diffusion.EMA`` does.
    """
    average_in(average, model, 1 - min(decay, (1 + number) / (10 + number)))


@torch.no_grad()
def average_in(average: nn.Module, model: nn.Module, weight: float) -> None:
    """Moves the parameters of ``average`` by the share ``weight``; buffers (norms' statistics) become ``model``'s."""
    ours, theirs = ([p.detach() for p in m.parameters()] for m in (average, model))
    torch._foreach_lerp_(ours, theirs, weight)
    for own, other in zip(average.buffers(), model.buffers(), strict=True):
        own.copy_(other)


def state_of(step: int, parts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``restore`` goes on from: the number of steps done, of ``parts`` their state dicts, the generators'."""
    random = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda_rng"] = torch.cuda.get_rng_state()
    return {"step": step, **random, **{name: part.state_dict() for name, part in parts.items()}}


def restore(state: Mapping[str, Any], parts: Mapping[str, Any]) -> int:
    """Puts ``parts`` and the generators in a ``state``; returns the number of steps done."""
    torch.set_rng_state(state["rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def save_state(state: dict[str, Any], path: Path) -> None:
    """Writes ``state`` whole or not at all; a full disk is an ``OSError``."""
    try:
        with atomic(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        why = error.__context__ if isinstance(error, RuntimeError) else error  # torch ends the archive all the same
        if not isinstance(why, OSError):
            raise
        raise OSError(f"{path}: could not be written ({why})") from error
