"""HSPG, the half-space projected gradient (arXiv:2009.12078): whole units of weights become exactly zero."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from .unit_optimizer import UnitOptimizer
from .units import Unit


class HSPG(UnitOptimizer):
    """Minimises f(x) + ``lambda_`` * sum over units of w_g ||x_g||, for units as ``Units`` describes them.

    The first ``n_prox`` steps are proximal: a unit within ``lr * lambda_ * w_g`` of zero becomes zero, and may come
    back. From then on the half-space steps: a unit whose step leaves less than the share ``eps`` of it (in [0, 1): by
    the projection on where it was) becomes zero and stays so. Larger ``eps`` zeroes more and asks for smaller steps.

    ``weights`` are w_g: 1, "sqrt" for the root of the unit's size, or one number a unit. No momentum, as published.
    ``stage`` says what the next step does; ``half_space_ratio`` (G,) is what the last half-space step compared with
    ``eps``, NaN in the proximal stage and for units that were zero.
    """

    kept = ("steps_done", "half_space_ratio")

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        units: Sequence[Unit],
        lr: float,
        lambda_: float = 1e-3,
        n_prox: int = 0,
        eps: float = 0.9,
        weights: Literal["one", "sqrt"] | Sequence[float] = "one",
        layers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not 0 <= eps < 1:
            raise ValueError(f"HSPG: eps is {eps}, expected 0 <= eps < 1")
        super().__init__(params, units, layers, {"lr": lr, "lambda_": lambda_})
        self.eps, self.n_prox = eps, n_prox
        if isinstance(weights, str):
            self.weights = self.units.sizes.sqrt() if weights == "sqrt" else torch.ones_like(self.units.sizes)
        elif len(weights) == self.units.count:
            self.weights = torch.as_tensor(weights, dtype=torch.float64).to(self.units.sizes)
        else:
            raise ValueError(f"HSPG: got {len(weights)} weights, expected one for each of {self.units.count} units")
        self.half_space_ratio = torch.full_like(self.weights, torch.nan)

    @property
    def stage(self) -> Literal["prox", "half-space"]:
        """What the next call of ``step`` does."""
        return "prox" if self.steps_done < self.n_prox else "half-space"

    def update(self, lr: float) -> None:
        shrink = float(self.param_groups[0]["lambda_"]) * self.weights
        if self.stage == "prox":
            self._prox(lr, shrink)
        else:
            self._half_space(lr, shrink)

    def _prox(self, lr: float, shrink: Tensor) -> None:
        for x, direction in zip(self.inside, self.plain_step(lr), strict=True):
            x.sub_(direction, alpha=lr)
        norms = self.norms()
        factor = torch.where(norms > lr * shrink, 1 - lr * shrink / norms, 0.0)
        for i, x in enumerate(self.inside):
            x.mul_(self.units.spread(factor, i, x, 1.0))
        self.half_space_ratio = torch.full_like(norms, torch.nan)

    def _half_space(self, lr: float, shrink: Tensor) -> None:
        norms, dead = self.norms(), self.zero()
        pull = torch.where(dead, 0.0, shrink / norms)
        moved = []
        for i, (x, direction) in enumerate(zip(self.inside, self.plain_step(lr), strict=True)):
            moved.append(x - lr * (direction + self.units.spread(pull, i, x, 0.0) * x))
        self.half_space_ratio = torch.where(dead, torch.nan, self.units.dot(moved, self.inside) / norms**2)
        for x, u in zip(self.inside, moved, strict=True):
            x.copy_(u)
        self.clear(dead | (self.half_space_ratio < self.eps))
