"""Magnitude pruning as Torch-Pruning does it alone: what one would take instead of ``vfikit.compress``."""

import copy
from collections.abc import Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import Dependency, Group
from torch_pruning.dependency.node import Node

from vfikit import compress


def by_its_graph(
    model: nn.Module, coupling: compress.Coupling, inputs: Sequence[Any], share: float, round_to: int
) -> nn.Module:
    """``model`` without the ``share`` of every group's channels whose weights are smallest, found by its own tracer.

    Layers whose outputs may not be cut (what ``coupling`` keeps) have to be named to it. Raises whatever its tracer
    raises on a network that it cannot follow.
    """
    model = copy.deepcopy(model)
    ends = {tensor.rpartition(".")[0] for tensor, axis in coupling.kept if tensor.endswith(".weight") and axis == 0}
    layers = [model.get_submodule(path) for path in sorted(ends)]
    importance = tp.importance.MagnitudeImportance(p=2)
    tp.pruner.BasePruner(
        model, tuple(inputs), importance, pruning_ratio=share, round_to=round_to, ignored_layers=layers
    ).step()
    model(*inputs)
    return model


def on_our_groups(model: nn.Module, coupling: compress.Coupling, share: float, round_to: int) -> nn.Module:
    """The same importance where its tracer fails: on the groups of ``coupling``, cut by ``compress.slice_channels``."""
    keep = {}
    for group in coupling.groups:
        count = max(1, round((1 - share) * group.units * group.unit_size / round_to) * round_to // group.unit_size)
        order = tp.importance.MagnitudeImportance(p=2)(_as_theirs(model, group)).argsort(descending=True)
        keep[group] = sorted(order[: min(count, group.units)].tolist())
    return compress.slice_channels(model, keep)


def _as_theirs(model: nn.Module, group: compress.Group) -> Group:
    """A group of ours as their importance reads it: layers, what is cut of them, and the unit of each index."""
    theirs = Group()
    for member in group.members:
        layer = model.get_submodule(member.module)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not member.tensor.endswith(".weight"):
            continue  # biases and PReLU count nothing there
        kind = "conv" if isinstance(layer, nn.Conv2d) else "linear"
        cut = getattr(tp, f"prune_{kind}_{member.role}_channels")
        node = Node(layer, None, member.module)
        theirs.add_dep(Dependency(cut, cut, node, node), [i for own in member.indices for i in own])
        theirs[-1].root_idxs = [unit for unit, own in enumerate(member.indices) for _ in own]
    return theirs
