"""Which channels of a network can only go together: groups of units, traced and checked on the network itself.

The network runs once on ``meta``, every operation mapping the channels of its inputs to those of its output
(``rules``). What has no rule keeps its channels, with the reason. Then it runs at other widths, one unit more of every
group, and different numbers more: an operation that does not make what the rules say ends the groups that it touches.
(Wider, not narrower: an axis of size 1 would change layouts, and with them which operations run.)

Torch-Pruning's tracer takes an unknown operation for an element-wise one and cuts wrongly without a word; here nothing
is cut that is not understood.
"""

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils import _pytree

from .atoms import Atoms
from .folds import Sets
from .groups import Coupling, CouplingError, Group, Member
from .resize import SIZES, own_tensors, weight_names
from .slicing import with_copies
from .tracing import Comparer, Labeller, Limit, Misfit, Step, tensors_of

__all__ = ["Coupling", "CouplingError", "Group", "Member", "couple"]

NEAR = 3  # an error in Python shows at the next operation or soon after it


def couple(model: nn.Module, inputs: Sequence[Any], seconds: float = 300.0) -> Coupling:
    """Traces ``model(*inputs)`` and returns the groups of channels that can be cut.

    Only shapes and types of the tensors in ``inputs`` matter; the model is not touched. The channels of inputs and
    outputs stay. A model that does not run on ``meta``, or longer than ``seconds``, or that has networks ``apart`` from
    what it runs, whose channels must fit all the same, raises ``CouplingError``.

    Attention is cut by whole heads. Its number is to be found in a ``heads`` or ``num_heads`` of the module, or follow
    from the tensors (``view(n, -1, head_dim, ..)``); where the code has it otherwise, heads stay.
    """
    if apart := getattr(model, "apart", ()):
        raise CouplingError(
            f"coupling: {type(model).__name__}'s forward pass leaves out {' and '.join(apart)}, whose channels would "
            "no longer fit: compress the model without"
        )
    first = Labeller(Atoms(), Limit(3600))  # imports what torch needs for this, before the clock starts
    first.run(nn.Conv2d(1, 1, 1, device="meta"), (torch.empty(1, 1, 1, 1, device="meta"),))
    limit = Limit(seconds)
    shared = _shared(model)  # to be asked first: on ``meta`` each has its own
    model = _copied(model).to("meta").eval()
    inputs = _pytree.tree_map_only(Tensor, lambda x: x.to("meta"), tuple(inputs))
    atoms = Atoms()
    weights = _label_weights(model, atoms, shared)
    tracer = Labeller(atoms, limit)
    try:
        output = tracer.run(model, inputs)
    except CouplingError:
        raise
    except Exception as error:
        message = str(error).splitlines()[0] if str(error) else ""
        raise CouplingError(
            f"coupling: {tracer.place(type(model).__name__)} does not run without data "
            f"({type(error).__name__}: {message}); give it a channel map in rules.CHANNEL_MAPS"
        ) from error
    atoms.where = ""
    atoms.fix_all(tensors_of(output), "an output of the network")
    for name, tensor in weights.items():
        if id(tensor) not in tracer.used:
            for labels in atoms.of(tensor):
                atoms.fix(labels, f"{name} takes no part in the forward pass")
    return _proved(model, inputs, atoms, tracer.steps, limit)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        for path, module in reversed(list(model.named_modules())):  # the innermost that fails
            try:
                copy.deepcopy(module)
            except RuntimeError:
                name = f"{path or 'the network'} ({type(module).__name__})"
                raise CouplingError(f"coupling: {name} cannot be copied ({str(error).partition('.')[0]})") from error
        raise


def _proved(model: nn.Module, inputs: Any, atoms: Atoms, steps: list[Step], limit: Limit) -> Coupling:
    """The groups without which fewer channels run as the rules say, at every operation."""
    while True:
        sets = atoms.settled()
        coupling = _group(model, atoms, sets)
        free = [group for group in coupling.groups if group.units > 1]
        if not free:
            return coupling
        chance = random.Random(0)
        different = chance.sample(range(1, 2 * len(free) + 2), len(free))
        for more in ([1] * len(free), different):
            units = [chance.randrange(group.units) for group in free]
            extra = {group: (unit, n) for group, unit, n in zip(free, units, more)}
            misfit = _misfit(model, inputs, atoms, sets, steps, extra, limit)
            if misfit is not None:
                _refuse(atoms, sets, steps, free, misfit)
                break
        else:
            return coupling


