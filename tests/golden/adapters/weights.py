"""Deterministic weights for a module that stands alone: ``meta.keys`` of a case, as names inside the module."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .case import DATA, Case, Published

COUNTERS = ("num_batches_tracked",)


def fill_module(
    case: Case,
    module: nn.Module,
    keys: Mapping[str, Sequence[int]],
    dead: Sequence[str] = (),
    renamed: tuple[str, str] = ("", ""),
) -> None:
    """Fills ``module`` with the tensors of ``keys``, every one of which it must have, but for the prefixes in ``dead``.

    Nothing else of the module may be left as it was, but counters. ``renamed`` is a part of the published names, and
    what we call it.
    """
    state = Published({"config": {}, "keys": keys, "left": [key for key in keys if key.endswith(COUNTERS)]})
    alive = {key: value for key, value in state.state_dict(1.0).items() if not key.startswith(tuple(dead))}
    load(module, {key.replace(*renamed): value for key, value in alive.items()})
    module.to(case.dtype).eval()


def key_file(case: Case, fits: Callable[[dict[str, Any]], bool]) -> Published:
    """The key file, beside the case or of ours, whose config ``fits``."""
    family = case.name.partition(".")[0]
    for folder in (case.path.parent, DATA):
        for path in sorted(folder.glob(f"{family}*.keys.json")):
            spec = json.loads(path.read_text())
            if fits(spec["config"]):
                return Published(spec)
    raise AssertionError(f"{case.name}: no key file has its config")


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``load_state_dict`` that excuses counters alone."""
    result = module.load_state_dict(state, strict=False)
    missing = [key for key in result.missing_keys if not key.endswith(COUNTERS)]
    assert not missing, f"{type(module).__name__}: no weights for {missing}"
    assert not result.unexpected_keys, f"{type(module).__name__}: no place for {result.unexpected_keys}"


def keep_output(module: nn.Module, taps: dict[str, Tensor], name: str) -> None:
    """Puts what ``module`` returns into ``taps[name]`` at every call."""
    module.register_forward_hook(lambda _module, _inputs, output: taps.__setitem__(name, output))


def keep_input(module: nn.Module, taps: dict[str, Tensor], name: str) -> None:
    """Puts what ``module`` is given into ``taps[name]`` at every call."""
    module.register_forward_pre_hook(lambda _module, inputs: taps.__setitem__(name, inputs[0]))


def mean_std(x: Tensor) -> Tensor:
    """(2,): mean and population deviation in float64."""
    x = x.double()
    return torch.stack([x.mean(), x.std(unbiased=False)])


def mixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Factors that mix (every name that ends in alpha) are half and four times what ``fill`` gives."""
    return {key: 0.5 + 4 * value if key.endswith("alpha") else value for key, value in state.items()}
