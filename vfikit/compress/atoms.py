"""Which entries of which tensors are the same channel: labels that follow tensors through a network."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from .folds import FIXED, Fold, Labels, Sets, Tie


class Atoms:
    """The labels of every tensor seen, axis by axis, and what has been found to be the same.

    ``None`` labels mean an axis that is not channels, or whose size may not change. Joining an atom with something
    fixed fixes it, with the reason; a fixed atom is never cut.
    """

    def __init__(self) -> None:
        self.sets = Sets()
        self.records: list[Fold | Tie] = []
        self.banned: dict[Hashable, set[int]] = {}  # ways of reading a record that did not work, by the record's key
        self.where = ""  # the module being run, for reasons
        self.operation = 0  # how many have run
        self.counters: list[Labels] = []  # numbers of heads that the module being run keeps
        self.keys: Iterator[Hashable] = iter(())  # names for its records
        self._axes: dict[tuple[str, int], Labels] = {}
        self._labels: dict[int, tuple[Tensor, list[Labels | None]]] = {}  # holds the tensor: ids are not used again

    def new(self, tensor: str, axis: int, size: int) -> Labels:
        """Atoms for an axis of the tensor that the state dict calls ``tensor``; the same ones if asked again."""
        if (tensor, axis) not in self._axes:
            self._axes[tensor, axis] = self.sets.new(size)
        return self._axes[tensor, axis]

    def of(self, tensor: Tensor) -> list[Labels | None]:
        """The labels of each axis."""
        known = self._labels.get(id(tensor))
        return list(known[1]) if known and len(known[1]) == tensor.ndim else [None] * tensor.ndim

    def set(self, tensor: Tensor, labels: Sequence[Labels | None]) -> None:
        self._labels[id(tensor)] = (tensor, list(labels))

    def rename(self, old: Tensor, new: Tensor) -> None:
        """``new`` is what ``old`` was, which has changed its shape."""
        if id(old) in self._labels:
            self.set(new, self._labels.pop(id(old))[1])

    def fix(self, labels: Labels | None, reason: str) -> None:
        """Never cut these."""
        if labels is not None:
            self.sets.fix(labels, f"{reason} in {self.where}" if self.where else reason)

    def fix_all(self, tensors: Iterable[Tensor], reason: str) -> None:
        for tensor in tensors:
            for labels in self.of(tensor):
                self.fix(labels, reason)

    def join(self, a: Labels | None, b: Labels | None, reason: str) -> Labels | None:
        """Makes the two lists the same channels, index by index; returns their labels."""
        if a is None or b is None or len(a) != len(b):
            self.fix(a, reason)
            self.fix(b, reason)
            return None
        self.sets.join(a, b, f"{reason} in {self.where}" if self.where else reason)
        return np.where(a == FIXED, b, a)

    def blocks(self, labels: Labels | None, size: int) -> Labels | None:
        """Joins each run of ``size`` consecutive atoms; returns one label a run."""
        if labels is None:
            return None
        runs = labels.reshape(-1, size)
        for other in range(1, size):
            self.join(runs[:, 0], runs[:, other], "a block with a fixed channel")
        return runs[:, 0].copy()

    def evenly(self, labels: Labels | None, groups: int) -> Labels | None:
        """Joins the atoms at the same place of each of ``groups`` runs; returns one label a place."""
        return None if labels is None else self.blocks(labels.reshape(groups, -1).T.reshape(-1), groups)

    def cut(self, flat: Labels, sizes: Sequence[int]) -> list[Labels | None]:
        """Labels of the axes that an axis with labels ``flat`` is cut into."""
        grid = flat.reshape(sizes)
        varying = [axis for axis in range(grid.ndim) if (grid != grid.take([0], axis)).any()]
        axes: list[Labels | None] = [None] * grid.ndim
        for axis in reversed(range(grid.ndim)):
            grid = grid if axis in varying else grid.take(0, axis)
        if not varying:
            self.fix(flat, "one channel cut into several")
        elif len(varying) == 1:
            axes[varying[0]] = grid
        else:
            own = [self.sets.new(size) for size in grid.shape]
            self._record(Fold(grid, own, *self._here()))
            for axis, labels in zip(varying, own):
                axes[axis] = labels
        return axes

    def merge(self, axes: Sequence[Labels]) -> Labels:
        """Labels of the axis that axes with these labels are merged into."""
        grid = self.sets.new(int(np.prod([len(labels) for labels in axes]))).reshape([len(labels) for labels in axes])
        self._record(Fold(grid, list(axes), *self._here()))
        return grid.reshape(-1)

    def tie(self, parts: Sequence[Labels]) -> None:
        """Equal parts of an axis, cut by a number that may or may not follow the axis's size."""
        self._record(Tie(np.stack(parts), *self._here()))

    def _here(self) -> tuple[int, Hashable, str, list[Labels]]:
        return self.operation, next(self.keys, len(self.records)), self.where, self.counters

    def _record(self, record: Fold | Tie) -> None:
        self.records.append(record)

    def settled(self) -> Sets:
        """The sets with every fold read one way: whole slices along one of its axes, all other axes left alone."""
        sets = self.sets.copy()
        waiting = list(self.records)
        banned = {id(record): self.banned.get(record.key, set()) for record in waiting}
        while waiting:
            left = [record for record in waiting if not record.settle(sets, banned[id(record)])]
            if len(left) == len(waiting):  # the one with the least choice first
                chosen = next((record for record in left if record.choose(sets, banned[id(record)], True)), None)
                if chosen is None:
                    chosen = left[0]
                    chosen.choose(sets, banned[id(chosen)], False)
                left.remove(chosen)
            waiting = left
        return sets

    def atom(self, tensor: str, axis: int, index: int) -> int:
        return int(self._axes[tensor, axis][index])

    def units(self, sets: Sets) -> tuple[list[list[tuple[str, int, int]]], dict[tuple[str, int], str]]:
        """The free channels, each as its entries (tensor, axis, index); and the fixed axes with the first reason."""
        units: dict[int, list[tuple[str, int, int]]] = {}
        reasons: dict[tuple[str, int], str] = {}
        for (tensor, axis), atoms in self._axes.items():
            for index, atom in enumerate(atoms.tolist()):
                root = sets.find(atom)
                if root in sets.fixed:
                    reasons.setdefault((tensor, axis), sets.fixed[root])
                else:
                    units.setdefault(root, []).append((tensor, axis, index))
        return list(units.values()), reasons
