"""Files and functions stay small enough to be read at once."""

import ast
from pathlib import Path

import pytest

from .repo import ROOT, parse, python_files

FILE_LINES = 300
RECIPE_LINES = 250
FUNCTION_LINES = 50
# What may be longer, with the reason: {path: reason}.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
NATIVE = sorted(
    path.relative_to(ROOT) for pattern in ("*.cpp", "*.cu", "*.h") for path in (ROOT / "vfikit").rglob(pattern)
)
DRAWERS = {"utils", "util", "helpers", "common", "base", "misc"}


@pytest.mark.parametrize("path", python_files() + NATIVE, ids=str)
def test_file_length(path: Path) -> None:
    allowed = RECIPE_LINES if path.parts[0] == "recipes" else FILE_LINES
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= allowed or str(path) in LONG_FILES, f"{path}: {lines} lines, at most {allowed}"


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_function_length(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            name = f"{path}:{node.name}"
            assert lines <= FUNCTION_LINES or name in LONG_FUNCTIONS, f"{name}: {lines} lines, at most {FUNCTION_LINES}"


def test_no_drawers() -> None:
    drawers = [str(path) for path in python_files() if DRAWERS & set(path.with_suffix("").parts)]
    assert not drawers, f"a name that says what is inside, please: {drawers}"


def test_exceptions_are_needed() -> None:
    """An exception that has become needless goes."""
    for path in LONG_FILES:
        assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) > FILE_LINES, path
    for name in LONG_FUNCTIONS:
        path, function = name.split(":")
        nodes = [node for node in ast.walk(parse(Path(path))) if getattr(node, "name", None) == function]
        assert any(node.end_lineno - node.lineno >= FUNCTION_LINES for node in nodes), name  # type: ignore[attr-defined]
