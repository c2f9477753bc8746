"""Measures an interpolation model on triplets: PSNR, SSIM, interpolation error, LPIPS, per image and on average.

    python recipes/evaluate.py --baselines average
    python recipes/evaluate.py --model cdfi --preset published --checkpoint cdfi.pth --data PATH
    python recipes/evaluate.py --model ldmvfi --checkpoint ldmvfi.safetensors --steps 1 2 4 8 20 50 200

Frames are read unaugmented. psnr, ssim (7x7 uniform window), ssim_gaussian (11x11), ie and nie (Middlebury's, in levels
of 0..255) and LPIPS are of the frame as an 8-bit file holds it, psnr_raw is of the raw output. Writes report.json and
report.md, prints the table of means and where they are.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe
from vfikit.data import open_triplets
from vfikit.files import InputError, atomic, write_json
from vfikit.metrics import LPIPS
from vfikit.tasks import TASKS, interpolation, latent_interpolation

ALL = (*interpolation.METRICS, *interpolation.LPIPS_METRICS)


@dataclass(frozen=True)
class Config:
    model: str = "adacof"
    """A name of vfikit.models.MODELS."""
    preset: str = "small"
    """Size of the model, small or published."""
    checkpoint: Path | None = None
    """Weights (.safetensors, or a published .pth); those that ship with vfikit unless given."""
    data: str = "synthetic"
    """synthetic, or PATH[@PART], several joined by commas; the test part of what has one. Parts: train, test, all, or a
    published evaluation's: davis, vfitex, bvihfr, easy, medium, hard, extreme (SNU-FILM)."""
    size: int = 256
    """Side of synthetic frames; folders are measured at their own size."""
    metrics: str = ",".join(ALL)
    """What to measure, joined by commas."""
    lpips_weights: str | None = None
    """State dict of the LPIPS squeeze network (.pth), or "package" for the lpips package's; without it LPIPS is not
    computed. lpips_unscaled is how CDFI's figures were taken, lpips_scaled how LPIPS is meant."""
    steps: tuple[int, ...] = ()
    """Numbers of denoising steps to measure one by one, of a model that samples (ldmvfi): a curve of quality and time,
    beside frames decoded from a latent of zeros and of noise."""
    baselines: str = ""
    """average, repeat or average,repeat: also measure the mean of the two frames, or the first one."""
    limit: int | None = None
    """Triplets to measure; all where left out."""
    seed: int = 0
    """Of the synthetic scenes."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to run."""
    out: Path | None = None
    """Folder for the report; runs/evaluate/<date-time> by default."""


def names(text: str, what: str, known: tuple[str, ...]) -> list[str]:
    """The parts of a comma-joined option; InputError for an unknown one."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part not in known:
            raise InputError(f"--{what}: got {part!r}, expected some of {', '.join(known)}")
    return parts


def load_lpips(weights: str | None, device: str) -> LPIPS | None:
    if weights is None:
        return None
    if weights != "package":
        return LPIPS(checkpoints.read_state_dict(weights)).to(device)
    try:
        import lpips
    except ImportError as error:
        raise ImportError("--lpips-weights package needs: pip install 'vfikit[lpips]'") from error
    return LPIPS(lpips.LPIPS(net="squeeze", verbose=False).state_dict()).to(device)


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


def draw(steps: Sequence[int], means: dict[str, dict[str, float]], path: Path) -> None:
    """PSNR and seconds a frame against denoising steps; what the decoder reaches without a latent as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, quality = plt.subplots(figsize=(6, 4))
    named = {n: means[f"{n} step{'s' * (n > 1)}"] for n in sorted(steps)}
    quality.plot(named.keys(), [row["psnr"] for row in named.values()], "o-", label="sampled latent")
    for name, style in (("latent of zeros", "--"), ("latent of noise", ":")):
        quality.axhline(means[name]["psnr"], linestyle=style, color="gray", label=name)
    quality.set(xscale="log", xlabel="denoising steps", ylabel="PSNR (dB)")
    quality.legend()
    seconds = quality.twinx()
    seconds.plot(named.keys(), [row["seconds"] for row in named.values()], "s-", color="tab:red")
    seconds.set(ylabel="seconds a frame (red)", yscale="log")
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def finite(value: Any) -> Any:
    """JSON has no infinity; a perfect frame's PSNR is written as a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def table(metrics: list[str], rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table, one line a method."""
    lines = ["| | " + " | ".join(metrics) + " |", "| --- |" + " ---: |" * len(metrics)]
    for name, row in rows.items():
        cells = [f"{row[m]:.{2 if m.startswith('psnr') else 4}f}" if m in row else "not computed" for m in metrics]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(config: Config) -> None:
    wanted = names(config.metrics, "metrics", ALL)
    if config.steps and (TASKS.get(config.model) is not latent_interpolation or min(config.steps) < 1):
        raise InputError(f"--steps: got {config.steps} for {config.model}, expected numbers for a model that samples")
    if config.steps and "psnr" not in wanted:
        raise InputError("--steps: got --metrics without psnr, expected it for the curve")
    baselines = names(config.baselines, "baselines", tuple(interpolation.BASELINES))
    data = open_triplets(config.data, "test", config.size, config.seed)
    model = recipe.load_model(config.model, config.preset, config.checkpoint, config.device)
    lpips = load_lpips(config.lpips_weights, config.device)
    computed = [name for name in wanted if name not in interpolation.LPIPS_METRICS or lpips is not None]
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {config.model: model}
    if config.steps:
        methods |= latent_interpolation.by_steps(model, config.steps) | latent_interpolation.by_latent(model)
    methods |= {name: interpolation.BASELINES[name] for name in baselines}
    count = min(len(data), config.limit or len(data))
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, method in methods.items():
        timed = Timed(method)
        measured = interpolation.measure(timed, data, computed, lpips, config.limit, config.device)
        times = [{**row, "seconds": timed.seconds} for row in tqdm(measured, desc=name, total=count)]
        rows[name] = times if config.steps else [{k: v for k, v in row.items() if k != "seconds"} for row in times]
    shown = ["seconds"] if config.steps else []
    write(config, wanted + shown, computed + shown, rows)


def write(config: Config, wanted: list[str], computed: list[str], rows: dict[str, list[dict[str, Any]]]) -> None:
    """report.json and report.md, and the means to the screen."""
    means = {name: interpolation.means(found) for name, found in rows.items()}
    folder = recipe.out_folder("evaluate", config.out)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
    missing = [name for name in wanted if name not in computed]
    write_json(
        folder / "report.json",
        {
            "config": settings,
            "images": len(rows[config.model]),
            "not_computed": missing,
            "mean": {name: {key: finite(value) for key, value in row.items()} for name, row in means.items()},
            "per_image": {
                name: [{key: finite(value) for key, value in row.items()} for row in found]
                for name, found in rows.items()
            },
        },
    )
    each = {row["name"]: row for row in rows[config.model]}
    title = f"# {config.model} ({config.preset}) on {config.data}: means over {len(each)} images"
    note = "\n\nLPIPS: not computed, no `--lpips-weights` given." if missing else ""
    with atomic(folder / "report.md") as path:
        path.write_text(f"{title}\n\n{table(wanted, means)}{note}\n\n## Per image\n\n{table(wanted, each)}\n")
    print(table(wanted, means))
    if config.steps:
        draw(config.steps, means, folder / "steps.png")
        print(f"the curve of quality and time by steps is {folder / 'steps.png'}")
    print(f"report.json and report.md are in {folder}")


if __name__ == "__main__":
    recipe.run(main, Config)
