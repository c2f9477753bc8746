"""Where the time goes: layers timed at several widths."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .budget import Budget
from .groups import Group

Curve = NDArray[np.float64]
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)  # of a layer's width, the widths that are timed


class LayerTimes:
    """Milliseconds of ``model(*inputs)``'s convolutions and linear layers as a function of what the groups keep.

    Each kind of layer runs alone, on the model's device, layout and data type, at some input and some output widths;
    in between is interpolated, and the two are taken to be independent. Median of ``rounds`` in turn.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any], budget: Budget, rounds: int = 5) -> None:
        self._budget = budget
        known: dict[Any, tuple[Curve, Curve]] = {}
        tables: list[tuple[Curve, Curve]] = []
        calls = _calls(model, inputs)
        for path in budget.paths:
            if path not in calls:  # grouped, or not called: no time of its own
                tables.append((np.zeros(1), np.zeros(1)))
                continue
            layer, x = calls[path]
            key = (type(layer), str(layer), tuple(x.shape), x.stride())
            if key not in known:
                known[key] = _curves(layer, x, rounds)
            tables.append(known[key])
        self._by_input, self._by_output = (_stack([pair[end] for pair in tables]) for end in (0, 1))
        self._rows = np.arange(len(tables))

    def __call__(self, counts: Mapping[Group, int]) -> float:
        inputs, outputs = self._budget.ends(counts)
        return float((self._by_input[self._rows, inputs] * self._by_output[self._rows, outputs]).sum())


def _stack(curves: list[Curve]) -> Curve:
    """One row a layer, padded at the end."""
    longest = max(map(len, curves))
    return np.stack([np.pad(curve, (0, longest - len(curve))) for curve in curves])


Layer = _ConvNd | nn.Linear


def _calls(model: nn.Module, inputs: Sequence[Any]) -> dict[str, tuple[Layer, Tensor]]:
    """The ungrouped convolutions and linear layers that ``model(*inputs)`` calls, each with its input."""
    found: dict[str, tuple[Layer, Tensor]] = {}

    def noting(path: str, layer: Layer) -> Callable[[nn.Module, Any], None]:
        def note(_: nn.Module, args: Any) -> None:
            found[path] = (layer, args[0].detach())

        return note

    hooks = [
        layer.register_forward_pre_hook(noting(path, layer))
        for path, layer in model.named_modules()
        if isinstance(layer, Layer) and getattr(layer, "groups", 1) == 1
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _curves(layer: Layer, x: Tensor, rounds: int) -> tuple[Curve, Curve]:
    """Milliseconds by input width, and what share of them remains by output width, both from 0 to the full width."""
    if isinstance(layer, _ConvNd):
        full_in, full_out = layer.in_channels, layer.out_channels
    else:
        full_in, full_out = layer.in_features, layer.out_features
    ins, outs = (sorted({max(1, round(width * share)) for share in SHARES}) for width in (full_in, full_out))
    runs = [_run(layer, x, i, full_out) for i in ins] + [_run(layer, x, full_in, o) for o in outs]
    taken: list[list[float]] = [[] for _ in runs]
    with torch.no_grad():
        for turn in range(rounds + 1):  # the first warms up
            for run, times in zip(runs, taken, strict=True):
                times.append(_milliseconds(run, x.is_cuda))
                if turn == 0:
                    times.clear()
    medians = np.array([statistics.median(times) for times in taken])
    by_input = np.interp(np.arange(full_in + 1), ins, medians[: len(ins)])
    by_output = np.interp(np.arange(full_out + 1), outs, medians[len(ins) :])
    return by_input, by_output / by_output[-1]


def _run(layer: Layer, x: Tensor, inputs: int, outputs: int) -> Callable[[], object]:
    axis = 1 if isinstance(layer, _ConvNd) else x.ndim - 1
    x = x.narrow(axis, 0, inputs).clone(memory_format=torch.preserve_format)
    shape = list(layer.weight.shape)
    shape[:2] = (inputs, outputs) if isinstance(layer, _ConvTransposeNd) else (outputs, inputs)
    made = copy.copy(layer)
    made._parameters = dict(layer._parameters)
    form = _layout(layer.weight)
    made.weight = nn.Parameter(layer.weight.detach().new_zeros(shape).normal_(0, 0.02).to(memory_format=form))
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach().new_zeros(outputs))
    return lambda: made(x)


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _milliseconds(run: Callable[[], object], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if on_gpu:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)
