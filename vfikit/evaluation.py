"""The report of ``recipes/evaluate.py``: figures of one method beside others, what was not computed and why."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .files import atomic

Row = dict[str, Any]


class Measured(NamedTuple):
    """What was found of each method, by name; the first is the model."""

    unit: str  # what a row is of: "image", "clip"
    wanted: list[str]  # metrics, in the order of the table
    computed: list[str]  # those of them whose weights were there
    of_all: tuple[str, ...]  # those without rows, of all items together
    needs: Mapping[str, tuple[str, ...]]  # metric: the weights that it needs
    rows: dict[str, list[Row]]
    means: dict[str, dict[str, float]]
    extra: dict[str, float]  # figures of the model alone


class Timed:
    """Calls ``method`` and keeps how long the last call took, in ``seconds``."""

    def __init__(self, method: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.method, self.seconds = method, 0.0

    def __call__(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        start = time.perf_counter()
        frame = self.method(frame0, frame1)
        if frame.is_cuda:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - start
        return frame


def finite(value: Any) -> Any:
    """JSON has no infinity; a perfect frame's PSNR is written as a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def table(metrics: list[str], rows: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table, one line a method."""
    lines = ["| | " + " | ".join(metrics) + " |", "| --- |" + " ---: |" * len(metrics)]
    for name, row in rows.items():
        cells = [f"{row[m]:.{2 if m.startswith('psnr') else 4}f}" if m in row else "not computed" for m in metrics]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(folder: Path, title: str, settings: Mapping[str, Any], measured: Measured) -> None:
    """report.json and report.md in ``folder``, both or none, and the means to the screen."""
    found, unit = measured, measured.unit
    model = next(iter(found.rows))
    missing = [name for name in found.wanted if name not in found.computed]
    report = {
        "config": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        f"{unit}s": len(found.rows[model]),
        "not_computed": missing,
        **found.extra,
        "mean": {name: {key: finite(value) for key, value in row.items()} for name, row in found.means.items()},
        f"per_{unit}": {
            name: [{key: finite(value) for key, value in row.items()} for row in rows]
            for name, rows in found.rows.items()
        },
    }
    each = {row["name"]: row for row in found.rows[model]}
    options = [f"`--{need.replace('_', '-')}-weights`" for name in missing for need in found.needs[name]]
    note = f"\n\nNot computed: {', '.join(missing)}; see {', '.join(dict.fromkeys(options))}." if missing else ""
    note += "".join(f"\n\n{name}: {value:.4g}" for name, value in found.extra.items())
    single = [name for name in found.wanted if name not in found.of_all]
    last = f"\n\n## Per {unit}\n\n{table(single, each)}" if single else ""
    head = f"# {title}: means over {len(each)} {unit}s\n\n{table(found.wanted, found.means)}{note}"
    with atomic(folder / "report.json") as data, atomic(folder / "report.md") as text:
        data.write_text(json.dumps(report, indent=2) + "\n")
        text.write_text(f"{head}{last}\n")
    print(table(found.wanted, found.means))
    for name, value in found.extra.items():
        print(f"{name}: {value:.4g}")
