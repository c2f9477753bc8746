"""What a network costs as a function of how many units its groups keep, without building anything."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from .groups import Group, inside

Counts = dict[Group, int]


class Budget:
    """Parameters and multiply-accumulates; ``macs`` by weight (``layer_macs``), ``lanes`` outputs computed at once.

    Parameters are those of ``modules`` alone (paths, or names inside paths) where there are any.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        macs: Mapping[str, int],
        lanes: int,
        modules: Sequence[str] = (),
    ) -> None:
        self._groups, self._lanes = list(groups), lanes
        shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
        first = np.cumsum([0, *(len(shape) for shape in shapes.values())])[:-1]
        self._counted = np.array([not modules or inside(name.rpartition(".")[0], modules) for name in shapes])
        row = {name: int(start) for name, start in zip(shapes, first)}  # of a tensor's first axis
        macs = {name: n for name, n in macs.items() if name in row}  # not weights that others make (weight norm)
        self._first = first
        self._sizes = np.array([size for shape in shapes.values() for size in shape], dtype=np.float64)
        self._cuts = np.zeros((len(self._sizes), len(groups)))  # indices of an axis that go with one unit of a group
        for column, group in enumerate(groups):
            for member in (member for member in group.members if member.tensor in row):  # not buffers
                self._cuts[row[member.tensor] + member.axis, column] = len(member.indices[0])
        self._units = np.array([group.units for group in groups], dtype=np.float64)
        self._macs = np.array([macs.get(name, 0) for name in shapes], dtype=np.float64)
        transposed = {path for path, module in model.named_modules() if isinstance(module, _ConvTransposeNd)}
        outputs = [row[name] + (name.removesuffix(".weight") in transposed) for name in macs]
        self._outputs = np.array(outputs, dtype=np.int64)
        self.paths = [name.removesuffix(".weight") for name in macs]  # of the layers that have multiply-accumulates
        inputs = [row[name] + (out == row[name]) for name, out in zip(macs, outputs, strict=True)]
        self._inputs = np.array(inputs, dtype=np.int64)

    def _left(self, counts: Mapping[Group, int]) -> NDArray[np.float64]:
        gone = self._units - [counts.get(group, group.units) for group in self._groups]
        return self._sizes - self._cuts @ gone

    def parameters(self, counts: Mapping[Group, int]) -> float:
        return float(np.multiply.reduceat(self._left(counts), self._first) @ self._counted)

    def macs(self, counts: Mapping[Group, int]) -> float:
        """In proportion to the weights; what is not in a layer's weights (sampling, products) is not counted."""
        return self._macs_of(self._left(counts))

    def work(self, counts: Mapping[Group, int]) -> float:
        """The same with output widths rounded up to whole vectors."""
        left = self._left(counts)
        left[self._outputs] = np.ceil(left[self._outputs] / self._lanes) * self._lanes
        return self._macs_of(left)

    def ends(self, counts: Mapping[Group, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input and output widths of the weights of ``paths``."""
        left = self._left(counts).astype(np.int64)
        return left[self._inputs], left[self._outputs]

    def _macs_of(self, left: NDArray[np.float64]) -> float:
        shares = np.multiply.reduceat(left, self._first) / np.multiply.reduceat(self._sizes, self._first)
        return float(shares @ self._macs)

    def heavy(self) -> set[Group]:
        """Groups whose writers and readers hold a larger share of the multiply-accumulates than of the parameters."""
        if not self._macs.any():
            return set()
        weights = np.multiply.reduceat(self._sizes, self._first) * (self._macs > 0)
        tensor = np.searchsorted(self._first, np.arange(len(self._sizes)), side="right") - 1
        touched = np.zeros((len(self._first), len(self._groups)), dtype=bool)
        np.logical_or.at(touched, tensor, self._cuts > 0)
        macs, params = self._macs @ touched / self._macs.sum(), weights @ touched / weights.sum()
        return {group for group, much in zip(self._groups, macs > params) if much}
