"""What the references and launches of the sampling ops share: pixels at flat positions, the type of the arithmetic."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import _cuda

Launch = Callable[[str, Sequence[Tensor | None], Sequence[int]], None]


def check_floating(op: str, *tensors: Tensor | None) -> None:
    """Raises ``TypeError`` for what is no tensor and ``ValueError`` for one that is not of real floating point."""
    for tensor in tensors:
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: got a {type(tensor).__name__}, expected tensors")
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{op}: got a tensor {tuple(tensor.shape)} of {tensor.dtype}, expected floating point")


def read(flat: Tensor, position: Tensor) -> Tensor:
    """The pixels of ``flat`` (N, C, H' * W') at ``position`` (N, H, W): (N, C, H, W)."""
    index = position.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).unflatten(2, position.shape[1:])


def add(flat: Tensor, position: Tensor, values: Tensor) -> None:
    """Adds ``values`` (N, C, H, W) to the pixels of ``flat`` (N, C, H' * W') at ``position`` (N, H, W)."""
    if flat.is_cuda and torch.are_deterministic_algorithms_enabled():  # scatter_add_ has no fixed order there
        items, channels = torch.arange(flat.shape[0]), torch.arange(flat.shape[1])
        where = (items[:, None, None].to(flat.device), channels[:, None].to(flat.device), position.flatten(1)[:, None])
        flat.index_put_(where, values.flatten(2), accumulate=True)
    else:
        flat.scatter_add_(2, position.flatten(1)[:, None].expand(-1, flat.shape[1], -1), values.flatten(2))


def compute_type(*tensors: Tensor) -> torch.dtype:
    """The widest of the tensors' types, float32 at least."""
    return functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)


def stored_type(launch: Launch, *tensors: Tensor) -> torch.dtype:
    """What kernels read and write: the CUDA ones convert half types as they go, the CPU ones want them converted."""
    alike = len({t.dtype for t in tensors}) == 1
    return tensors[0].dtype if alike and launch is _cuda.launch else compute_type(*tensors)
