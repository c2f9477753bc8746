"""The account of compression_proof.py: every net's cost, measured in turn; a table, JSON, a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfikit import checkpoints, compress, recipe
from vfikit.files import atomic, write_json

from .machine import machine

Row = dict[str, Any]
COSTS = {"parameters": "parameters", "macs": "multiply-accumulates", "latency_ms": "latency (ms)"}
COLORS = {
    "full": "black",
    "longer": "grey",
    "ours": "#cc3311",
    "density": "#ee7733",
    "scratch": "#4477aa",
    "uniform": "#228833",
    "magnitude": "#aa8800",
}


def measured(rows: Sequence[Row], folder: Path, inputs: Sequence[Any]) -> list[Row]:
    """``rows`` of one model with what their nets, which lie in ``folder``, cost on ``inputs``: in one paired run."""
    nets = [recipe.in_layout(checkpoints.load(folder / file_name(row))) for row in rows]
    found = compress.costs(nets, inputs)
    return [
        row | {"macs": cost.macs, "latency_ms": round(cost.latency_ms, 2), "peak_mib": round(cost.peak_mib, 1)}
        for row, cost in zip(rows, found, strict=True)
    ]


def report(path: Path, settings: Row, rows: Sequence[Row]) -> str:
    """Writes measured rows to ``path`` and draws them beside it; gives the table."""
    write_json(path, {**machine(), "settings": settings, "arms": rows})
    _plot(rows, path.with_suffix(".png"))
    return table(rows)


def file_name(row: Row) -> str:
    """Of the net that a row is about."""
    return f"{row['model']}-{row['seed']}-{row['arm']}.safetensors"


def table(rows: Sequence[Row]) -> str:
    """Means over seeds, in Markdown; of PSNR also the least and the greatest."""
    lines = ["| model | arm | parameters | MACs (G) | latency (ms) | PSNR (dB) | least to greatest | SSIM |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model, arm in dict.fromkeys((row["model"], row["arm"]) for row in rows):
        own = [row for row in rows if (row["model"], row["arm"]) == (model, arm)]
        mean = {name: statistics.mean(row[name] for row in own) for name in (*COSTS, "psnr", "ssim")}
        psnrs = [row["psnr"] for row in own]
        lines.append(
            f"| `{model}` | {arm} | {mean['parameters']:,.0f} | {mean['macs'] / 1e9:.2f} | {mean['latency_ms']:.1f} "
            f"| {mean['psnr']:.2f} | {min(psnrs):.2f} to {max(psnrs):.2f} | {mean['ssim']:.4f} |"
        )
    return "\n".join(lines)


def _plot(rows: Sequence[Row], path: Path) -> None:
    """Quality against each cost, a row of panels a model, a point a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(12, 3.6 * len(models)), layout="constrained")
    FigureCanvasAgg(figure)  # draws to memory, whatever display there is
    panels = figure.subplots(len(models), len(COSTS), squeeze=False)
    for line, model in zip(panels, models, strict=True):
        for panel, (cost, label) in zip(line, COSTS.items(), strict=True):
            for arm, color in COLORS.items():
                own = [row for row in rows if (row["model"], row["arm"]) == (model, arm)]
                if own:
                    panel.plot([r[cost] for r in own], [r["psnr"] for r in own], "o", color=color, label=arm, alpha=0.8)
            panel.set(xlabel=label, ylabel="PSNR (dB), held out", title=model)
            panel.set_xlim(left=0)
    panels[0, 0].legend(fontsize=7)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
