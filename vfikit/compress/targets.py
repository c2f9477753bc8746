"""Counts of units that meet a cost, as exactly as units allow."""

from collections.abc import Callable, Sequence

from .budget import Budget, Counts
from .cuts import Size
from .groups import Group

TOLERANCE = 0.02
Family = Callable[
    [float, float], Counts
]  # ever fewer units as the first number grows, of some groups as the second does
_MOST = 64.0  # of the second number; by then all is at the floor
_TRIES = 4  # of a measured target, each corrected by the one before


def to_parameters(
    family: Family, budget: Budget, ratio: float, work_ratio: float | None, steps: Sequence[int]
) -> tuple[Counts, str | None]:
    """Parameters fall by ``ratio``; work by ``work_ratio`` at least, or as far as it goes. And what is ``missed``."""
    target = budget.parameters({}) / ratio

    def fitted(extra: float) -> Counts:
        return bisect(lambda number: family(number, extra), budget.parameters, target, "parameters")

    counts, most = fitted(0.0), float("inf")
    if work_ratio is not None:
        most = max(budget.work({}) / work_ratio, budget.work(fitted(_MOST)))
        counts = counts if budget.work(counts) <= most else bisect(fitted, budget.work, most, "units of work")
    counts = refine(counts, budget.parameters, target, steps, lambda more: budget.work(more) <= most)
    problem = missed(budget.parameters({}) / budget.parameters(counts), ratio, "ratio of parameters")
    fallen = budget.work({}) / budget.work(counts) if work_ratio else 0.0
    if work_ratio and fallen < (1 - TOLERANCE) * work_ratio:
        short = f"work falls {fallen:.3g} times, not {work_ratio:.3g}: the ratio of parameters is reached before"
        problem = f"{problem}; {short}" if problem else short
    return counts, problem


def corrected(
    family: Family, size: Size, ratio: float, steps: Sequence[int], measure: Callable[[Counts], float]
) -> tuple[Counts, float]:
    """Counts whose ``measure`` is ``ratio``, found through ``size``, which falls with it; and what was measured."""
    target, best = size({}) / ratio, None
    for _ in range(_TRIES):
        counts = bisect(lambda number: family(number, 0.0), size, target, "units of work")
        counts = refine(counts, size, target, steps, lambda more: True)
        reached = measure(counts)
        if best is None or abs(reached / ratio - 1) < abs(best[1] / ratio - 1):
            best = counts, reached
        if abs(reached / ratio - 1) <= TOLERANCE / 2:
            break
        target *= reached / ratio
    assert best is not None
    return best


def bisect(at: Callable[[float], Counts], size: Size, target: float, what: str) -> Counts:
    """The counts at the lowest number whose size is at most ``target``."""
    low, high = 0.0, 1.0
    while size(at(high)) > target:
        if high > 2000:
            raise ValueError(f"plan: the floors leave {size(at(high)):,.0f} {what}, expected at most {target:,.0f}")
        low, high = high, high * 2
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if size(at(middle)) <= target else (middle, high)
    return at(high)


def refine(
    counts: Counts, size: Size, target: float, steps: Sequence[int], allowed: Callable[[Counts], bool]
) -> Counts:
    """Gives units back, ``steps`` channels at a time, coarse steps first, until within ``TOLERANCE`` under ``target``.

    Of the groups, what is cut most comes first; finer steps stay with as few groups as they can, so that most widths
    remain what they were rounded to. What would pass the target, or is not ``allowed``, is left.
    """
    counts, uneven = dict(counts), set[Group]()
    for step in steps:
        waiting = list(counts)  # in their order: plans are the same every time
        while waiting and size(counts) < (1 - TOLERANCE) * target:
            group = min(waiting, key=lambda g: (g not in uneven, counts[g] / g.units))
            more = {**counts, group: min(group.units, counts[group] + max(1, step // group.unit_size))}
            if more[group] == counts[group] or size(more) > target or not allowed(more):
                waiting.remove(group)
                continue
            counts = more
            if step != steps[0]:
                uneven.add(group)
    return counts


def missed(reached: float, target: float, what: str) -> str | None:
    """A sentence where ``reached`` is not within ``TOLERANCE`` of ``target``."""
    if abs(reached / target - 1) <= TOLERANCE:
        return None
    return f"{what} is {reached:.4g}, not within {TOLERANCE:.0%} of {target:.4g}: the units are too coarse"
