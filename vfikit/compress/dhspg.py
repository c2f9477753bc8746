"""DHSPG (arXiv:2303.06862): HSPG that reaches a given share of zero units, penalising the redundant ones only."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .importance import redundancy
from .unit_optimizer import UnitOptimizer
from .units import Unit


class DHSPG(UnitOptimizer):
    """SGD with ``momentum``, or Adam where ``betas`` are given, that ends with ceil(``target`` * G) units zero.

    At step ``start`` the most redundant share ``target + tolerance`` of the units is chosen; they are pulled towards
    zero with a strength between ``lambda_`` and ``cap * lambda_``, ``amplify`` times what makes their norm fall. From
    ``half_start`` on, a chosen unit whose step leaves less than the share ``eps`` of it becomes zero, those that leave
    least first, and never more than the target; a zero unit stays zero. Then the pull ends.

    ``divisor``: how many units stay in each of ``layers`` is a multiple of it, and layers of at most that many are not
    cut. The pull and ``weight_decay`` (decoupled) are kept out of the momentum. Of the last step: ``penalised`` (G,)
    bool, ``lambda_g`` and ``half_space_ratio`` (G,), NaN where they were not needed, ``penalty_on``; ``score`` (G,) is
    the redundancy that the units were chosen by.
    """

    kept = ("steps_done", "penalised", "score", "half_space_ratio", "lambda_g", "penalty_on")

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        units: Sequence[Unit],
        lr: float,
        target: float = 0.5,
        lambda_: float | None = None,
        amplify: float | None = None,
        cap: float | None = None,
        eps: float = 0.9,
        tolerance: float = 0.05,
        start: int = 0,
        half_start: int | None = None,
        divisor: int = 1,
        momentum: float = 0.0,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.0,
        layers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not 0 <= eps < 1 or not 0 <= target < 1:
            raise ValueError(f"DHSPG: eps {eps}, target {target}, expected both in [0, 1)")
        half_start = start if half_start is None else half_start
        if half_start < start or divisor < 1:
            raise ValueError(
                f"DHSPG: start {start}, half_start {half_start}, divisor {divisor}, "
                "expected start <= half_start and divisor >= 1"
            )
        published = (1e-3, 2.0, 10.0) if betas is None else (1e-2, 20.0, 1e3)
        lambda_, amplify, cap = (p if g is None else g for g, p in zip((lambda_, amplify, cap), published, strict=True))
        defaults = {"lr": lr, "lambda_": lambda_, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, units, layers, defaults)
        self.target, self.tolerance, self.amplify, self.cap, self.eps = target, tolerance, amplify, cap, eps
        self.start, self.half_start, self.divisor = start, half_start, divisor
        nothing = torch.full_like(self.units.sizes, torch.nan)
        self.penalised, self.penalty_on = torch.zeros_like(nothing, dtype=torch.bool), False
        self.score, self.lambda_g, self.half_space_ratio = nothing, nothing.clone(), nothing.clone()

    @property
    def wanted(self) -> int:
        """How many units are to be zero in the end."""
        return math.ceil(self.target * self.units.count)

    def update(self, lr: float) -> None:
        directions = self.plain_step(lr)
        dead = self.zero() if self.steps_done >= self.start else torch.zeros_like(self.penalised)
        if self.steps_done == self.start:
            self.score = redundancy(self.units, self.inside, directions)
            self.penalised = self._choose()
        room = self.wanted - int(dead.sum())
        self.penalty_on = self.steps_done >= self.start and room > 0
        pulled = self.penalised & ~dead if self.penalty_on else torch.zeros_like(dead)
        norms, toward = self.norms(), self.units.dot(self.inside, directions)
        strength = self._strength(norms, toward, self.units.dot(directions, directions))
        self.lambda_g = torch.where(pulled, strength, torch.nan)
        pull = torch.where(pulled, strength / norms, 0.0)
        decay = self.param_groups[0]["weight_decay"]
        moved = [
            x - lr * (d + self.units.spread(pull, i, x, 0.0) * x + decay * x)
            for i, (x, d) in enumerate(zip(self.inside, directions, strict=True))
        ]
        self.half_space_ratio = torch.full_like(norms, torch.nan)
        if self.penalty_on and self.steps_done >= self.half_start:
            self.half_space_ratio = torch.where(pulled, self.units.dot(moved, self.inside) / norms**2, torch.nan)
            ratio = self.half_space_ratio.nan_to_num(nan=math.inf)
            first = ratio.argsort(stable=True)[:room]
            dead[first[ratio[first] < self.eps]] = True
        for x, u in zip(self.inside, moved, strict=True):
            x.copy_(u)
        self.clear(dead)

    def _strength(self, norms: Tensor, toward: Tensor, squares: Tensor) -> Tensor:
        """lambda_g: more where the plain step would make the unit grow, less where that would no longer descend."""
        smallest = float(self.param_groups[0]["lambda_"])
        low, high = -toward / norms, -squares * norms / toward
        grown = (self.amplify * low).clamp(min=smallest).clamp(max=self.cap * smallest)
        grown = torch.where(grown >= high, (low + high) / 2, grown)
        return torch.where(toward >= 0, smallest, grown)

    def _choose(self) -> Tensor:
        """The most redundant units; in each layer as many stay as the divisor allows, the least redundant ones."""
        count = math.floor(self.units.count * min(self.target + self.tolerance, 0.999))
        chosen = torch.zeros_like(self.penalised)
        chosen[self.score.argsort(descending=True, stable=True)[:count]] = True
        for layer in self.units.layers:
            members = torch.tensor(layer, device=chosen.device)
            if len(layer) <= self.divisor:
                chosen[members] = False
                continue
            staying = int((~chosen[members]).sum())
            staying = max(math.floor(staying / self.divisor + 0.5), 1) * self.divisor
            by_score = members[self.score[members].argsort(stable=True)]
            chosen[by_score[:staying]], chosen[by_score[staying:]] = False, True
        return chosen
