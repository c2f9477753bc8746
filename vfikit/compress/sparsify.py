"""The sparsifying optimizers by name, with the settings that bring a network to a wanted share in so many steps."""

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

from .cost import parameters
from .dhspg import DHSPG
from .groups import Group
from .hesso import HESSO
from .hspg import HSPG
from .obproxsg import OBProxSG, lambda_for
from .units import of_groups

Sparsifier = Literal["obproxsg", "hspg", "dhspg", "hesso"]
_SGD_LR, _ADAM_LR = 0.2, 5e-4  # plain gradient steps, their norms clipped at 1, are far larger than Adam's


def sparsifier(kind: Sparsifier, model: nn.Module, groups: Iterable[Group], steps: int, keep: float) -> Any:
    """The optimizer that is to leave about the share ``keep`` of ``model`` after ``steps`` steps.

    ``obproxsg`` makes single weights zero, the others whole units of ``groups`` (a coupling's): HSPG as many as its
    penalty reaches, DHSPG and HESSO exactly ``1 - keep`` of them (rounded up and down).
    """
    if kind == "obproxsg":
        lambda_ = lambda_for(model.parameters(), _SGD_LR, steps, keep)
        return OBProxSG(model.parameters(), _SGD_LR, lambda_, epochSize=max(1, steps // 5), Np=4)
    named = dict(model.named_parameters())
    units, layers = of_groups(groups, named)
    if kind == "hspg":
        return HSPG(named.items(), units, _SGD_LR, n_prox=steps // 4, weights="sqrt", layers=layers)
    settings: dict[str, Any] = {"lr": _ADAM_LR, "target": 1 - keep, "betas": (0.9, 0.999), "layers": layers}
    if kind == "dhspg":
        return DHSPG(named.items(), units, start=steps // 10, half_start=steps // 4, **settings)
    if kind == "hesso":
        return HESSO(named.items(), units, pruning_steps=max(1, 4 * steps // 5), **settings)
    raise ValueError(f"sparsifier: kind is {kind!r}, expected obproxsg, hspg, dhspg or hesso")


def zero_share(model: nn.Module, optimizer: Any) -> float:
    """The share that is zero now: of units where ``optimizer`` knows them, else of ``model``'s weights."""
    if isinstance(optimizer, OBProxSG):
        return float(sum((p == 0).sum() for p in model.parameters())) / parameters(model)
    return float(optimizer.sparsity)
