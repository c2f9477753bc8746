"""OBProx-SG (arXiv:2004.03639): stochastic gradient descent that makes most weights exactly zero."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from vfikit.ops import _cpu

# Elements that torch works on at a time on a CPU: the temporaries of one piece stay in the cache, so a step costs one
# pass over parameters and gradients instead of one per arithmetic operation. Measured best of 2^14 .. 2^19 on AdaCoF.
_PIECE = 1 << 18


class OBProxSG(Optimizer):
    """Minimises f(x) + ``lambda_`` * ||x||_1 over all parameters given to it, biases included.

    The first ``Np`` epochs of ``epochSize`` calls are proximal steps (soft thresholding), the next ``No`` orthant
    steps (a weight that would change sign, or end within ``eps`` of zero, becomes zero and stays so); then it repeats.
    ``No="inf"``, the default, stays in the orthant phase for good. ``epochSize`` 0 or 1 makes each call an epoch.

    ``lr``, ``lambda_`` and ``eps`` may differ by parameter group; the others and the counters ``step_count`` (epochs)
    and ``iter`` (calls in this epoch) belong to the optimizer and are in ``state_dict()``. ``epoch_size``, ``n_prox``
    and ``n_orthant`` are other names for ``epochSize``, ``Np`` and ``No``. Parameters without a gradient are skipped.
    There is no momentum and no weight decay. Negative arguments, and ``Np`` and ``No`` both zero, raise ``ValueError``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        lambda_: float,
        epochSize: int | None = None,
        Np: int | None = None,
        No: float | Literal["inf"] | None = None,
        eps: float = 0.0,
        *,
        epoch_size: int | None = None,
        n_prox: int | None = None,
        n_orthant: float | Literal["inf"] | None = None,
    ) -> None:
        self.epoch_size = _one_of("epochSize", epochSize, "epoch_size", epoch_size)
        self.n_prox = _one_of("Np", Np, "n_prox", n_prox)
        self.n_orthant = float(_one_of("No", No, "n_orthant", n_orthant, default="inf"))
        for name, value in (("epochSize", self.epoch_size), ("Np", self.n_prox), ("No", self.n_orthant)):
            _check_not_negative(name, value)
        if self.n_prox + self.n_orthant == 0:
            raise ValueError("OBProxSG: Np and No are both 0, expected at least one phase to last an epoch")
        self.step_count = 0
        self.iter = 0
        super().__init__(params, {"lr": lr, "lambda_": lambda_, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; its ``lr``, ``lambda_`` and ``eps``, where given, must not be negative."""
        for name in ("lr", "lambda_", "eps"):
            _check_not_negative(name, param_group.get(name, self.defaults[name]))
        super().add_param_group(param_group)

    @property
    def phase(self) -> Literal["prox", "orthant"]:
        """What the next call of ``step`` does."""
        return "prox" if self.step_count % (self.n_prox + self.n_orthant) < self.n_prox else "orthant"

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
        prox = self.phase == "prox"
        for group in self.param_groups:
            numbers = float(group["lr"]), float(group["lambda_"]), float(group["eps"])
            elsewhere: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
            for x in group["params"]:
                if x.grad is None:
                    continue
                if x.grad.is_sparse:
                    raise ValueError("OBProxSG: got a sparse gradient, expected dense ones")
                if x.device.type == "cpu":
                    _step_cpu(prox, *_flatten_alike(x, x.grad), *numbers)
                else:
                    xs, gs = elsewhere.setdefault((x.device, x.dtype), ([], []))
                    xs.append(x)
                    gs.append(x.grad)
            for xs, gs in elsewhere.values():
                (_prox_all if prox else _orthant_all)(xs, gs, *numbers)
        self.iter += 1
        if self.iter >= self.epoch_size:
            self.step_count, self.iter = self.step_count + 1, 0
        return loss

    def state_dict(self) -> dict[str, Any]:
        """torch's, with the counters: resuming from it gives the same trajectory bit by bit."""
        return {**super().state_dict(), "step_count": self.step_count, "iter": self.iter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ``ValueError`` where the counters are missing: without them the prox phase would start again."""
        if not {"step_count", "iter"} <= state_dict.keys():
            raise ValueError(f"OBProxSG: state dict has {sorted(state_dict)}, expected step_count and iter among them")
        super().load_state_dict({key: state_dict[key] for key in state_dict if key not in ("step_count", "iter")})
        self.step_count, self.iter = int(state_dict["step_count"]), int(state_dict["iter"])

    def __getstate__(self) -> dict[str, Any]:  # torch's keeps three attributes only; a copy needs the phase as well
        names = ("epoch_size", "n_prox", "n_orthant", "step_count", "iter")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in names}}


def lambda_for(params: Iterable[Tensor], lr: float, steps: int, keep: float) -> float:
    """The ``lambda_`` that takes all but the largest share ``keep`` of the weights to zero in ``steps`` prox steps.

    That is where the loss does not hold them; where it does, more stay. Scalars and vectors (biases, norms) are left
    out of the count.
    """
    if not 0 < keep <= 1 or lr <= 0 or steps < 1:
        raise ValueError(f"lambda_for: keep {keep}, lr {lr}, steps {steps}, expected 0 < keep <= 1, lr > 0, steps > 0")
    sizes = torch.cat([x.detach().abs().flatten().float().cpu() for x in params if x.ndim > 1]).numpy()
    rank = int((1 - keep) * (len(sizes) - 1))
    sizes.partition(rank)  # in place: sorting those of a large network takes a minute
    return float(sizes[rank]) / (lr * steps)


def _one_of(name: str, value: Any, alias: str, other: Any, default: Any = None) -> Any:
    if value is not None and other is not None:
        raise TypeError(f"OBProxSG: got both {name} and {alias}, expected one of them")
    value = other if value is None else value
    if value is None and default is None:
        raise TypeError(f"OBProxSG: missing argument {name} (or {alias})")
    return default if value is None else value


def _check_not_negative(name: str, value: float) -> None:
    if math.isnan(value) or value < 0:
        raise ValueError(f"OBProxSG: {name} is {value}, expected at least 0")


def _flatten_alike(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """One-dimensional views of both in memory order; where they are laid out differently, along their first axis."""
    if x.is_contiguous() and grad.is_contiguous():
        return x.view(-1), grad.view(-1)
    order = sorted(range(x.ndim), key=lambda axis: x.stride()[axis], reverse=True)
    x, grad = x.permute(order), grad.permute(order)
    if x.is_contiguous() and grad.is_contiguous():
        return x.view(-1), grad.view(-1)
    return x, grad


def _step_cpu(prox: bool, x: Tensor, grad: Tensor, *numbers: float) -> None:
    """By the compiled kernel, in about the time that memory takes; else piece by piece, to the same numbers."""
    flat = x.ndim == 1 and x.is_contiguous() and grad.is_contiguous()
    if flat and x.dtype == grad.dtype and x.dtype in (torch.float32, torch.float64) and _cpu.available():
        _cpu.launch(f"obproxsg_{'prox' if prox else 'orthant'}", (x, grad), (len(x),), numbers)
        torch.autograd.graph.increment_version(x)  # a backward pass that still needs the old values raises
        return
    for piece, part in zip(x.split(_PIECE), grad.split(_PIECE)):
        (_prox if prox else _orthant)(piece, part, *numbers)


def _prox(x: Tensor, g: Tensor, lr: float, lambda_: float, eps: float) -> None:
    """x <- x + (t - x), t = u - lr lambda, u + lr lambda or 0 by the sign of each, u = x - lr g."""
    moved = torch.mul(g, lr)  # rounded by itself, as published: add's alpha would fuse it into the addition
    torch.sub(x, moved, out=moved)
    torch.ops.aten.softshrink.out(moved, lr * lambda_, out=moved)
    x.add_(moved.sub_(x))


def _orthant(x: Tensor, g: Tensor, lr: float, lambda_: float, eps: float) -> None:
    """x <- h where h sign(x) > eps, else 0; h = x - lr (g + lambda sign(x))."""
    sign = torch.sign(x)
    x.sub_(torch.add(g, sign, alpha=lambda_).mul_(lr))  # where x was 0, sign is 0 and the mask below closes
    torch.ops.aten.threshold_backward.grad_input(x, sign.mul_(x), eps, grad_input=x)


def _prox_all(xs: list[Tensor], gs: list[Tensor], lr: float, lambda_: float, eps: float) -> None:
    """``_prox`` of a list in few launches."""
    moved = torch._foreach_mul(gs, -lr)
    torch._foreach_add_(moved, xs)
    within = torch._foreach_clamp_min(moved, -(lr * lambda_))
    torch._foreach_clamp_max_(within, lr * lambda_)
    torch._foreach_sub_(moved, within)  # the shrunk values: 0 inside the threshold, nearer to 0 by it outside
    torch._foreach_sub_(moved, xs)
    torch._foreach_add_(xs, moved)


def _orthant_all(xs: list[Tensor], gs: list[Tensor], lr: float, lambda_: float, eps: float) -> None:
    """``_orthant`` of a list in few launches."""
    sign = torch._foreach_sign(xs)
    direction = torch._foreach_add(gs, sign, alpha=lambda_)
    torch._foreach_mul_(direction, lr)
    torch._foreach_sub_(xs, direction)
    torch._foreach_mul_(sign, xs)
    torch._foreach_sub_(sign, eps)
    torch._foreach_sign_(sign)
    torch._foreach_clamp_min_(sign, 0.0)  # 1 where h sign(x) > eps, else 0
    torch._foreach_mul_(xs, sign)
