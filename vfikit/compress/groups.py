"""Groups of channels that can only go together, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


def inside(path: str, modules: Sequence[str]) -> bool:
    """Whether a module's ``path`` is, or lies in, one of ``modules``: paths, or names that stand somewhere in paths."""
    return any(f".{name}." in f".{path}." for name in modules)


class CouplingError(ValueError):
    """A network that cannot be traced; the message names the module."""


@dataclass(frozen=True)
class Member:
    """One axis of one tensor of the state dict: unit u owns its indices ``indices[u]``."""

    tensor: str
    axis: int
    role: str  # "out": its module writes these channels; "in": it reads them; "norm": it scales them in place
    indices: tuple[tuple[int, ...], ...]

    @property
    def module(self) -> str:
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True)
class Group:
    """Channels of like kind. Each unit goes whole or stays; any units may go, but never all.

    ``sizes`` are integers that modules keep (``attention.heads``), as members of role "size": they fall with the units.
    """

    members: tuple[Member, ...]
    sizes: tuple[Member, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # the indices are many, and plans look groups up all the time
        return hash((self.members, self.sizes))

    @property
    def units(self) -> int:
        return len(self.members[0].indices)

    @property
    def unit_size(self) -> int:
        """Channels a unit, as its first writer counts them."""
        return len(self.members[0].indices[0])

    def modules(self, role: str) -> list[str]:
        """Paths of the modules that stand to these channels in the role "in", "out" or "norm"."""
        return list(dict.fromkeys(member.module for member in self.members if member.role == role))

    def __str__(self) -> str:
        writers, readers = (", ".join(self.modules(role)) for role in ("out", "in"))
        return f"{self.units} units of {self.unit_size}: {writers} -> {readers}"


@dataclass(frozen=True)
class Coupling:
    """``groups`` may be cut; ``kept`` says of axes (tensor, axis) that have channels in no group why not."""

    groups: tuple[Group, ...]
    kept: dict[tuple[str, int], str]

    def within(self, modules: Sequence[str]) -> "Coupling":
        """The groups that lie in ``modules`` with all their members: paths, or names inside paths ("temporal").

        All where ``modules`` is empty; ValueError where nothing lies in them.
        """
        if not modules:
            return self
        free = tuple(group for group in self.groups if all(inside(m.module, modules) for m in group.members))
        if not free:
            raise ValueError(f"coupling: no channels that can be cut lie in {', '.join(modules)} alone")
        return self._only(free)

    def without(self, modules: Sequence[str]) -> "Coupling":
        """Without the groups that any of ``modules`` (paths, or prefixes of paths) takes part in."""

        def named(member: Member) -> bool:
            return any(f"{member.module}.".startswith(f"{prefix}.") for prefix in modules)

        return self._only(tuple(group for group in self.groups if not any(map(named, group.members))))

    def _only(self, free: tuple[Group, ...]) -> "Coupling":
        excluded = {(m.tensor, m.axis): "excluded" for g in self.groups for m in g.members if g not in free}
        return Coupling(free, {**self.kept, **excluded})
