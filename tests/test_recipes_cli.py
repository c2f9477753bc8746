"""Every recipe's command line: --help says everything; wrong input is one line on stderr, exit code 2, no output."""

import ast
import functools
import io
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from .repo import ROOT, parse

RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__")


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


def recipe(path: Path, *arguments: str, folder: Path = ROOT) -> Done:
    """The script as a user runs it in ``folder``, but in this process: torch is imported once."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.setenv("COLUMNS", "100")
        patch.chdir(folder)
        try:
            runpy.run_path(str(ROOT / path), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


@functools.cache
def help_of(path: Path) -> str:
    done = recipe(path, "--help")
    assert done.code == 0, done.stderr
    return done.stdout


def fields(path: Path, name: str = "Config") -> dict[str, str]:
    """{field: its comment or docstring} of the recipe's Config, and of what it extends."""
    config = next(n for n in ast.walk(parse(path)) if isinstance(n, ast.ClassDef) and n.name == name)
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = fields(Path("vfikit/training_run.py"), "TrainingConfig") if config.bases else {}
    for node, following in zip(config.body, [*config.body[1:], None]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = lines[node.end_lineno - 1].partition("#")[2] if node.end_lineno else ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                said += str(following.value.value)
            found[node.target.id] = said.strip() or lines[node.lineno - 2].strip().partition("#")[2].strip()
    return found


def flags(path: Path) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(path)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_documents_every_field(path: Path) -> None:
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", help_of(path)).split())
    for name, said in fields(path).items():
        assert said, f"{path}: Config.{name} has no documentation"
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag}\b", text) or flag.upper() in text.upper(), f"{path}: --help does not show {name}"
    assert "python recipes/" in (ast.get_docstring(parse(path)) or ""), f"{path}: its docstring shows no command"


def wrong_inputs(path: Path, folder: Path) -> dict[str, list[str]]:
    """Command lines that can't work, by what is wrong with them; only those that this recipe has flags for."""
    has, absent = flags(path), str(folder / "absent")
    places = [absent + ".png", absent + ".png", str(folder / "out.png")]
    positional = {
        "interpolate": places,
        "inpaint": places,
        "generate": [str(folder / "out.mp4")],
        "convert": [absent + ".pth", str(folder / "out.safetensors")],
    }
    start = positional.get(path.stem, [])
    cases = {"a missing input": start} if start and path.stem != "generate" else {}
    if "--model" in has:
        cases["an unknown model"] = [*start, "--model", "no-such-model"]
    if "--preset" in has:
        cases["an unknown preset"] = [*start, "--preset", "no-such-preset"]
    if "--checkpoint" in has:
        cases["a missing checkpoint"] = [*start, "--checkpoint", absent + ".safetensors"]
    if "--data" in has:
        cases["missing data"] = [*start, "--data", absent]
    if "--device" in has:
        cases["an unknown device"] = [*start, "--device", "no-such-device"]
    cases["an unknown flag"] = [*start, "--no-such-flag", "1"]
    if "--out" in has:
        cases = {what: [*arguments, "--out", str(folder / "made")] for what, arguments in cases.items()}
    return cases


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_wrong_input(path: Path, tmp_path: Path) -> None:
    for what, arguments in wrong_inputs(path, tmp_path).items():
        done = recipe(path, *arguments, folder=tmp_path)
        assert done.code == 2, f"{path}, {what}: exit code {done.code}\n{done.stderr}"
        assert "Traceback" not in done.stderr + done.stdout, f"{path}, {what}:\n{done.stderr}"
        if what != "an unknown flag":  # tyro draws a box around its own errors
            assert len(done.stderr.strip().splitlines()) == 1, f"{path}, {what}:\n{done.stderr}"
        left = [item for item in tmp_path.rglob("*") if item.is_file()]
        assert not left, f"{path}, {what}: left {left}"


def test_as_a_process(tmp_path: Path) -> None:
    """Once for real: a fresh interpreter in another folder."""
    command = [sys.executable, str(ROOT / RECIPES[0]), "--no-such-flag"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
