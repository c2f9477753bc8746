"""The account of a compression: what the network was and is, as JSON, Markdown and pictures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import atomic, write_json
from .cost import Cost
from .density import Density
from .resize import Width


@dataclass(frozen=True)
class Measured:
    """A network's cost, and its quality on held-out inputs."""

    cost: Cost
    psnr: float  # dB
    ssim: float

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self.cost), "psnr": self.psnr, "ssim": self.ssim}


ROWS = {
    "parameters": ("parameters", "{:,.0f}"),
    "macs": ("multiply-accumulates", "{:,.0f}"),
    "latency_ms": ("latency (ms)", "{:.2f}"),
    "peak_mib": ("peak memory (MiB)", "{:.1f}"),
    "psnr": ("PSNR (dB)", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
}


def table(before: Measured, after: Measured) -> str:
    """Before, after and the change, in Markdown: how many times less, or the difference of a quality."""
    lines = ["| | before | after | |", "| --- | ---: | ---: | ---: |"]
    a, b = before.as_dict(), after.as_dict()
    for key, (name, form) in ROWS.items():
        change = f"{b[key] - a[key]:+.3f}" if key in ("psnr", "ssim") else f"{a[key] / max(b[key], 1e-9):.2f}x less"
        lines.append(f"| {name} | {form.format(a[key])} | {form.format(b[key])} | {change} |")
    return "\n".join(lines)


def report(
    folder: str | Path,
    facts: Mapping[str, Any],
    before: Measured,
    after: Measured,
    densities: Density,
    widths_before: Mapping[str, Width],
    widths_after: Mapping[str, Width],
) -> Path:
    """Writes ``report.json``, ``report.md``, ``density.png`` and ``report.png`` to ``folder``; returns the first.

    ``facts`` (model, route, seed, checkpoint, how it was measured ...) go into the JSON as they are,
    and but for lists into the Markdown.
    """
    folder = Path(folder)
    layers = [
        {
            "name": name,
            "density": share,
            "width_before": _channels(widths_before[name], "out", "weight.0"),
            "width_after": _channels(widths_after[name], "out", "weight.0"),
            "in_before": _channels(widths_before[name], "in", "weight.1"),
            "in_after": _channels(widths_after[name], "in", "weight.1"),
        }
        for name, share in densities.layers.items()
    ]
    content = {**facts, "before": before.as_dict(), "after": after.as_dict(), "layers": layers}
    write_json(folder / "report.json", content)
    settings = "\n".join(f"- {key}: {value}" for key, value in facts.items() if not isinstance(value, list))
    with atomic(folder / "report.md") as path:
        path.write_text(f"# Compression of {facts.get('model', 'a network')}\n\n{table(before, after)}\n\n{settings}\n")
    chart(densities, folder / "density.png")
    _plot(before, after, layers, folder / "report.png")
    return folder / "report.json"


def _channels(width: Width, side: str, axis: str) -> int:
    """Of a layer; of a module that is none, the size of its weight's ``axis``."""
    return width[side] if side in width else width[axis]


def chart(densities: Density, path: str | Path) -> None:
    """Draws the density of every layer as bars."""
    figure, axes = _figure(max(6.0, 0.16 * len(densities.layers)), 4.5)
    axes.bar(range(len(densities.layers)), list(densities.layers.values()), color="#4477aa")
    axes.set_xticks(range(len(densities.layers)), list(densities.layers), rotation=90, fontsize=5)
    axes.set(ylim=(0, 1), ylabel="nonzero weights / all", title=f"Density by layer (model: {densities.model:.3f})")
    _save(figure, path)


def _plot(before: Measured, after: Measured, layers: list[dict[str, Any]], path: Path) -> None:
    """Widths by layer, and what is left of each cost."""
    figure, (left, right) = _figure(12, 4.5, 2)
    left.step(range(len(layers)), [layer["width_before"] for layer in layers], where="mid", label="before")
    left.step(range(len(layers)), [layer["width_after"] for layer in layers], where="mid", label="after")
    left.set(xlabel="layer", ylabel="output channels", yscale="log", title="Widths")
    left.legend()
    names = ["parameters", "macs", "latency_ms", "peak_mib"]
    a, b = before.as_dict(), after.as_dict()
    shares = [b[name] / max(a[name], 1e-9) for name in names]
    bars = right.bar([ROWS[name][0] for name in names], shares, color="#4477aa")
    right.bar_label(bars, [f"1/{1 / share:.1f}" for share in shares])
    change = after.psnr - before.psnr
    right.set(ylim=(0, 1), ylabel="after / before", title=f"What is left; PSNR {change:+.2f} dB")
    right.tick_params(axis="x", labelsize=7)
    _save(figure, path)


def _figure(width: float, height: float, columns: int = 1) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # draws to memory, whatever display there is
    return figure, figure.subplots(1, columns)


def _save(figure: Any, path: str | Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
