"""How much each group of channels matters to what comes out: measured, by cutting it alone."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import nn

from .compensate import Moments, compensate, removal_order
from .groups import Group

SHARES = (0.5, 0.875)  # of a group's units, removed to measure; what other counts lose is read off between


def sensitivity(
    model: nn.Module,
    groups: Sequence[Group],
    moments: Mapping[str, Moments],
    distance: Callable[[nn.Module], float],
) -> Iterator[tuple[Group, list[float]]]:
    """For each group, what is lost when only its n best units stay: ``distance`` squared, by n from 0 to all.

    ``distance(cut model)`` is how far its outputs are from those of ``model``: squares of errors that have nothing to
    do with each other add up. The kept units stand in for the others by least squares (``compensate``). Measured with
    half of the units and with an eighth; between, and beyond, the loss goes with a power of the share removed.
    """
    for group in groups:
        counts = sorted({max(1, round(group.units * (1 - share))) for share in SHARES} - {group.units})
        order = removal_order(model, group, moments, min(counts, default=1))
        measured = {n: distance(compensate(model, {group: order[-n:]}, moments)) ** 2 for n in counts}
        yield group, _curve(group.units, measured)


def _curve(units: int, measured: Mapping[int, float]) -> list[float]:
    """Loss by units left, from none to all: through what was measured, never less with fewer units."""
    if not measured:
        return [0.0] * (units + 1)
    removed = [1 - n / units for n in sorted(measured, reverse=True)]
    lost = np.maximum.accumulate([max(measured[n], 1e-30) for n in sorted(measured, reverse=True)])
    power = 2.0
    if len(removed) > 1:
        power = min(8.0, max(1.0, math.log(lost[-1] / lost[0]) / math.log(removed[-1] / removed[0])))
    shares = 1 - np.arange(units + 1) / units
    before = lost[0] * (shares / removed[0]) ** power
    after = lost[-1] * (shares / removed[-1]) ** power
    between = np.interp(shares, removed, lost)
    curve = np.where(shares <= removed[0], before, np.where(shares >= removed[-1], after, between))
    return [float(x) for x in curve]
