"""How much a unit matters: scores of units of weights, most of them from one gradient. arXiv:2303.06862, 2409.09085."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .units import Units

SCORES = ("magnitude", "average_magnitude", "cosine", "taylor_1", "taylor_2")


def norms(units: Units, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """ "l1", "l2" norms of every unit, and by weight: "l1_mean" and the root mean square "l2_rms", (G,) each."""
    l1 = units.sum([x.abs() for x in weights])
    l2 = units.dot(weights, weights).sqrt()
    return {"l1": l1, "l2": l2, "l1_mean": l1 / units.sizes, "l2_rms": l2 / units.sizes.sqrt()}


def taylor_scores(units: Units, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    """ "taylor_group", |sum x grad|: how much the loss changes if the unit goes, to first order; and
    "taylor_elements", sum |x grad|: the upper bound, in which nothing cancels. (G,) each."""
    elements = units.sum([(x * g).abs() for x, g in zip(weights, gradients, strict=True)])
    return {"taylor_group": units.dot(weights, gradients).abs(), "taylor_elements": elements}


def norm_scale(units: Units, weights: Sequence[Tensor]) -> Tensor:
    """Mean |scale| of the norms in every unit (its one-dimensional weights), NaN where it has none: (G,)."""
    chosen = [n.endswith("weight") and x.ndim == 1 for n, x in zip(units.names, weights, strict=True)]
    parts = zip(weights, chosen, strict=True)
    total = units.sum([x.abs() if scale else torch.zeros_like(x) for x, scale in parts])
    parts = zip(weights, chosen, strict=True)
    count = units.sum([torch.full_like(x, float(scale)) for x, scale in parts])
    return torch.where(count > 0, total / count, torch.nan)


def redundancy(units: Units, weights: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """DHSPG's, higher for what is less needed: where descending shrinks a unit, where its weights are small. (G,)."""
    cosine = _cosine(units, weights, directions, of_zero=0.0)
    small = 1 / (units.dot(weights, weights).sqrt() / units.sizes + 1e-6)
    return 0.5 * _unit(cosine) + 0.5 * _unit(small)


def saliencies(units: Units, weights: Sequence[Tensor], directions: Sequence[Tensor]) -> dict[str, Tensor]:
    """HESSO's five scores, (G,) each: two of size, 1 - cos(weights, direction), two of the loss's change."""
    size, slope = units.dot(weights, weights).sqrt(), units.dot(weights, directions).abs()
    cosine = 1 - _cosine(units, weights, directions, of_zero=0.0)
    return dict(zip(SCORES, (size, size / units.sizes, cosine, slope, slope**2 / 2), strict=True))


def saliency(
    units: Units, weights: Sequence[Tensor], directions: Sequence[Tensor], shares: Mapping[str, float] | None = None
) -> Tensor:
    """The sum of ``saliencies``, each divided by its norm over all units, times ``shares`` (0.2 each): (G,)."""
    shares = dict.fromkeys(SCORES, 0.2) if shares is None else shares
    if unknown := set(shares) - set(SCORES):
        raise ValueError(f"saliency: got shares of {sorted(unknown)}, expected of {', '.join(SCORES)}")
    scores = saliencies(units, weights, directions)
    return torch.stack([share * _unit(scores[name]) for name, share in shares.items()]).sum(0)


def _cosine(units: Units, left: Sequence[Tensor], right: Sequence[Tensor], of_zero: float) -> Tensor:
    length = (units.dot(left, left) * units.dot(right, right)).sqrt()
    return torch.where(length > 0, units.dot(left, right) / length, of_zero)


def _unit(scores: Tensor) -> Tensor:
    length = scores.norm()
    return scores / length if length > 0 else scores
