"""New widths from densities, or from what cuts lose: how many units each group keeps.

Work is multiply-accumulates with output widths rounded up to ``round_to``: 16 is measured as fast on AVX-512 CPUs (25
outputs cost as much as 32), 8 on GPUs in half precision. Widths are rounded to multiples of it, below it of a quarter,
but for the last per cent of a target; no group falls under ``floor`` of its width, nor under one unit.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .budget import Budget, Counts
from .cost import costs, layer_macs, macs, parameters
from .cuts import Losses, by_importance, cuts
from .groups import Coupling, Group
from .latency import LayerTimes
from .resize import Width, widths
from .slicing import magnitude, slice_channels
from .targets import Family, corrected, kept, missed, to_parameters

Rule = Literal["consumer", "sqrt-min", "sqrt-max", "latency", "sensitivity"]
RULES: tuple[Rule, ...] = ("consumer", "sqrt-min", "sqrt-max", "latency", "sensitivity")


@dataclass(frozen=True)
class Plan:
    """``counts``: units that each group keeps; ``widths``: what every layer then has, for ``resize``.

    ``missed`` says by how much where the target is missed by more than 2 %.
    """

    counts: Counts
    widths: dict[str, Width]
    parameters: int
    missed: str | None = None

    def table(self) -> str:
        """One line a group: width before, width after, who writes and reads it."""
        lines = ["before  after  group"]
        for group, count in self.counts.items():
            size = group.unit_size
            lines.append(f"{group.units * size:6}  {count * size:5}  {str(group).partition(': ')[2]}")
        return "\n".join(lines)


def plan(
    model: nn.Module,
    coupling: Coupling,
    densities: Mapping[str, float],
    rule: Rule = "consumer",
    ratio: float | None = None,
    work_ratio: float | None = None,
    inputs: Sequence[Any] = (),
    round_to: int = 1,
    floor: float = 1 / 8,
    macs_ratio: float | None = None,
    latency_ratio: float | None = None,
    modules: Sequence[str] = (),
    losses: Losses | None = None,
) -> Plan:
    """Widths for ``model`` from its layers' ``densities`` (``density(model).layers``), coupled channels in step.

    ``consumer``: a width times the density of the densest layer that reads it (the rule that meets CDFI's published
    networks). ``sqrt-min``, ``sqrt-max``: every layer's in and out times the root of its density, the least or greatest
    that its writers and readers ask. ``latency``: layers are timed; what loses least weight a millisecond goes first.
    ``sensitivity``: what loses least of ``losses`` (measured by ``sensitivity``) for its share of parameters and work.

    One target may be given, and is met within 2 %, or ``missed`` says so: parameters (``ratio``), multiply-accumulates
    (``macs_ratio``) or the time of ``model(*inputs)`` (``latency_ratio``, measured here) fall by that factor. Beside
    ``ratio``, ``work_ratio`` cuts further until work falls by as much, past ``ratio`` if need be; a target under the
    floors raises ValueError. Of ``modules`` (paths, names in paths), only they are cut, ``ratio`` is theirs.
    """
    target = _target(ratio, macs_ratio, latency_ratio, work_ratio)
    if not inputs and any((rule == "latency", work_ratio, macs_ratio, latency_ratio)):
        raise ValueError("plan: got no inputs, expected them for work, multiply-accumulates and latency")
    groups = coupling.within(modules).groups
    _check(rule, groups, densities, losses or {})
    bare = copy.deepcopy(model).to("meta")
    work = {f"{path}.weight": n for path, n in layer_macs(bare, inputs).items()} if inputs else {}
    budget = Budget(bare, groups, work, round_to, modules)
    family: Family
    if rule == "latency":
        losses = by_importance(magnitude(model, groups))
        family = _Path(cuts(LayerTimes(model, inputs, budget), losses, round_to, floor))
    elif rule == "sensitivity":
        family = _ByLoss(groups, losses or {}, budget, round_to, floor)
    else:
        family = _by_density(groups, densities, rule, budget, round_to, floor, target is not None)
    steps = sorted({round_to, max(1, round_to // 4), 1}, reverse=True)
    if ratio is not None:
        counts, problem = to_parameters(family, budget, ratio, work_ratio, steps, getattr(family, "wish", kept))
    else:
        counts, problem = _measured(model, bare, family, budget, inputs, steps, macs_ratio, latency_ratio)
    small = _cut(bare, counts)
    return Plan(counts, widths(small), parameters(small), problem)


def _measured(
    model: nn.Module,
    bare: nn.Module,
    family: Family,
    budget: Budget,
    inputs: Sequence[Any],
    steps: Sequence[int],
    macs_ratio: float | None,
    latency_ratio: float | None,
) -> tuple[Counts, str | None]:
    """Counts for a target that the whole network is measured for, or for none."""
    if macs_ratio is not None:
        whole = macs(bare, inputs)
        counts, reached = corrected(
            family, budget.macs, macs_ratio, steps, lambda c: whole / macs(_cut(bare, c), inputs)
        )
        return counts, missed(reached, macs_ratio, "ratio of multiply-accumulates")
    if latency_ratio is not None:
        counts, reached = corrected(family, budget.work, latency_ratio, steps, lambda c: _speed_up(model, c, inputs))
        return counts, missed(reached, latency_ratio, "ratio of latency")
    return family(1.0, 0.0), None


def _target(*given: float | None) -> float | None:
    """The one that is given of the ratios of parameters, multiply-accumulates and latency; the last is for work."""
    *targets, work_ratio = given
    found = [target for target in targets if target is not None]
    if len(found) > 1 or (work_ratio is not None and targets[0] is None):
        raise ValueError("plan: expected one of ratio, macs_ratio and latency_ratio, and work_ratio beside ratio alone")
    return found[0] if found else None


def _check(rule: Rule, groups: Sequence[Group], densities: Mapping[str, float], losses: Losses) -> None:
    if rule not in RULES:
        raise ValueError(f"plan: rule is {rule!r}, expected one of {', '.join(RULES)}")
    if rule == "sensitivity":
        if not set(groups) <= losses.keys():
            raise ValueError("plan: rule is 'sensitivity', expected losses of every group")
        return
    missing = {m for group in groups for role in ("in", "out") for m in group.modules(role)} - densities.keys()
    if missing and rule != "latency":
        raise ValueError(f"plan: no density of {sorted(missing)[0]}, expected one of every layer in a group")


def _cut(model: nn.Module, counts: Counts) -> nn.Module:
    return slice_channels(model, {group: range(n) for group, n in counts.items()})


def _speed_up(model: nn.Module, counts: Counts, inputs: Sequence[Any]) -> float:
    before, after = costs([model, _cut(model, counts)], inputs)
    return before.latency_ms / after.latency_ms


def _by_density(
    groups: Sequence[Group],
    densities: Mapping[str, float],
    rule: Rule,
    budget: Budget,
    round_to: int,
    floor: float,
    to_target: bool,
) -> Family:
    """Shares to a power, those of groups with much work to a higher one."""
    shares = {group: _share(group, densities, rule) for group in groups}
    heavy = budget.heavy()
    if to_target:
        shares = {group: min(share, 0.98) for group, share in shares.items()}  # a power of 1 would never fall

    def at(power: float, extra: float = 0.0) -> Counts:
        powers = {group: power * (1 + extra) if group in heavy else power for group in shares}
        return {group: _count(group, share ** powers[group], round_to, floor) for group, share in shares.items()}

    return at


class _Path:
    """One more cut for each whole number; without a target, half of what can be saved."""

    def __init__(self, path: Sequence[Counts]) -> None:
        self.path = path

    def __call__(self, number: float, extra: float = 0.0) -> Counts:
        return self.path[min(len(self.path) - 1, int(number * len(self.path) / 2))]


class _ByLoss:
    """Cuts by what they lose for their shares of parameters and of work, which the second number weighs more."""

    def __init__(self, groups: Sequence[Group], losses: Losses, budget: Budget, round_to: int, floor: float) -> None:
        self.losses, self.budget, self.least = {group: losses[group] for group in groups}, budget, (round_to, floor)
        self.whole = budget.parameters({}), max(budget.work({}), 1.0)
        self.paths: dict[float, _Path] = {}

    def __call__(self, number: float, extra: float = 0.0) -> Counts:
        def size(counts: Mapping[Group, int]) -> float:
            parameters, work = self.budget.parameters(counts) / self.whole[0], self.budget.work(counts) / self.whole[1]
            return parameters + (1 + extra) * work

        if extra not in self.paths:
            self.paths[extra] = _Path(cuts(size, self.losses, *self.least))
        return self.paths[extra](number)

    def wish(self, counts: Counts, group: Group, more: int) -> float:
        """What regains most for its parameters comes first."""
        regained = self.losses[group][counts[group]] - self.losses[group][more]
        grown = self.budget.parameters({**counts, group: more}) - self.budget.parameters(counts)
        return -regained / max(grown, 1.0)


def _share(group: Group, densities: Mapping[str, float], rule: Rule) -> float:
    width = group.units * group.unit_size
    readers = [densities[path] for path in group.modules("in")]
    writers = [densities[path] for path in group.modules("out")]
    if rule == "consumer":
        return max(readers or writers)
    asked = [int(math.sqrt(share) * width) for share in (*writers, *readers)]
    return (min if rule == "sqrt-min" else max)(asked) / width


def _count(group: Group, share: float, round_to: int, floor: float) -> int:
    """Units for about ``share`` of the channels."""
    size = group.unit_size
    width = group.units * size * share
    if round_to > 1:
        step = math.lcm(round_to if width > round_to else max(1, round_to // 4), size)
        width = max(step, round(width / step) * step)
    least = max(1, math.ceil(floor * group.units))
    return min(group.units, max(least, int(width / size + 1e-9)))


def uniform(groups: Sequence[Group], share: float) -> dict[str, float]:
    """Densities that give every group the same share: the control that a plan has to beat."""
    return {path: share for group in groups for role in ("in", "out") for path in group.modules(role)}
