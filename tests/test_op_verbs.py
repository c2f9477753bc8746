"""Every op is tested for the same things: a verb is a word in the name of a test in ``tests/ops/test_<op>.py``."""

import ast
from pathlib import Path

import pytest
import torch

import vfikit.ops

from .golden.adapters import ADAPTERS
from .repo import ROOT, parse

# verb: words, one of which stands in the name of a test
VERBS = {
    "the reference against a naive loop": ("naive", "loop"),
    "a kernel against the reference": ("kernel",),
    "true gradients, float64": ("gradcheck", "gradient"),
    "torch's own check of the registration": ("opcheck",),
    "one graph under torch.compile": ("compile", "fullgraph"),
    "autocast": ("autocast",),
    "layouts and odd sizes": ("layout", "contiguous"),
    "bad input": ("reject", "error", "raises"),
    "the same numbers twice": ("determinis",),
    "forked workers": ("fork",),
}

CASES = {"conv3x3": "encoder", "deform_conv2d": "dcn"}  # golden cases of another name


def ops() -> list[str]:
    """The registered ops, without their backward twins."""
    assert vfikit.ops.__all__
    names = {
        name.partition("::")[2].partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("vfikit::")
    }
    return sorted(name for name in names if not name.endswith("_backward"))


def verbs_of(op: str) -> list[str]:
    """Names of the test functions in the op's files: ``test_<op>.py`` and ``test_<op>_<what>.py``."""
    paths = [path.relative_to(ROOT) for path in (ROOT / "tests" / "ops").glob(f"test_{op}*.py")]
    nodes = [node for path in paths for node in ast.walk(parse(Path(path)))]
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_there_are_ops() -> None:
    assert "adacof" in ops()


@pytest.mark.parametrize("op", ops())
def test_every_verb(op: str) -> None:
    names = verbs_of(op)
    missing = [verb for verb, words in VERBS.items() if not any(word in name for word in words for name in names)]
    assert not missing, f"tests/ops/test_{op}*.py has no test of: {'; '.join(missing)}; it has {sorted(names)}"


@pytest.mark.parametrize("op", ops())
def test_golden_and_twins(op: str) -> None:
    """Golden cases of the op by name, a function and a Module twin, a benchmark baseline, a row in ``backends()``."""
    case = CASES.get(op, op)
    assert any(kind.split(".")[-1].startswith(case) for kind in ADAPTERS), f"{op} has no golden adapter"
    exported = set(vfikit.ops.__all__)
    assert op in exported
    twins = {name for name in exported if name != op and name.lower().endswith(op.replace("_", ""))}
    assert twins, f"{op} has no Module twin"
    assert op in {row.op for row in vfikit.ops.backends()}
    assert (ROOT / "benchmarks" / "plain" / f"{op}.py").exists(), f"benchmarks/plain/{op}.py is missing"
