"""Removing channels that others can stand in for, and letting them: least squares on what layers really read.

After ThiNet (arXiv:1707.06342) and He et al. (arXiv:1707.06168), in closed form: what a removed channel would have
carried is predicted from the kept ones, and the prediction folded into the weights that read them.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .groups import Group

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Moments:
    """Mean (C,) and covariance (C, C) of what a layer reads, over batches and places; float64."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def input_moments(model: nn.Module, calls: Iterable[Sequence[Any]]) -> dict[str, Moments]:
    """Moments of the input of every convolution of one group and every linear layer, while ``model(*call)`` runs."""
    sums: dict[str, Moments] = {}
    counts = Counter[str]()
    zeros = partial(torch.zeros, dtype=torch.float64)
    handles = []
    for path, module in model.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear) or getattr(module, "groups", 1) != 1:
            continue

        def watch(module: nn.Module, args: tuple[Tensor, ...], path: str = path) -> None:
            channel = 1 if isinstance(module, _ConvNd) else -1
            x = args[0].detach().movedim(channel, 0).flatten(1).float()
            if path not in sums:
                sums[path] = Moments(zeros(len(x)), zeros(len(x), len(x)))
            sums[path].mean.add_(x.sum(1).cpu())
            sums[path].covariance.add_((x @ x.T).cpu())
            counts[path] += x.shape[1]

        handles.append(module.register_forward_pre_hook(watch))
    try:
        for call in calls:
            model(*call)
    finally:
        for handle in handles:
            handle.remove()
    for path, seen in sums.items():
        seen.mean /= counts[path]
        seen.covariance.div_(counts[path]).addr_(seen.mean, seen.mean, alpha=-1)
    return sums


def least_missed(
    model: nn.Module, groups: Sequence[Group], counts: Mapping[Group, int], moments: Mapping[str, Moments]
) -> dict[Group, list[int]]:
    """The ``counts[group]`` units of each group to keep, so that what the readers make changes least.

    One unit at a time goes, the one whose unpredictable part (its variance given those still there) times the weights
    that read it is smallest, summed over the readers in shares of what each makes.
    """
    return {group: sorted(removal_order(model, group, moments, n)[-n:]) for group, n in counts.items()}


def removal_order(model: nn.Module, group: Group, moments: Mapping[str, Moments], least: int = 1) -> list[int]:
    """The group's units, first what ``least_missed`` would remove first; the last ``least`` are in no order."""
    readers = []
    for member in group.members:
        if member.role == "in" and member.module in moments:
            module = model.get_submodule(member.module)
            gain = _columns(module).flatten(1).square().sum(1)  # (C,)
            covariance = moments[member.module].covariance
            made = float((gain * covariance.diagonal()).sum()) + 1e-30
            own = torch.tensor(member.indices).flatten()  # what others write stays, and is not asked for below
            readers.append((gain[own] / made, torch.linalg.inv(_ridged(covariance))[own][:, own]))
    if not readers:
        return list(reversed(range(group.units)))
    left, order = list(range(group.units)), list[int]()
    while len(left) > least:
        cost = torch.zeros(group.units, dtype=torch.float64)
        for gain, precision in readers:
            cost += (gain / precision.diagonal()).view(group.units, -1).sum(1)
        gone = left.pop(int(cost[left].argmin()))
        order.append(gone)
        for _, precision in readers:
            size = len(precision) // group.units
            for i in range(gone * size, (gone + 1) * size):  # the inverse without row and column i, which stay as zeros
                column, row = precision[:, i].clone(), precision[i].clone()
                precision.addr_(column, row, alpha=-1 / float(row[i]))
                precision[i, i] = 1.0
    return order + left


@torch.no_grad()
def compensate(model: Model, keep: Mapping[Group, Sequence[int]], moments: Mapping[str, Moments]) -> Model:
    """A copy of ``model`` in which nothing reads the units outside ``keep``; kept ones stand in for them.

    Slicing it changes nothing more, where no norm is between. A reader without moments just loses the columns; one
    without bias, or a transposed convolution (whose outputs see different taps), gets no constant. A removed channel
    that was always zero leaves all other weights as they were.
    """
    model = copy.deepcopy(model)
    removed: dict[str, set[int]] = {}
    for group, units in keep.items():
        for member in group.members:
            if member.role == "in" and member.tensor.rpartition(".")[2] == "weight":
                gone = set(range(group.units)) - set(units)
                removed.setdefault(member.module, set()).update(i for unit in gone for i in member.indices[unit])
    for path, indices in removed.items():
        module: Any = model.get_submodule(path)
        columns = _columns(module)  # (C, everything else)
        out = torch.tensor(sorted(indices), dtype=torch.long)
        kept = torch.tensor([i for i in range(len(columns)) if i not in indices], dtype=torch.long)
        if path in moments and len(kept) and len(out):
            mean, covariance = moments[path].mean, moments[path].covariance
            constant = module.bias is not None and not isinstance(module, _ConvTransposeNd)
            if not constant:
                covariance, mean = covariance + torch.outer(mean, mean), torch.zeros_like(mean)
            share = torch.linalg.solve(_ridged(covariance)[kept][:, kept], covariance[kept][:, out])  # (K, R)
            lost = columns[out].flatten(1)
            columns[kept] += (share @ lost).view_as(columns[kept])
            if constant:
                rest = mean[out] - share.T @ mean[kept]
                per_output = columns[out].reshape(len(out), columns.shape[1], -1).sum(2)  # (R, outputs)
                module.bias += (rest @ per_output).to(module.bias)
        columns[out] = 0
        weight = columns if isinstance(module, _ConvTransposeNd) else columns.movedim(0, 1)
        module.weight.copy_(weight)
    return model


def _columns(module: nn.Module) -> Tensor:
    """What reads each input channel: (C_in, C_out, ...), float64."""
    weight = module.weight.detach().cpu().double()  # type: ignore[operator]
    return weight.clone() if isinstance(module, _ConvTransposeNd) else weight.movedim(1, 0).contiguous()


def _ridged(covariance: Tensor) -> Tensor:
    """Invertible, and deaf to differences that a few batches cannot tell from noise."""
    scale = float(covariance.diagonal().mean()) + 1e-12
    return covariance + 1e-3 * scale * torch.eye(len(covariance), dtype=covariance.dtype)
