"""The steps of compressing a model that know its task: what recipes/compress.py and the proof in benchmarks share."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import compress, recipe, training
from .compress.sparsify import Sparsifier
from .tasks.task import Task

SAVE_EVERY = 500  # steps from one saved state to the next
ALL_TEACHER = 1e4  # the share of the teacher beside which the target does not count


@dataclass(frozen=True)
class Fitting:
    """How the steps train: ``task`` (of vfikit.tasks) on batches of ``data``, in bfloat16 where that is fast."""

    task: Task
    data: Any
    batch_size: int
    crop: int
    lr: float  # at its peak; Adamax
    teacher: float  # share of the distance to what the full net makes, at the start; 0 after two thirds
    seed: int = 0
    features: tuple[str, ...] = ()  # paths of modules whose outputs are drawn to the full net's, too


class Sparse(NamedTuple):
    """A network in which much is zero, and what share was (of weights, or of units) after each step."""

    model: nn.Module
    zero: list[float]


def cosine(step: int, steps: int) -> float:
    """The share of the peak learning rate: rises over the first twentieth, then falls to 0."""
    return min(1.0, (step + 1) / (0.05 * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def fine_tune(
    fitting: Fitting, model: nn.Module, teacher: nn.Module | None, steps: int, saved: Path | None = None
) -> Any:
    """Trains ``model`` for ``steps``, towards ``teacher`` too if there is one; returns the averaged weights.

    Its state is written to ``saved`` now and then; if that is there already, training goes on from it, bit by bit.
    """
    from tqdm import tqdm

    optimizer = torch.optim.Adamax(model.train().parameters(), lr=fitting.lr, foreach=True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(model.parameters()).device
    parts: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer}
    torch.manual_seed(fitting.seed + 1)  # whatever was before, as after a resume
    first = 0
    if saved is not None and saved.exists():
        first = training.restore(torch.load(saved, map_location="cpu", weights_only=True), parts)
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed + 1, steps, first)
    name = "train" if teacher is None else "fine-tune"
    progress = tqdm(batches, desc=name, initial=first, total=steps, smoothing=0.05)
    for step, batch in enumerate(progress, first):
        optimizer.param_groups[0]["lr"] = fitting.lr * cosine(step, steps)
        share = compress.fade(fitting.teacher, step, 2 * steps // 3)
        with recipe.lower_precision(device):
            loss = distilled(fitting, model, teacher, to(batch, device), share)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # over about the last fiftieth of the steps, shorter at the beginning
        training.average_in(average, model, min(1.0, max(50 / steps, 9 / (10 + step))))
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
        if saved is not None and (step + 1) % SAVE_EVERY == 0:
            training.save_state(training.state_of(step + 1, parts), saved)
    return average.requires_grad_(True)


def distilled(fitting: Fitting, model: nn.Module, teacher: nn.Module | None, batch: Any, share: float) -> Tensor:
    """The task's loss, and ``share`` of how far the features asked for are from the teacher's."""
    if teacher is None or share <= 0 or not fitting.features:
        return fitting.task.distilled(model, teacher, batch, share)
    paths = fitting.features
    with compress.features(model, paths) as ours, compress.features(teacher, paths) as theirs:
        loss = fitting.task.distilled(model, teacher, batch, share)
    return loss + share * compress.distill_features(ours, theirs)


def sparsify(
    fitting: Fitting, model: nn.Module, groups: Sequence[compress.Group], kind: Sparsifier, keep: float, steps: int
) -> Sparse:
    """A copy of ``model`` trained until about the share ``keep`` of its weights, or of its units, is not zero."""
    from tqdm import tqdm

    model = copy.deepcopy(model).train()
    device = next(model.parameters()).device
    optimizer, zero = compress.sparsifier(kind, model, groups, steps, keep), list[float]()
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed, steps)
    for batch in (progress := tqdm(batches, desc="sparsify", total=steps)):
        with recipe.lower_precision(device):
            loss = fitting.task.distilled(model, None, to(batch, device), 0.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        zero.append(round(compress.zero_share(model, optimizer), 4))
        progress.set_postfix(zero=f"{zero[-1]:.1%}", loss=f"{loss.item():.4f}")
    return Sparse(model.eval(), zero)


def sensitivities(
    fitting: Fitting, model: nn.Module, groups: Sequence[compress.Group]
) -> dict[compress.Group, list[float]]:
    """What cutting each group alone changes of what ``model`` makes of half a batch, as distilling would see it."""
    from tqdm import tqdm

    device, items = next(model.parameters()).device, max(1, fitting.batch_size // 2)
    batch = to(next(fitting.task.batches(fitting.data, items, fitting.crop, fitting.seed, 1)), device)

    @torch.no_grad()
    def total(cut: nn.Module) -> float:
        torch.manual_seed(fitting.seed)  # the same noise every time
        return float(fitting.task.distilled(cut, model, batch, ALL_TEACHER)) / ALL_TEACHER

    least = total(model)
    made = compress.sensitivity(model, groups, moments(fitting, model), lambda cut: max(0.0, total(cut) - least))
    return dict(tqdm(made, desc="measure", total=len(groups)))


def moments(fitting: Fitting, model: nn.Module) -> dict[str, compress.Moments]:
    """Of what ``model``'s layers read on eight batches."""
    from tqdm import tqdm

    device = next(model.parameters()).device
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed, 8)
    calls = (fitting.task.inputs(to(batch, device)) for batch in tqdm(batches, desc="look", total=8))
    steps = in_steps(fitting.task, model)
    return compress.input_moments(model, ((*call, *steps) for call in calls))


def slice_to(
    fitting: Fitting, model: nn.Module, groups: Sequence[compress.Group], counts: Mapping[compress.Group, int]
) -> nn.Module:
    """``model`` with ``counts`` units left of each group: those that are missed least, standing in for the others."""
    from tqdm import tqdm

    seen, keep = moments(fitting, model), dict[compress.Group, list[int]]()
    for group, count in tqdm(counts.items(), desc="choose"):
        keep |= compress.least_missed(model, groups, {group: count}, seen)
    return compress.slice_channels(compress.compensate(model, keep, seen), keep)


def in_steps(task: Task, model: Any, most: int | None = None) -> tuple[int, ...]:
    """What ``model`` is called with after ``task.inputs``: in how many steps it samples, where it does.

    They are as few as the task measures in, or ``most``: one where only channels matter, which go the same way in each.
    """
    if task.DEFAULTS.sampled is None:
        return ()
    return (min(most or task.DEFAULTS.sampled, model.config.sampling.steps),)


def to(batch: Any, device: torch.device | str) -> Any:
    """A batch (a named tuple of tensors) on ``device``."""
    return type(batch)(*(part.to(device) for part in batch))