def _misfit(
    model: nn.Module,
    inputs: Any,
    atoms: Atoms,
    sets: Sets,
    steps: list[Step],
    extra: dict[Group, tuple[int, int]],
    limit: Limit,
) -> Misfit | None:
    """Runs the network with one unit of each group there a number of times more; what happens that should not."""
    wide = with_copies(model, {g: [1 + n * (u == unit) for u in range(g.units)] for g, (unit, n) in extra.items()})
    more = {_root(atoms, sets, group, unit): n for group, (unit, n) in extra.items()}
    comparer = Comparer(steps, sets, more, {id(tensor) for _, tensor in _weights(wide)}, limit)
    try:
        comparer.run(wide, inputs)
    except CouplingError:
        raise
    except Misfit as misfit:
        return misfit
    except Exception as error:
        return Misfit(comparer.done, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return None


def _root(atoms: Atoms, sets: Sets, group: Group, unit: int) -> int:
    first = group.members[0]
    return sets.find(atoms.atom(first.tensor, first.axis, first.indices[unit][0]))


def _refuse(atoms: Atoms, sets: Sets, steps: list[Step], groups: list[Group], misfit: Misfit) -> None:
    """Reads a reshape there another way, if there is one; else fixes the groups that the operation touches."""
    for record in atoms.records:
        banned, choice = atoms.banned.setdefault(record.key, set()), record.choice
        if misfit.step <= record.operation < misfit.step + NEAR and choice is not None and choice not in banned:
            banned.add(choice)
            return
    owner = {_root(atoms, sets, group, unit): group for group in groups for unit in range(group.units)}
    blamed: set[Group] = set()
    for step in reversed(steps[: misfit.step + 1]):
        atoms_there = {atom for labels in step.touched() for atom in labels.tolist() if atom >= 0}
        blamed = {owner[root] for root in {sets.find(atom) for atom in atoms_there} & owner.keys()}
        if blamed:
            break
    where = steps[min(misfit.step, len(steps) - 1)].where if steps else ""
    for group in blamed or groups:
        for unit in range(group.units):
            first = group.members[0]
            atom = np.array([atoms.atom(first.tensor, first.axis, first.indices[unit][0])])
            atoms.sets.fix(atom, f"{where} does not run at another width ({misfit})")


def _weights(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The tensors that ``resize`` can cut, by name."""
    return [
        (f"{path}.{name}" if path else name, tensor)
        for path, module in model.named_modules()
        for name, tensor in own_tensors(module)
    ]


def _shared(model: nn.Module) -> set[str]:
    """Names of tensors that stand under another name too."""
    names: dict[int, list[str]] = {}
    for name, tensor in _weights(model):
        names.setdefault(id(tensor), []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}


def _label_weights(model: nn.Module, atoms: Atoms, shared: set[str]) -> dict[str, Tensor]:
    """New atoms for the tensors that ``resize`` can cut; all others have fixed sizes."""
    weights = dict(_weights(model))
    for full, tensor in weights.items():
        labels = [atoms.new(full, axis, size) for axis, size in enumerate(tensor.shape)]
        atoms.set(tensor, labels)
        if isinstance(model.get_submodule(full.rpartition(".")[0]), nn.Embedding):
            atoms.fix(labels[0], "rows of an embedding")
        for own in labels if full in shared else ():
            atoms.fix(own, "a tensor that several modules share")
    return weights


def _group(model: nn.Module, atoms: Atoms, sets: Sets) -> Coupling:
    """Units of the same members, in the same numbers, are of one group."""
    units, kept = atoms.units(sets)
    alike: dict[tuple[tuple[str, int, int], ...], list[dict[tuple[str, int], list[int]]]] = {}
    for unit in units:
        places: dict[tuple[str, int], list[int]] = {}
        for tensor, axis, index in unit:
            places.setdefault((tensor, axis), []).append(index)
        signature = tuple((tensor, axis, len(found)) for (tensor, axis), found in places.items())
        alike.setdefault(tuple(sorted(signature)), []).append(places)
    groups = []
    for found in alike.values():
        members = [
            Member(tensor, axis, _role(model, tensor, axis), tuple(tuple(unit[tensor, axis]) for unit in found))
            for tensor, axis in found[0]
        ]
        members.sort(key=lambda member: ("out", "norm", "in", "size").index(member.role))
        sizes = [member for member in members if member.role == "size"]
        if len(sizes) < len(members):
            groups.append(Group(tuple(members[: len(members) - len(sizes)]), tuple(sizes)))
    kept = {(tensor, axis): why for (tensor, axis), why in kept.items() if _role(model, tensor, axis) != "size"}
    return Coupling(tuple(groups), kept)


def _role(model: nn.Module, tensor: str, axis: int) -> str:
    path, _, name = tensor.rpartition(".")
    module = model.get_submodule(path)
    if name in SIZES:
        return "size"
    names = weight_names(module)
    if not names:
        return "norm"
    if name not in names:
        return "out"
    return "out" if axis == (1 if isinstance(module, _ConvTransposeNd) else 0) else "in"
