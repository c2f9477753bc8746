"""The public API is what ``public_names.json`` says: a name or an argument that goes, comes or moves shows in the diff.

After a deliberate change: ``python -m tests.test_public_names`` writes the file anew.
"""

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SNAPSHOT = Path(__file__).with_name("public_names.json")
# Packages export what their ``__all__`` lists; these modules, what they define without an underscore.
PACKAGES = ["ops", "layers", "losses", "metrics", "data", "video", "compress", "models"]
MODULES = [
    "checkpoints",
    "diffusion",
    "files",
    "inference",
    "recipe",
    "tasks.interpolation",
    "tasks.latent_interpolation",
    "training",
    "training_run",
    "compat.adacof",
]


def public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(name for name in own if not name.startswith("_"))


def signature(value: Any) -> str:
    """The argument names, kinds and plain defaults, without annotations (their text differs between Pythons)."""
    if not callable(value):
        return type(value).__name__
    try:
        found = inspect.signature(value)
    except (ValueError, TypeError):
        return "(...)"
    plain = (bool, int, float, str, type(None))
    arguments = []
    for argument in found.parameters.values():
        argument = argument.replace(annotation=inspect.Parameter.empty)
        if argument.default is not inspect.Parameter.empty and not isinstance(argument.default, plain):
            argument = argument.replace(default=...)
        arguments.append(argument)
    return str(inspect.Signature(arguments)).replace("Ellipsis", "...")


def describe(name: str, value: Any) -> dict[str, str]:
    """{dotted name: signature} of a function, or of a class and its own public methods."""
    found = {name: signature(value)}
    if inspect.isclass(value) and not issubclass(value, tuple):
        for method, function in vars(value).items():
            function = getattr(function, "__func__", function)
            own = inspect.isfunction(function) and function.__qualname__.startswith(f"{value.__name__}.")
            if not method.startswith("_") and own:  # torch puts a wrapped ``step`` on every optimizer that is made
                found[f"{name}.{method}"] = signature(function)
    return found


def surface() -> dict[str, str]:
    found: dict[str, str] = {}
    for part in PACKAGES + MODULES:
        module = importlib.import_module(f"vfikit.{part}")
        for name in public(module):
            found |= describe(f"vfikit.{part}.{name}", getattr(module, name))
    return dict(sorted(found.items()))


def test_public_names() -> None:
    now, before = surface(), json.loads(SNAPSHOT.read_text())
    changes = [f"gone: {name}{before[name]}" for name in before.keys() - now.keys()]
    changes += [f"new: {name}{now[name]}" for name in now.keys() - before.keys()]
    changes += [
        f"changed: {name}{before[name]} -> {now[name]}" for name in now.keys() & before if now[name] != before[name]
    ]
    assert not changes, "\n".join([*sorted(changes), "if this is meant: python -m tests.test_public_names"])


def test_fixed_names() -> None:
    """What users, tests and benchmarks call, whatever the snapshot says."""
    now = surface()
    assert now["vfikit.ops.adacof"] == "(input, weight, offset_i, offset_j, dilation=1)"
    assert now["vfikit.ops.AdaCoF"].startswith("(kernel_size, dilation=1")
    assert now["vfikit.ops.AdaCoF.forward"] == "(self, frame, weight, offset_i, offset_j)"
    assert now["vfikit.ops.backends"] == "()"
    assert now["vfikit.models.build"] == "(name, preset='published', **overrides)"
    assert now["vfikit.models.MODELS"] == "dict"
    assert now["vfikit.checkpoints.load_published"] == "(model, source)"
    assert now["vfikit.checkpoints.save"].startswith("(model, path")
    assert now["vfikit.checkpoints.load"].startswith("(path")
    assert now["vfikit.compress.OBProxSG"].startswith("(params, lr, lambda_, epochSize=None, Np=None, No=None, eps=0.0")
    for step in ("density", "plan", "resize", "distill", "report"):
        assert f"vfikit.compress.{step}" in now, f"vfikit.compress.{step} is missing"


def test_every_public_thing_is_documented() -> None:
    for part in PACKAGES + MODULES:
        module = importlib.import_module(f"vfikit.{part}")
        assert module.__doc__, f"vfikit.{part} has no docstring"
        for name in public(module):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                inherited = (None, torch.nn.Module.__doc__)
                assert value.__doc__ not in inherited, f"vfikit.{part}.{name} has no docstring"


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(surface(), indent=2) + "\n")
