"""Imports go strictly down, same level only inside one package; optional packages stay out of the core."""

import ast
import sys
from pathlib import Path

import pytest

from .repo import imports, module_name, parse, python_files

LEVELS = {
    "vfikit": 0,  # __init__: nothing but the version
    "vfikit.files": 0,  # standard library only
    "vfikit.ops": 0,
    "vfikit.layers": 1,
    "vfikit.ema": 1,
    "vfikit.diffusion": 2,
    "vfikit.losses": 2,
    "vfikit.metrics": 2,
    "vfikit.inference": 2,
    "vfikit.data": 2,
    "vfikit.video": 2,
    "vfikit.compress": 2,
    "vfikit.models": 3,
    "vfikit.checkpoints": 4,
    "vfikit.tasks": 4,
    "vfikit.compat": 4,
    "vfikit.recipe": 5,  # the frame of every recipe: loads what the user named
    "vfikit.training": 5,
    "vfikit.training_run": 6,
    "vfikit.evaluation": 5,  # the report of recipes/evaluate.py
    "vfikit.compression": 6,  # the steps that recipes/compress.py and the proof of it share
    "recipes": 7,
    "benchmarks": 7,
    "integrations": 7,
}
SAME_LEVEL = {
    ("vfikit.compress", "vfikit.metrics"),  # the report measures quality
    ("vfikit.data", "vfikit.video"),  # clips are read from videos
}
# What a part may import from outside; a part that is not named may import anything.
OUTSIDE = {
    "vfikit": set(),
    "vfikit.files": set(),
    "vfikit.ops": {"torch", "numpy", "cupy"},  # cupy: inside functions only
    "vfikit.layers": {"torch", "numpy", "einops"},
    "vfikit.losses": {"torch", "numpy", "einops"},
    "vfikit.inference": {"torch", "numpy", "einops"},
    "vfikit.ema": {"torch"},
    "vfikit.diffusion": {"torch", "numpy", "einops", "diffusers"},
    "vfikit.models": {"torch", "numpy", "einops", "safetensors", "diffusers", "transformers"},  # these inside functions
    "vfikit.checkpoints": {"torch", "numpy", "safetensors"},
}
FILES = python_files("vfikit", "recipes", "benchmarks", "integrations")


def part(module: str) -> str:
    """The row of ``LEVELS`` that a module belongs to."""
    names = module.split(".")
    top = ".".join(names[:2]) if names[0] == "vfikit" and len(names) > 1 else names[0]
    return top if top in LEVELS or names[0] != "vfikit" else f"{top} (not in the layout)"


def resolve(name: str) -> str:
    """``from vfikit import ops`` is an import of ``vfikit.ops``; ``from vfikit import __version__`` of ``vfikit``."""
    return "vfikit" if name == "vfikit.__version__" else part(name)


def violation(path: Path, name: str) -> str | None:
    here, there = part(module_name(path)), resolve(name)
    if there.split(".")[0] not in {"vfikit", "recipes", "benchmarks", "integrations"}:
        allowed = OUTSIDE.get(here)
        outside = there not in sys.stdlib_module_names and allowed is not None and there not in allowed
        return f"{here} may import {sorted(allowed or ())} from outside" if outside else None
    if there not in LEVELS or here not in LEVELS:
        return f"{there if there not in LEVELS else here} has no level"
    if here == there:
        return "recipes never import each other" if here == "recipes" else None
    if LEVELS[there] < LEVELS[here]:
        return None
    return None if (here, there) in SAME_LEVEL else f"level {LEVELS[here]} imports {there}, level {LEVELS[there]}"


def test_every_file_has_a_level() -> None:
    unknown = [str(path) for path in FILES if part(module_name(path)) not in LEVELS]
    assert not unknown, f"not in the layout: {unknown}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path: Path) -> None:
    wrong = [f"{path}:{line}: {name}: {rule}" for line, name in imports(path) if (rule := violation(path, name))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", python_files("vfikit"), ids=str)
def test_no_import_by_string_or_star(path: Path) -> None:
    """An import that the layering test cannot see would be no rule at all."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            hidden = called == "__import__" or called.endswith("import_module")
            assert not hidden or "vfikit" not in ast.unparse(node), f"{path}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom):
            assert node.names[0].name != "*", f"{path}:{node.lineno}: star import"


@pytest.mark.parametrize("path", python_files("vfikit"), ids=str)
def test_nothing_needs_torchvision(path: Path) -> None:
    assert not [name for _, name in imports(path) if name.split(".")[0] == "torchvision"]


def test_the_rules_catch_what_they_should() -> None:
    """The rules themselves, on imports that nobody should write."""
    wrong = {
        "vfikit/ops/adacof.py": ["vfikit.layers.gridnet", "vfikit.files.atomic", "einops.rearrange", "PIL.Image"],
        "vfikit/layers/gridnet.py": ["vfikit.models.build", "vfikit.metrics.psnr", "av"],
        "vfikit/metrics/psnr.py": ["vfikit.losses.charbonnier", "vfikit.models"],
        "vfikit/models/adacof.py": ["vfikit.checkpoints.load", "tqdm.tqdm"],
        "vfikit/tasks/interpolation.py": ["recipes.evaluate", "vfikit.checkpoints.load"],
        "recipes/evaluate.py": ["recipes.interpolate"],
    }
    for path, names in wrong.items():
        for name in names:
            assert violation(Path(path), name), f"{path} may import {name}"
    assert not violation(Path("vfikit/compress/report.py"), "vfikit.metrics.psnr")
    assert not violation(Path("vfikit/models/adacof.py"), "vfikit.ops.AdaCoF")
