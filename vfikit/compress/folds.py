"""Sets of channels, and axes that are cut apart or merged: what goes from the one goes from the others."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

Labels = np.ndarray  # one atom an index of an axis; FIXED where the index is no channel of ours
FIXED = -1


class Sets:
    """A union-find over atoms; ``fixed`` holds the reasons of the sets that are never cut, by root."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.fixed: dict[int, str] = {}

    def new(self, size: int) -> Labels:
        first = len(self.parent)
        self.parent.extend(range(first, first + size))
        return np.arange(first, first + size)

    def find(self, atom: int) -> int:
        parent = self.parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def fix(self, labels: Labels, reason: str) -> None:
        for atom in np.unique(labels).tolist():
            if atom != FIXED:
                self.fixed.setdefault(self.find(atom), reason)

    def join(self, a: Labels, b: Labels, reason: str) -> None:
        """Index by index; a partner that is ``FIXED`` fixes the other."""
        pairs = np.stack([a.reshape(-1), b.reshape(-1)])
        if pairs.shape[1] > 64:  # labels of merged axes repeat
            span = len(self.parent) + 1
            pairs = np.stack(np.divmod(np.unique((pairs[0] + 1) * span + pairs[1] + 1), span)) - 1
        for one, other in pairs.T.tolist():
            if one == FIXED or other == FIXED:
                self.fix(np.array([one, other]), reason)
                continue
            kept, gone = self.find(one), self.find(other)
            if kept != gone:
                self.parent[gone] = kept
                if gone in self.fixed:
                    self.fixed.setdefault(kept, self.fixed.pop(gone))

    def copy(self) -> "Sets":
        new = Sets()
        new.parent, new.fixed = list(self.parent), dict(self.fixed)
        return new

    def free(self, labels: Labels) -> bool:
        """Whether any of these may be cut."""
        return any(atom != FIXED and self.find(atom) not in self.fixed for atom in labels.reshape(-1).tolist())


@dataclass(eq=False)
class Fold:
    """An axis, as ``grid`` of its atoms, and the ``axes`` that it is cut into or was merged from.

    An entry of the grid goes with the slice of any of the axes that it lies in. So that what is left is a grid again,
    whole slices along one axis go and the others stay: whole heads, or the same places of every head.
    """

    grid: Labels
    axes: list[Labels]
    operation: int
    key: Hashable
    where: str
    counters: list[Labels] = field(default_factory=list)
    choice: int | None = None

    def settle(self, sets: Sets, banned: set[int]) -> bool:
        """Reads the fold where there is but one way; False where there are several."""
        self.choice = None
        free = self._free(sets, banned)
        if not sets.free(self.grid):
            free = []
        if len(free) > 1:
            return False
        if free:
            self._carry(sets, free[0])
        else:
            reason = f"a reshape that cuts the channels apart in {self.where}"
            for labels in (self.grid, *self.axes):
                sets.fix(labels, reason)
        return True

    def choose(self, sets: Sets, banned: set[int], only: bool) -> bool:
        """Takes the first axis whose slices have no channels in common; ``only`` if it is the only one."""
        free = self._free(sets, banned)
        apart = [axis for axis in free if self._apart(sets, axis)]
        if only and len(apart) != 1:
            return False
        self._carry(sets, (apart or free)[0])
        return True

    def _free(self, sets: Sets, banned: set[int]) -> list[int]:
        return [axis for axis, labels in enumerate(self.axes) if axis not in banned and sets.free(labels)]

    def _slices(self, axis: int) -> Labels:
        return np.moveaxis(self.grid, axis, 0).reshape(self.grid.shape[axis], -1)

    def _apart(self, sets: Sets, axis: int) -> bool:
        roots = [{sets.find(atom) for atom in row if atom != FIXED} for row in self._slices(axis).tolist()]
        return sum(map(len, roots)) == len(set().union(*roots))

    def _carry(self, sets: Sets, axis: int) -> None:
        self.choice = axis
        own = self.axes[axis]
        reason = f"a reshape with fixed channels in {self.where}"
        for column in self._slices(axis).T:
            sets.join(own, column, reason)
        for other, labels in enumerate(self.axes):
            if other != axis:
                sets.fix(labels, f"a reshape that keeps the size of this axis in {self.where}")
        for counter in self.counters:
            copies = own.reshape(-1, len(counter)) if len(own) % len(counter) == 0 else own[:0, None]
            roots = [tuple(map(sets.find, copy)) for copy in copies.tolist()]
            if len(set(roots)) == 1:  # more than one copy where the batch is merged with the heads
                sets.join(copies[0], counter, reason)


@dataclass(eq=False)
class Tie:
    """Equal ``parts`` (k, size) of an axis. If they do not follow its size, as many must go from each."""

    parts: Labels
    operation: int
    key: Hashable
    where: str
    counters: list[Labels] = field(default_factory=list)
    choice: int = 0

    def settle(self, sets: Sets, banned: set[int]) -> bool:
        if 0 in banned:
            for part in self.parts[1:]:
                sets.join(self.parts[0], part, f"equal parts of fixed channels in {self.where}")
        return True

    def choose(self, sets: Sets, banned: set[int], only: bool) -> bool:
        raise AssertionError("a tie is always settled")
