"""Measures an interpolation model on triplets: PSNR, SSIM, interpolation error, LPIPS, FloLPIPS, FID.

    python recipes/evaluate.py --baselines average
    python recipes/evaluate.py --model cdfi --preset published --checkpoint cdfi.pth --data PATH
    python recipes/evaluate.py --model ldmvfi --checkpoint ldmvfi.safetensors --steps 1 2 4 8 20 50 200

Frames are read unaugmented. All metrics are of the frame as an 8-bit file holds it, but psnr_raw, which is of the raw
output; docs/train-and-evaluate.md says what each is. Writes report.json and report.md, per image and on average, prints
the table of means and where they are.
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
from vfikit.tasks import TASKS, interpolation, judges, latent_interpolation

ALL = (*interpolation.METRICS, *judges.NEEDS)
USUAL = ("psnr", "psnr_raw", "ssim", "ssim_gaussian", "ie", "nie", "lpips_unscaled", "lpips_scaled")
PACKAGES = {"lpips": "squeeze", "lpips_alex": "alex"}


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
    metrics: str | None = None
    """What to measure, joined by commas; by default all but psnr_capped and ssim_volume, and what its weights are
    given for of lpips_alex, flolpips and fid."""
    lpips_weights: str | None = None
    """For lpips_unscaled (CDFI's figures) and lpips_scaled: state dict of the LPIPS squeeze network (.pth), or
    "package" for the lpips package's. What lacks its weights is not computed."""
    lpips_alex_weights: str | None = None
    """For lpips_alex and flolpips: the same with AlexNet."""
    pwcnet_weights: Path | None = None
    """For flolpips: PWC-Net's published weights (NVlabs', for non-commercial use)."""
    inception_weights: Path | None = None
    """For fid: pt_inception-2015-12-05 (.pth)."""
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


def load_weights(config: Config) -> dict[str, dict[str, Tensor]]:
    """The state dicts that were given, by name of ``judges.WEIGHTS``."""
    given = {name: getattr(config, f"{name}_weights") for name in judges.WEIGHTS}
    return {name: load_judge(name, path) for name, path in given.items() if path is not None}


def load_judge(name: str, path: str | Path) -> dict[str, Tensor]:
    if path != "package" or name not in PACKAGES:
        return checkpoints.read_state_dict(path)
    try:
        import lpips
    except ImportError as error:
        raise ImportError(f"--{name.replace('_', '-')}-weights package needs: pip install 'vfikit[lpips]'") from error
    state: dict[str, Tensor] = lpips.LPIPS(net=PACKAGES[name], verbose=False).state_dict()
    return state


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
    chosen = None if config.metrics is None else names(config.metrics, "metrics", ALL)
    check_steps(config, chosen)
    baselines = names(config.baselines, "baselines", tuple(interpolation.BASELINES))
    data = open_triplets(config.data, "test", config.size, config.seed)
    model = recipe.load_model(config.model, config.preset, config.checkpoint, config.device)
    judged = judges.Judges(load_weights(config), config.device)
    wanted = chosen or [name for name in ALL if name in USUAL or name in judged.names]
    computed = [name for name in wanted if name in interpolation.METRICS or name in judged.names]
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {config.model: model}
    if config.steps:
        methods |= latent_interpolation.by_steps(model, config.steps) | latent_interpolation.by_latent(model)
    methods |= {name: interpolation.BASELINES[name] for name in baselines}
    count = min(len(data), config.limit or len(data))
    if "fid" in computed and count < 2:
        raise InputError(f"fid: got {count} image, expected at least two")
    rows: dict[str, list[dict[str, Any]]] = {}
    means: dict[str, dict[str, float]] = {}
    for name, method in methods.items():
        timed = Timed(method)
        measured = interpolation.measure(timed, data, computed, judged, config.limit, config.device)
        times = [{**row, "seconds": timed.seconds} for row in tqdm(measured, desc=name, total=count)]
        rows[name] = times if config.steps else [{k: v for k, v in row.items() if k != "seconds"} for row in times]
        means[name] = interpolation.means(rows[name])
        if judged.fid is not None and "fid" in computed:
            means[name]["fid"] = judged.fid.compute()
    shown = ["seconds"] if config.steps else []
    write(config, wanted + shown, computed + shown, rows, means)


def check_steps(config: Config, metrics: list[str] | None) -> None:
    """InputError unless --steps can be measured and drawn."""
    if config.steps and (TASKS.get(config.model) is not latent_interpolation or min(config.steps) < 1):
        raise InputError(f"--steps: got {config.steps} for {config.model}, expected numbers for a model that samples")
    if config.steps and metrics is not None and "psnr" not in metrics:
        raise InputError("--steps: got --metrics without psnr, expected it for the curve")


def write(
    config: Config,
    wanted: list[str],
    computed: list[str],
    rows: dict[str, list[dict[str, Any]]],
    means: dict[str, dict[str, float]],
) -> None:
    """report.json and report.md, and the means to the screen."""
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
    needed = [f"`--{need.replace('_', '-')}-weights`" for name in missing for need in judges.NEEDS[name]]
    note = f"\n\nNot computed: {', '.join(missing)}; see {', '.join(dict.fromkeys(needed))}." if missing else ""
    single = [name for name in wanted if name != "fid"]
    with atomic(folder / "report.md") as path:
        path.write_text(f"{title}\n\n{table(wanted, means)}{note}\n\n## Per image\n\n{table(single, each)}\n")
    print(table(wanted, means))
    if config.steps:
        draw(config.steps, means, folder / "steps.png")
        print(f"the curve of quality and time by steps is {folder / 'steps.png'}")
    print(f"report.json and report.md are in {folder}")


if __name__ == "__main__":
    recipe.run(main, Config)
