"""The order of cuts: the next one is always what loses least for what it saves."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .budget import Counts
from .groups import Group

Size = Callable[[Mapping[Group, int]], float]
Losses = Mapping[Group, Sequence[float]]  # what goes when the n best units stay, by n from 0 to all


def cuts(size: Size, losses: Losses, round_to: int, floor: float) -> list[Counts]:
    """Ever smaller counts, from the whole network on, by what is lost for what ``size`` (time, parameters) falls.

    A group's widths are multiples of ``round_to`` (below it, of a quarter), without those that ``size`` does not favour
    over a larger one, and not under ``floor`` of the full one.
    """
    whole = {group: group.units for group in losses}
    options = {group: _options(group, size, whole, round_to, floor) for group in losses}
    counts, now, path = dict(whole), size(whole), [dict(whole)]

    def offer(place: int, group: Group) -> tuple[float, int, Group, int, float] | None:
        fewer = next((n for n in options[group] if n < counts[group]), None)
        if fewer is None:
            return None
        then = size({**counts, group: fewer})
        price = (losses[group][fewer] - losses[group][counts[group]]) / max(now - then, 1e-12)
        return price, place, group, fewer, then

    # prices only rise, as other cuts leave less to save: one that is still the least when asked again is the least
    offers = [found for place, group in enumerate(losses) if (found := offer(place, group))]
    heapq.heapify(offers)
    while offers:
        _, place, group, _, _ = heapq.heappop(offers)
        found = offer(place, group)
        if found is None:
            continue
        if offers and found[:2] > offers[0][:2]:
            heapq.heappush(offers, found)
            continue
        counts[group], now = found[3:]
        path.append(dict(counts))
        if (further := offer(place, group)) is not None:
            heapq.heappush(offers, further)
    return path


def by_importance(importance: Mapping[Group, Tensor]) -> Losses:
    """From a score a unit: the share of a group's sum that goes with all but the n best."""
    losses = {}
    for group, scores in importance.items():
        ordered = scores.double().sort(descending=True).values
        kept = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
        losses[group] = (1 - kept / kept[-1].clamp(min=1e-30)).tolist()
    return losses


def _options(group: Group, size: Size, whole: Counts, round_to: int, floor: float) -> list[int]:
    """Counts to choose from, largest first; each is smaller in ``size`` than all before it."""
    least = max(1, math.ceil(floor * group.units))
    found, smallest = [], math.inf
    for count in range(group.units, least - 1, -1):
        width = count * group.unit_size
        step = round_to if width > round_to else max(1, round_to // 4)
        if width % step and count not in (group.units, least):
            continue
        taken = size({**whole, group: count})
        if taken < smallest:
            found.append(count)
            smallest = taken
    return found
