"""Group-sparse trajectories and importance scores: stored gradients in; parameters, zeros and decisions out."""

from typing import Any

import torch
from torch import Tensor, nn

from vfikit.compress import DHSPG, HESSO, HSPG, Units, importance

from .case import Case


def hspg(case: Case) -> None:
    hyper = dict(case.meta["hyper"])
    schedule = hyper.pop("lr_schedule", None)
    hyper["lambda_"] = hyper.pop("lam")
    parameters, gradients = start(case)
    optimizer = HSPG(parameters.items(), case.meta["groups"], **hyper)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, **schedule) if schedule else None
    seen: dict[str, list[Any]] = {"stage": [], "lr": []}

    def before() -> None:
        seen["stage"].append(0 if optimizer.stage == "prox" else 1)
        seen["lr"].append(optimizer.param_groups[0]["lr"])

    found = trajectory(case, optimizer, parameters, gradients, ("half_space_ratio",), before, scheduler)
    case.check("stage", torch.tensor(seen["stage"]), all=0)
    case.check("lr", torch.tensor(seen["lr"], dtype=torch.float64), most=1e-12, all=1e-12)
    check(case, "half_space_ratio", torch.stack(found["half_space_ratio"]))


def dhspg(case: Case) -> None:
    hyper = dict(case.meta["hyper"])
    hyper["lambda_"] = hyper.pop("lam")
    parameters, gradients = start(case)
    layers = case.meta["layers"]
    optimizer = DHSPG(parameters.items(), case.meta["groups"], layers=layers, **hyper, **plain(case))
    names = ("penalised", "lambda_g", "half_space_ratio", "penalty_on")
    found = trajectory(case, optimizer, parameters, gradients, names)
    for name in ("penalised", "penalty_on"):
        case.check(name, torch.stack([torch.as_tensor(value) for value in found[name]]), all=0)
    for name in ("lambda_g", "half_space_ratio"):
        check(case, name, torch.stack(found[name]))
    check(case, "score", optimizer.score[None])


def hesso(case: Case) -> None:
    parameters, gradients = start(case)
    groups, hyper = case.meta["groups"], case.meta["hyper"]
    optimizer = HESSO(parameters.items(), groups, layers=case.meta["layers"], **hyper, **plain(case))
    found = trajectory(case, optimizer, parameters, gradients, ("saliency", "factor", "active"))
    check(case, "saliency", torch.stack(found["saliency"]))
    check(case, "factor", torch.tensor(found["factor"]))
    case.check("active", torch.stack(found["active"]), all=0)


def scores(case: Case) -> None:
    names = list(case.meta["parameters"])
    parameters = {name: case.take(f"param.{name}") for name in names}
    units = Units(parameters, case.meta["groups"], case.meta["layers"])
    gradients = {name: case.take(f"grad.{name}") for name in names}
    x, g = ([values[name] for name in units.names] for values in (parameters, gradients))
    found = importance.norms(units, x) | importance.taylor_scores(units, x, g)
    found |= {f"saliency.{name}": value for name, value in importance.saliencies(units, x, g).items()}
    found["saliency.combined"] = importance.saliency(units, x, g, case.meta["weights"])
    found["redundancy"] = importance.redundancy(units, x, g)
    found["norm_scale"] = importance.norm_scale(units, x)
    for name in found.keys() & case.arrays.keys():
        check(case, name, found[name])


def plain(case: Case) -> dict[str, Any]:
    """The plain optimizer's settings."""
    direction = dict(case.meta["direction"])
    adam = direction.pop("kind") == "adam"
    return {**({"betas": (0.9, 0.999)} if adam else {}), **direction}


def start(case: Case) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    names = list(case.meta["parameters"])
    case.skip("param.*", "read below")
    parameters = {name: nn.Parameter(case.take(f"param.{name}")[0].clone()) for name in names}
    return parameters, {name: case.take(f"grad.{name}") for name in names}


def trajectory(
    case: Case,
    optimizer: Any,
    parameters: dict[str, nn.Parameter],
    gradients: dict[str, Tensor],
    observed: tuple[str, ...],
    before: Any = None,
    scheduler: Any = None,
) -> dict[str, list[Any]]:
    history = {name: [parameter.detach().clone()] for name, parameter in parameters.items()}
    zero = [optimizer.zero()]
    found: dict[str, list[Any]] = {name: [] for name in observed}
    for step in range(case.meta["steps"]):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        if before:
            before()
        optimizer.step()
        if scheduler:
            scheduler.step()
        zero.append(optimizer.zero())
        for name, parameter in parameters.items():
            history[name].append(parameter.detach().clone())
        for name in observed:
            value = getattr(optimizer, name)
            found[name].append(value.clone() if isinstance(value, Tensor) else value)
    for name, values in history.items():
        check(case, f"param.{name}", torch.stack(values))
    case.check("zero", torch.stack(zero), all=0)
    return found


def check(case: Case, name: str, value: Tensor) -> None:
    """As tight as decisions at thresholds ask for; what was not needed is NaN here and there alike."""
    stored = torch.from_numpy(case.arrays[name])
    if stored.is_floating_point() and stored.isnan().any():
        if not torch.equal(stored.isnan(), value.isnan()):
            case.failures.append(f"{name}: is NaN elsewhere")
        case.arrays[name], value = stored.nan_to_num().numpy(), value.nan_to_num()
    case.check(name, value, most=1e-5, all=1e-5)
