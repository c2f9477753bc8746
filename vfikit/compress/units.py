"""Units: the weights that live or die together, for the group-sparse optimizers."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from .groups import Group

Entry = tuple[str, int, Sequence[int]]  # (parameter, axis, indices along it)
Unit = Sequence[Entry]


class Units:
    """G units over named parameters: sums over each, and factors for each, without a loop over units.

    ``units[g]`` lists the slices of unit g: what writes its channels (rows, biases) and the norms' scales and shifts on
    the way, as ``of_groups`` makes them; what reads the channels belongs to other units. ``layers`` are lists of units
    of like kind, all of them one layer unless given. A parameter may have units along one axis only, a channel belong
    to one unit only, and every entry must exist; else ``ValueError``.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], units: Sequence[Unit], layers: Sequence[Sequence[int]] | None = None
    ) -> None:
        self.count = len(units)
        self.layers = [list(layer) for layer in layers] if layers is not None else [list(range(self.count))]
        self.names: list[str] = []
        self.axes: list[int] = []
        self.owners: list[Tensor] = []  # of each parameter's channels; ``count`` for none
        position: dict[str, int] = {}
        for g, unit in enumerate(units):
            for name, axis, indices in unit:
                if name not in parameters:
                    raise ValueError(f"Units: unit {g} names {name}, expected one of {len(parameters)} parameters")
                tensor = parameters[name]
                if name not in position:
                    position[name] = len(self.names)
                    self.names.append(name)
                    self.axes.append(axis)
                    self.owners.append(torch.full((tensor.shape[axis],), self.count))
                at = position[name]
                if self.axes[at] != axis:
                    raise ValueError(f"Units: {name} has units along axes {self.axes[at]}, {axis}, expected one axis")
                if (self.owners[at][list(indices)] != self.count).any():
                    raise ValueError(f"Units: unit {g} has channels of {name} that another has, expected its own")
                self.owners[at][list(indices)] = g
        self.owners = [owner.to(parameters[name].device) for owner, name in zip(self.owners, self.names, strict=True)]
        rest = (parameters[n].numel() // parameters[n].shape[a] for n, a in zip(self.names, self.axes, strict=True))
        self.sizes = self._gather(torch.full(owner.shape, float(r)) for owner, r in zip(self.owners, rest, strict=True))

    def dot(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Inner products of each unit's weights in two lists of tensors, in the order of ``names``: (G,) float64."""
        products = (a * b for a, b in zip(left, right, strict=True))
        return self._gather(self._by_channel(product, i) for i, product in enumerate(products))

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Sums over each unit's weights: (G,) float64."""
        return self._gather(self._by_channel(tensor, i) for i, tensor in enumerate(tensors))

    def spread(self, values: Tensor, index: int, like: Tensor, outside: float) -> Tensor:
        """``values`` (G,) at the weights of the parameter ``names[index]``, ``outside`` at those in no unit.

        The result broadcasts against the parameter and has ``like``'s data type.
        """
        extended = torch.cat([values, values.new_tensor([outside])]).to(like.dtype)
        shape = [1] * like.ndim
        shape[self.axes[index]] = -1
        return extended[self.owners[index]].view(shape)

    def _by_channel(self, tensor: Tensor, index: int) -> Tensor:
        return tensor.movedim(self.axes[index], 0).reshape(len(self.owners[index]), -1).sum(1)

    def _gather(self, channels: Iterable[Tensor]) -> Tensor:
        device = self.owners[0].device if self.owners else None
        total = torch.zeros(self.count + 1, dtype=torch.float64, device=device)
        for values, owner in zip(channels, self.owners, strict=True):
            total.index_add_(0, owner, values.to(total))
        return total[:-1]


def of_groups(groups: Iterable[Group], parameters: Mapping[str, Tensor]) -> tuple[list[Unit], list[list[int]]]:
    """The units and layers of a coupling's groups: writers and norms that are parameters (readers are not members)."""
    units: list[Unit] = []
    layers: list[list[int]] = []
    for group in groups:
        members = [member for member in group.members if member.role != "in" and member.tensor in parameters]
        if not members:
            continue
        layers.append(list(range(len(units), len(units) + group.units)))
        units += [[(m.tensor, m.axis, m.indices[u]) for m in members] for u in range(group.units)]
    return units, layers
