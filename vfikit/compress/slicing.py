"""Removing channels and keeping the rest of the weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .groups import Group
from .resize import LAYERS, SIZES, set_sizes, widths

Model = TypeVar("Model", bound=nn.Module)
Importance = dict[Group, Tensor]  # a score a unit; the lowest go first


def magnitude(model: nn.Module, groups: Sequence[Group], power: int = 2) -> Importance:
    """L1 (``power`` 1) or L2 norms: of what writes a unit's channels times of what reads them.

    The product is the same whether a channel is large and read with small weights or the other way round.
    """
    tensors = dict(model.named_parameters())
    scores = {}
    for group in groups:
        sums = {
            role: sum(
                _by_unit(tensors[m.tensor].detach().abs() ** power, m.axis, m.indices)
                for m in group.members
                if m.role == role and m.tensor in tensors
            )
            for role in ("out", "in")
        }
        product = torch.ones(group.units, dtype=torch.float64)
        for part in sums.values():
            product = product * part if isinstance(part, Tensor) else product
        scores[group] = product ** (1 / power)
    return scores


def taylor(model: nn.Module, groups: Sequence[Group], elements: bool = False) -> Importance:
    """|sum x grad| of each unit's own weights: to first order, how much the loss changes when the unit goes.

    Reads the gradients that are there now; accumulate them over a few batches first. ``elements`` sums |x grad|, the
    upper bound, in which nothing cancels. A weight without gradient counts nothing.
    """
    tensors = dict(model.named_parameters())
    scores = {}
    for group in groups:
        total = torch.zeros(group.units, dtype=torch.float64)
        for member in group.members:
            tensor = tensors.get(member.tensor)
            if tensor is None or tensor.grad is None or member.role == "in":
                continue
            product = tensor.detach() * tensor.grad
            total += _by_unit(product.abs() if elements else product, member.axis, member.indices)
        scores[group] = total.abs()
    return scores


def _by_unit(tensor: Tensor, axis: int, indices: Sequence[Sequence[int]]) -> Tensor:
    rows = tensor.double().movedim(axis, 0).flatten(1).sum(1) if tensor.ndim > 1 else tensor.double()
    return rows.cpu()[torch.tensor(indices)].sum(1)


def choose(importance: Importance, counts: Mapping[Group, int]) -> dict[Group, list[int]]:
    """The ``counts[group]`` units of each group that score highest, in their order."""
    return {group: importance[group].argsort(descending=True)[:n].sort().values.tolist() for group, n in counts.items()}


def slice_channels(model: Model, keep: Mapping[Group, Sequence[int]]) -> Model:
    """A copy of ``model`` that has only the units ``keep[group]`` of each group; all other weights as they were.

    Nothing changes where a removed channel is dead: its writers' rows and biases zero (and no norm after them), or
    all that reads it zero; under GroupNorm, whole groups of such. Elsewhere the output changes by what was removed. An
    empty ``keep[group]`` or a unit that is not there raises ``ValueError``. Works on ``meta`` too.
    """
    copies: dict[Group, list[int]] = {}
    for group, units in keep.items():
        if not units or not set(units) <= set(range(group.units)):
            raise ValueError(f"slice_channels: got units {list(units)} to keep of {group}, expected some of its own")
        copies[group] = [int(unit in set(units)) for unit in range(group.units)]
    return with_copies(model, copies)


def with_copies(model: Model, copies: Mapping[Group, Sequence[int]]) -> Model:
    """A copy of ``model`` in which unit u of a group is there ``copies[group][u]`` times, side by side."""
    times: dict[str, dict[int, dict[int, int]]] = {}
    for group, numbers in copies.items():
        for member in (*group.members, *group.sizes):
            repeats = times.setdefault(member.tensor, {}).setdefault(member.axis, {})
            repeats.update({index: n for unit, n in zip(member.indices, numbers) if n != 1 for index in unit})
    model = copy.deepcopy(model)
    before = widths(model)
    for path, module in model.named_modules():
        prefix, changed = f"{path}." if path else "", False
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            for axis, repeats in times.get(prefix + name, {}).items():
                places = [i for i in range(tensor.shape[axis]) for _ in range(repeats.get(i, 1))]
                chosen = tensor.detach().index_select(axis, torch.tensor(places, device=tensor.device))
                tensor = nn.Parameter(chosen, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else chosen
                changed = True
            setattr(module, name, tensor)
        if changed:
            _set_sizes(module, before[path])
        for name in SIZES:
            if changes := times.get(prefix + name, {}).get(0):
                _set_integer(module, name, sum(n - 1 for n in changes.values()))
    return model


def _set_integer(module: nn.Module, name: str, more: int) -> None:
    """An integer that a module keeps; of a norm without tensors, its width."""
    width = widths(module).get("")
    if isinstance(module, LAYERS) and width is not None:
        new = width["out"] + more
        set_sizes(module, {"in": new, "out": new, "groups": _whole_groups(width, new)})
    else:
        setattr(module, name, getattr(module, name) + more)


def _set_sizes(module: nn.Module, before: Mapping[str, int]) -> None:
    """The stored integers, from the shapes of the tensors."""
    if not isinstance(module, LAYERS):
        return
    tensors = (module._parameters.get("weight"), module._buffers.get("running_mean"))
    shape = next(tuple(x.shape) for x in tensors if x is not None)
    groups = before.get("groups", 1)
    if isinstance(module, _ConvTransposeNd):
        set_sizes(module, {"in": shape[0], "out": shape[1] * groups, "groups": groups})
    elif isinstance(module, _ConvNd):
        if 1 < groups == before["in"]:  # depthwise: as many groups as inputs
            groups = shape[0] * groups // before["out"]
        set_sizes(module, {"in": shape[1] * groups, "out": shape[0], "groups": groups})
    elif isinstance(module, nn.Embedding):
        set_sizes(module, {"in": shape[0], "out": shape[1]})
    elif isinstance(module, nn.Linear):
        set_sizes(module, {"in": shape[1], "out": shape[0]})
    else:
        set_sizes(module, {"in": shape[-1], "out": shape[-1], "groups": _whole_groups(before, shape[-1])})


def _whole_groups(before: Mapping[str, int], channels: int) -> int:
    """How many groups a norm has with as many ``channels``: they keep their size, but for a single one."""
    groups = before.get("groups", 1)
    return groups * channels // before["out"] if groups > 1 else 1
