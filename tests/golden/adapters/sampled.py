"""Large arrays are stored as every so many of their numbers, with their shape, mean and deviation."""

import numpy as np
import torch
from torch import Tensor

from .case import Case
from .weights import mean_std

BOUNDS = {"most": 1e-4, "all": 1e-3, "double": 1e-4}  # the reference ran in float32


def check(case: Case, name: str, value: Tensor, **bounds: float) -> None:
    """Compares ``value`` with what is stored as ``name``, whole or sampled."""
    bounds = BOUNDS | bounds
    if name in case:
        case.check(name, value, **bounds)
        return
    shape, step = case.take(f"{name}.shape").tolist(), int(case.take(f"{name}.step"))
    if list(value.shape) != shape:
        case.failures.append(f"{name}: shape {tuple(value.shape)}, expected {tuple(shape)}")
        value = value.new_full(shape, torch.nan)
    case.check(f"{name}.sample", value.reshape(-1)[::step], **bounds)
    case.check(f"{name}.mean_std", mean_std(value), **bounds)


def stored(case: Case, name: str) -> bool:
    return name in case or f"{name}.sample" in case


def cotangent(case: Case, output: Tensor) -> Tensor:
    """``grad_output`` as stored, or drawn from ``grad_output_seed``."""
    if "grad_output" in case:
        return case.take("grad_output")
    seed = int(case.take("grad_output_seed"))
    drawn = np.random.RandomState(seed).standard_normal(tuple(output.shape)).astype(np.float32)
    return torch.from_numpy(drawn).to(case.dtype)
