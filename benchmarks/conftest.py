"""``pytest benchmarks --benchmark-only``: every op, model and optimizer beside what a user would pick instead.

The table stands at the end; ``--save-results NAME`` also writes ``benchmarks/results/NAME.json``.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from vfikit.ops import backends

from .machine import machine
from .paired import Call, Compare, Memory, Prepare, Ratio, clock, measure_memory, ratios

FOLDER = Path(__file__).parent
RATIOS = pytest.StashKey[list[Ratio]]()
MEMORY = pytest.StashKey[list[Memory]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-results", metavar="NAME", help="write benchmarks/results/NAME.json")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS], config.stash[MEMORY] = [], []


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Compare:
    """``compare(what, ours, {name: other}, {name: target}, rounds=5, device="cpu")``: times them in turn.

    Each round runs every other once, then ours; a round before the first is not counted. Targets are ratios other /
    ours; one that is missed shows in the table and fails nothing, since other work on the machine can cause it.
    """

    def run(
        what: str,
        ours: Call,
        others: dict[str, Call],
        targets: dict[str, float] | None = None,
        rounds: int = 5,
        device: str = "cpu",
    ) -> None:
        unknown = set(targets or {}) - set(others)
        assert not unknown, f"{what}: targets for {unknown}, expected some of {set(others)}"
        milliseconds = clock(device)
        times: list[float] = []
        others_times: dict[str, list[float]] = {name: [] for name in others}

        def run_others() -> None:
            for name, other in others.items():
                others_times[name].append(milliseconds(other))

        benchmark.pedantic(lambda: times.append(milliseconds(ours)), setup=run_others, rounds=rounds, warmup_rounds=1)
        kept = {name: each[-rounds:] for name, each in others_times.items()}
        rows = ratios(what, device, times[-rounds:], kept, targets or {})
        benchmark.extra_info["ratios"] = {row.other: round(row.ratio, 2) for row in rows}
        request.config.stash[RATIOS] += rows

    return run


@pytest.fixture
def memory(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[[str, Prepare, float], None]:
    """``memory(what, prepare, target)``: extra memory of a call as a share of its tensors; see ``measure_memory``."""

    def run(what: str, prepare: Prepare, target: float) -> None:
        if not Path("/proc/self/clear_refs").exists():
            pytest.skip("resident memory is measured on Linux only")
        row = benchmark.pedantic(lambda: measure_memory(what, prepare, target), rounds=1)
        request.config.stash[MEMORY].append(row)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows, memories = config.stash[RATIOS], config.stash[MEMORY]
    if rows:
        terminalreporter.section(f"ratios, {torch.get_num_threads()} threads, median of paired rounds", sep="-")
        for line in _table(
            ["what", "device", "ours ms", "other", "other ms", "ratio", "target", ""],
            [
                [
                    r.what,
                    r.device,
                    f"{r.ours_ms:.4g}",
                    r.other,
                    f"{r.other_ms:.4g}",
                    f"{r.ratio:.1f}x",
                    *_verdict(r.target, r.ratio, "x", r.target is None or r.ratio >= r.target),
                ]
                for r in rows
            ],
        ):
            terminalreporter.write_line(line)
    if memories:
        terminalreporter.section("memory beyond inputs and results", sep="-")
        for line in _table(
            ["what", "extra MiB", "tensors MiB", "share", "target", ""],
            [
                [
                    m.what,
                    f"{m.extra_mib:.1f}",
                    f"{m.tensors_mib:.0f}",
                    f"{m.extra_mib / m.tensors_mib:.1%}",
                    *_verdict(100 * m.target, 0, "%", m.extra_mib <= m.target * m.tensors_mib),
                ]
                for m in memories
            ],
        ):
            terminalreporter.write_line(line)
    name = config.getoption("--save-results")
    if name and (rows or memories):
        path = FOLDER / "results" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_report(rows, memories), indent=1) + "\n")
        terminalreporter.write_line(f"written: {path}")


def _verdict(target: float | None, value: float, unit: str, met: bool) -> list[str]:
    return ["", ""] if target is None else [f"{target:g}{unit}", "met" if met else "missed"]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]


def _report(rows: list[Ratio], memories: list[Memory]) -> dict[str, object]:
    return {
        **machine(),
        "backends": [row._asdict() for row in backends()],
        "ratios": [asdict(row) for row in rows],
        "memory": [asdict(row) for row in memories],
    }
