"""The steps of compressing a model that know its task: what recipes/compress.py and the proof in benchmarks share."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import compress, recipe, training
from .compress.sparsify import Sparsifier
from .tasks.task import Task


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


def cosine(step: int, steps: int) -> float:
    """The share of the peak learning rate: rises over the first twentieth, then falls to 0."""
    return min(1.0, (step + 1) / (0.05 * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def fine_tune(fitting: Fitting, model: nn.Module, teacher: nn.Module | None, steps: int) -> Any:
    """Trains ``model`` for ``steps``, towards ``teacher`` too if there is one; returns the averaged weights."""
    from tqdm import tqdm

    optimizer = torch.optim.Adamax(model.train().parameters(), lr=fitting.lr, foreach=True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(model.parameters()).device
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed + 1, steps)
    progress = tqdm(batches, desc="train" if teacher is None else "fine-tune", total=steps, smoothing=0.05)
    for step, batch in enumerate(progress):
        optimizer.param_groups[0]["lr"] = fitting.lr * cosine(step, steps)
        share = compress.fade(fitting.teacher, step, 2 * steps // 3)
        with recipe.lower_precision(device):
            loss = fitting.task.distilled(model, teacher, to(batch, device), share)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # over about the last fiftieth of the steps, shorter at the beginning
        training.average_in(average, model, min(1.0, max(50 / steps, 9 / (10 + step))))
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return average.requires_grad_(True)


def sparsify(
    fitting: Fitting, model: nn.Module, groups: Sequence[compress.Group], kind: Sparsifier, keep: float, steps: int
) -> nn.Module:
    """A copy of ``model`` trained until about the share ``keep`` of its weights, or of its units, is not zero."""
    from tqdm import tqdm

    model = copy.deepcopy(model).train()
    device = next(model.parameters()).device
    optimizer = compress.sparsifier(kind, model, groups, steps, keep)
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed, steps)
    for batch in (progress := tqdm(batches, desc="sparsify", total=steps)):
        with recipe.lower_precision(device):
            loss = fitting.task.distilled(model, None, to(batch, device), 0.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.set_postfix(zero=f"{compress.zero_share(model, optimizer):.1%}", loss=f"{loss.item():.4f}")
    return model.eval()


def slice_to(
    fitting: Fitting, model: nn.Module, groups: Sequence[compress.Group], counts: Mapping[compress.Group, int]
) -> nn.Module:
    """``model`` with ``counts`` units left of each group: those that are missed least, standing in for the others."""
    device = next(model.parameters()).device
    batches = fitting.task.batches(fitting.data, fitting.batch_size, fitting.crop, fitting.seed, 8)
    moments = compress.input_moments(model, (fitting.task.inputs(to(batch, device)) for batch in batches))
    keep = compress.least_missed(model, groups, counts, moments)
    return compress.slice_channels(compress.compensate(model, keep, moments), keep)


def to(batch: Any, device: torch.device | str) -> Any:
    """A batch (a named tuple of tensors) on ``device``."""
    return type(batch)(*(part.to(device) for part in batch))
