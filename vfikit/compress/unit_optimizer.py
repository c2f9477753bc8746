"""What the group-sparse optimizers share: parameters by name, their units, the plain step's direction, saving."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from .units import Unit, Units


class UnitOptimizer(Optimizer):
    """Calls ``update(lr)`` once a step; ``params`` are a module's ``named_parameters()``, in one group.

    A parameter in no unit takes the plain step. One in units whose gradient is None counts as having gradient zero,
    one in no unit is skipped. ``kept`` names the attributes (tensors, numbers) that ``state_dict()`` has to hold.
    """

    kept: tuple[str, ...] = ("steps_done",)

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        units: Sequence[Unit],
        layers: Sequence[Sequence[int]] | None,
        defaults: dict[str, Any],
    ) -> None:
        named = dict(params)
        for name, value in defaults.items():
            if isinstance(value, float | int) and not isinstance(value, bool) and not value >= 0:
                raise ValueError(f"{type(self).__name__}: {name} is {value}, expected at least 0")
        super().__init__(list(named.items()), defaults)
        if len(self.param_groups) != 1:
            raise ValueError(f"{type(self).__name__}: got {len(self.param_groups)} parameter groups, expected one")
        self.units = Units(named, units, layers)
        inside = set(self.units.names)
        self.inside = [named[name] for name in self.units.names]
        self.outside = [tensor for name, tensor in named.items() if name not in inside]
        self.steps_done = 0

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure``, if given, is called with gradients enabled and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for tensor in (*self.inside, *self.outside):
            if tensor.grad is not None and tensor.grad.is_sparse:
                raise ValueError(f"{type(self).__name__}: got a sparse gradient, expected dense ones")
        self.update(float(self.param_groups[0]["lr"]))
        self.steps_done += 1
        return loss

    def update(self, lr: float) -> None:
        raise NotImplementedError

    def norms(self) -> Tensor:
        """||x_g|| of every unit: (G,) float64."""
        return self.units.dot(self.inside, self.inside).sqrt()

    def zero(self) -> Tensor:
        """Which units are all zero: (G,) bool."""
        return self.units.sum([(x != 0).to(x.dtype) for x in self.inside]) == 0

    @property
    def sparsity(self) -> float:
        """Share of units that are all zero."""
        return float(self.zero().double().mean()) if self.units.count else 0.0

    def gradients(self) -> list[Tensor]:
        """Of the parameters in units; zeros for those that have none."""
        return [torch.zeros_like(x) if x.grad is None else x.grad for x in self.inside]

    def direction(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The plain optimizer's: Adam's where the group has ``betas``, else SGD's with ``momentum``."""
        settings, state = self.param_groups[0], self.state[x]
        if (betas := settings.get("betas")) is not None:
            step = self.steps_done + 1
            first, second = (state.setdefault(name, torch.zeros_like(x)) for name in ("first", "second"))
            first.lerp_(gradient, 1 - betas[0])
            second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
            root = (second / (1 - betas[1] ** step)).sqrt_().add_(1e-8)
            return first / (1 - betas[0] ** step) / root
        if not settings.get("momentum"):
            return gradient
        buffer: Tensor = state.setdefault("momentum", torch.zeros_like(x))
        return buffer.mul_(settings["momentum"]).add_(gradient)

    def plain_step(self, lr: float) -> list[Tensor]:
        """Moves what is in no unit; returns the directions of what is, for the optimizer to use."""
        decay = 1 - lr * self.param_groups[0].get("weight_decay", 0.0)
        for x in self.outside:
            if x.grad is not None:
                x.mul_(decay).sub_(self.direction(x, x.grad), alpha=lr)
        return [self.direction(x, g) for x, g in zip(self.inside, self.gradients(), strict=True)]

    def clear(self, dead: Tensor) -> None:
        """Sets the units ``dead`` (G,) to zero, and what the plain optimizer remembers of them."""
        alive = (~dead).double()
        for i, x in enumerate(self.inside):
            mask = self.units.spread(alive, i, x, 1.0)
            for tensor in (x, *(value for value in self.state[x].values() if isinstance(value, Tensor))):
                tensor.masked_fill_(mask == 0, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """torch's, with the counters and sets: resuming from it gives the same trajectory bit by bit."""
        return {**super().state_dict(), "sparsity": {name: getattr(self, name) for name in self.kept}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ``ValueError`` where the counters are missing: without them the schedule would start again."""
        saved = state_dict.get("sparsity", {})
        if set(saved) != set(self.kept):
            raise ValueError(f"{type(self).__name__}: state dict has {sorted(saved)}, expected {sorted(self.kept)}")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "sparsity"})
        for name, value in saved.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)
