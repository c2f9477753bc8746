"""The proof that a group is right: permuting its units in all members leaves the output as it was."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from .groups import CouplingError, Group, Member


def check_groups(
    model: nn.Module, groups: Sequence[Group], inputs: Sequence[Sequence[Any]], tolerance: float = 1e-7, seed: int = 0
) -> float:
    """Permutes the units of all groups at once, three times, on a float64 copy; returns the largest relative change.

    ``inputs`` are argument tuples for the model, best of two sizes. Everything that default initialisation makes
    symmetric (norms' scales, shifts and statistics, zero-initialised layers) is randomised first. A change above
    ``tolerance`` raises ``CouplingError`` naming the groups that cause it (wrong groups change far more; rounding that
    attention without norms amplifies, up to 1e-8). What it cannot show is that removal works:
    sizes stay as they were here.
    """
    generator = torch.Generator().manual_seed(seed)
    model, cases = randomised(model, generator), [_double(case) for case in inputs]
    with torch.no_grad():
        before = [_outputs(model, case) for case in cases]
        worst = 0.0
        for _ in range(3):
            worst = max(worst, _change(model, groups, cases, before, generator))
        if worst > tolerance:
            wrong = [g for g in groups if _change(model, [g], cases, before, generator) > tolerance]
            named = "; ".join(map(str, wrong)) or "some groups together"
            raise CouplingError(f"coupling: permuting channels changed the output by {worst:.1e}: {named}")
    return worst


def unobserved(model: nn.Module, group: Group, inputs: Sequence[Any], seed: int = 0) -> list[Member]:
    """The members without which permuting ``group`` would pass as well: what the test says nothing about."""
    generator = torch.Generator().manual_seed(seed)
    model, case = randomised(model, generator), _double(inputs)
    silent = []
    with torch.no_grad():
        before = [_outputs(model, case)]
        for left_out in group.members if group.units > 1 else ():
            rest = Group(tuple(member for member in group.members if member is not left_out))
            if rest.members and _change(model, [rest], [case], before, generator) <= 1e-6:
                silent.append(left_out)
    return silent


def randomised(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy in evaluation mode in which no two channels of a layer are alike."""
    model = copy.deepcopy(model).cpu().double().eval()
    for module in model.modules():
        for name, tensor in module.named_parameters(recurse=False):
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5
            if tensor.ndim >= 2:  # keep the signal's variance, so that deep channels still show at the output
                tensor.data = tensor.data if (tensor != tensor.reshape(-1)[:1]).any() else noise
                fan_in = tensor[0].numel()
                tensor.data *= (2.0 / fan_in) ** 0.5 / tensor.data.square().mean().sqrt()
            else:
                tensor.data = noise * 0.4 + (1.0 if name == "weight" else 0.0)
        if isinstance(module, _NormBase):
            for buffer in (module.running_mean, module.running_var):
                if buffer is not None:
                    buffer.data = 0.5 + torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
    return model


def _change(
    model: nn.Module,
    groups: Sequence[Group],
    cases: list[Any],
    before: list[list[Tensor]],
    generator: torch.Generator,
) -> float:
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    for group in groups:
        order = _derangement(group.units, generator)
        for member in group.members:
            source = torch.tensor(member.indices)
            tensor = tensors[member.tensor]
            moved = tensor.data.clone()
            moved.index_copy_(
                member.axis, source.flatten(), tensor.data.index_select(member.axis, source[order].flatten())
            )
            tensor.data = moved
    change = 0.0
    for case, expected in zip(cases, before):
        for y, y0 in zip(_outputs(model, case), expected):
            scale = y0.abs().max().clamp_min(1e-30)
            change = max(change, float((y - y0).abs().max() / scale) if y0.numel() else 0.0)
    for name, tensor in original.items():
        tensors[name].data = tensor
    return change if change == change else float("inf")


def _derangement(n: int, generator: torch.Generator) -> Tensor:
    """A random permutation without fixed points (n = 1: the identity): a random cycle."""
    cycle = torch.randperm(n, generator=generator)
    order = torch.empty(n, dtype=torch.long)
    order[cycle] = cycle.roll(1)
    return order


def _double(inputs: Sequence[Any]) -> Any:
    def convert(x: Tensor) -> Tensor:
        return x.cpu().double() if x.is_floating_point() else x.cpu()

    return _pytree.tree_map_only(Tensor, convert, tuple(inputs))


def _outputs(model: nn.Module, case: Any) -> list[Tensor]:
    return [x for x in _pytree.tree_leaves(model(*case)) if isinstance(x, Tensor) and x.is_floating_point()]
