"""Counts of units that meet a cost, as exactly as units allow."""

from collections.abc import Callable, Sequence

from .budget import Budget, Counts
from .cuts import Size
from .groups import Group

TOLERANCE = 0.02
Family = Callable[
    [float, float], Counts
]  # ever fewer units as the first number grows, of some groups as the second does
Wish = Callable[[Counts, Group, int], float]  # the lower, the sooner a group gets units back, up to so many
_MOST = 64.0  # of the second number; by then work is all that counts
_END = 2000.0  # of the first number: no family has more to cut
_TRIES = 4  # of a measured target, each corrected by the one before


def kept(counts: Counts, group: Group, more: int) -> float:
    """A wish: what is cut most comes first."""
    return counts[group] / group.units


def to_parameters(
    family: Family, budget: Budget, ratio: float, work_ratio: float | None, steps: Sequence[int], wish: Wish = kept
) -> tuple[Counts, str | None]:
    """Parameters fall by ``ratio``; work by ``work_ratio`` at least, or as far as it goes. And what is ``missed``.

    Where work takes it, parameters fall further: giving them back would regain next to nothing.
    """
    target = budget.parameters({}) / ratio

    def fitted(extra: float) -> Counts:
        return bisect(lambda number: family(number, extra), budget.parameters, target, "parameters")

    counts, most = fitted(0.0), float("inf")
    if work_ratio is not None:
        if budget.work(counts) > budget.work({}) / work_ratio:
            counts = _to_work(family, budget, budget.work({}) / work_ratio, fitted)
        most = max(budget.work({}) / work_ratio, budget.work(counts))
    counts = refine(counts, budget.parameters, target, steps, lambda more: budget.work(more) <= most, wish)
    reached = budget.parameters({}) / budget.parameters(counts)
    problem = None if work_ratio and reached > ratio else missed(reached, ratio, "ratio of parameters")
    fallen = budget.work({}) / budget.work(counts) if work_ratio else 0.0
    if work_ratio and fallen < (1 - TOLERANCE) * work_ratio:
        short = f"work falls {fallen:.3g} times, not {work_ratio:.3g}: the floors leave no more"
        problem = f"{problem}; {short}" if problem else short
    return counts, problem


def _to_work(family: Family, budget: Budget, most: float, fitted: Callable[[float], Counts]) -> Counts:
    """Counts for at most so much work: the least stress on it that is enough at the target of parameters.

    Where none is, past that target, if the floors let it.
    """
    stressed = fitted(_MOST)
    if budget.work(stressed) <= most:
        return bisect(fitted, budget.work, most, "units of work")
    if budget.work(family(_END, _MOST)) > most:
        return stressed
    return bisect(lambda number: family(number, _MOST), budget.work, most, "units of work")


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
        if high > _END:
            raise ValueError(f"plan: the floors leave {size(at(high)):,.0f} {what}, expected at most {target:,.0f}")
        low, high = high, high * 2
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if size(at(middle)) <= target else (middle, high)
    return at(high)


def refine(
    counts: Counts,
    size: Size,
    target: float,
    steps: Sequence[int],
    allowed: Callable[[Counts], bool],
    wish: Wish = kept,
) -> Counts:
    """Gives units back, ``steps`` channels at a time, coarse steps first, until within ``TOLERANCE`` under ``target``.

    The group with the least ``wish`` comes first; finer steps stay with as few groups as they can, so that most widths
    remain what they were rounded to. What would pass the target, or is not ``allowed``, is left.
    """

    def raised(group: Group, step: int) -> int:
        return min(group.units, counts[group] + max(1, step // group.unit_size))

    counts, uneven = dict(counts), set[Group]()
    for step in steps:
        waiting = list(counts)  # in their order: plans are the same every time
        while waiting and size(counts) < (1 - TOLERANCE) * target:
            group = min(waiting, key=lambda g: (g not in uneven, wish(counts, g, raised(g, step))))
            more = {**counts, group: raised(group, step)}
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
