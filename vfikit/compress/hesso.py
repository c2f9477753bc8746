"""HESSO (arXiv:2409.09085): the least salient units fade to zero in a given number of steps, as many as asked."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from .importance import saliency
from .unit_optimizer import UnitOptimizer
from .units import Unit


class HESSO(UnitOptimizer):
    """SGD with ``momentum``, or Adam where ``betas`` are given, that ends with floor(``target`` * G) units zero.

    From step ``start`` on, ``pruning_steps`` are divided into ``periods`` of equal length. At the first step of each,
    its share of the units, the least salient not yet chosen, becomes ``active``; in the period's steps they are
    multiplied by factors that fade them linearly to zero, and stay zero. All other units take the plain step.

    ``weights`` of the five scores of ``importance.saliency`` (0.2 each). No strength to tune, ``weight_decay`` is
    decoupled. Of the last step: ``active`` (G,) bool, ``factor``, and ``saliency`` (G,), NaN where none was computed.
    """

    kept = ("steps_done", "active", "pruned", "factor", "saliency")

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        units: Sequence[Unit],
        lr: float,
        pruning_steps: int,
        target: float = 0.5,
        start: int = 0,
        periods: int = 1,
        weights: Mapping[str, float] | None = None,
        momentum: float = 0.0,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.0,
        layers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not 0 <= target < 1 or not 1 <= periods <= pruning_steps:
            raise ValueError(
                f"HESSO: target {target}, periods {periods}, pruning_steps {pruning_steps}, "
                "expected 0 <= target < 1 and 1 <= periods <= pruning_steps"
            )
        super().__init__(
            params, units, layers, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        )
        self.target, self.start, self.periods, self.length = target, start, periods, pruning_steps // periods
        self.score_weights = weights
        self.active = torch.zeros(self.units.count, dtype=torch.bool, device=self.units.sizes.device)
        self.pruned = self.active.clone()  # chosen in an earlier period: zero
        self.factor = 1.0
        self.saliency = torch.full_like(self.units.sizes, torch.nan)

    @property
    def wanted(self) -> int:
        """How many units are to be zero in the end."""
        return math.floor(self.units.count * min(self.target, 0.999))

    def update(self, lr: float) -> None:
        directions = self.plain_step(lr)
        period, k = divmod(self.steps_done - self.start, self.length)
        fading = 0 <= period < self.periods
        self.saliency = torch.full_like(self.saliency, torch.nan)
        if fading and k == 0:
            self.saliency = saliency(self.units, self.inside, directions, self.score_weights)
            self._choose(period)
        self.factor = (self.length - k - 1) / (self.length - k) if fading else 1.0
        decay = 1 - lr * self.param_groups[0]["weight_decay"]
        factors = torch.where(self.active, self.factor, 1.0).double()
        for i, (x, direction) in enumerate(zip(self.inside, directions, strict=True)):
            x.mul_(decay).sub_(direction, alpha=lr).mul_(self.units.spread(factors, i, x, 1.0))
        if fading and k == self.length - 1:
            self.pruned, self.active = self.pruned | self.active, torch.zeros_like(self.active)
        self.clear(self.pruned)

    def _choose(self, period: int) -> None:
        share = self.wanted // self.periods
        count = self.wanted - share * (self.periods - 1) if period == self.periods - 1 else share
        order = torch.where(self.pruned, math.inf, self.saliency).argsort(stable=True)
        self.active = torch.zeros_like(self.pruned)
        self.active[order[:count]] = True
