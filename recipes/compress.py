"""Makes a model smaller and faster: sparsify, density, plan, resize, fine-tune, report.

    python recipes/compress.py --model adacof
    python recipes/compress.py --model cdfi --checkpoint cdfi.pth --preset published --data vimeo_triplet --steps 100000

Takes the weights that ship with vfikit where no checkpoint is given; where none ship, it trains the full net first, for
--train-steps, and says so. Writes compressed.safetensors, report.json, report.md and pictures. Where --rule sensitivity
plans the cut (frame interpolation's default), it follows the full net: what obproxsg made sparse is reported only.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn
from tqdm import tqdm

from vfikit import checkpoints, compress, recipe
from vfikit.compression import Fitting, Sparse, fine_tune, in_steps, sensitivities, slice_to, sparsify, to
from vfikit.files import InputError, write_json
from vfikit.models import build
from vfikit.tasks import TASKS, Defaults, Task

UNFINISHED = "unfinished"  # the folder in --out of what --resume needs


@dataclass(frozen=True)
class Config:
    """The defaults take some minutes on two CPU cores."""

    model: str = "adacof"
    """A name of vfikit.models.MODELS."""
    preset: str = "small"
    """small or published."""
    checkpoint: Path | None = None
    """A vfikit file or a published .pth; what ships with vfikit where left out."""
    data: str = "synthetic"
    """synthetic, or folders as for the model's training recipe; the test part is held out."""
    out: Path | None = None
    """Folder for results; runs/compress/<time> where left out."""
    resume: Path | None = None
    """Folder of a run that was stopped, to go on with: all settings are that run's."""
    route: Literal["slice", "rebuild"] = "slice"
    """slice removes channels and keeps the other weights; rebuild trains a fresh net at the planned widths."""
    sparsifier: Literal["obproxsg", "hspg", "dhspg", "hesso"] = "obproxsg"
    """What makes the weights sparse: single weights (obproxsg) or whole channels; these stay removed when slicing."""
    rule: Literal["consumer", "sqrt-min", "sqrt-max", "latency", "sensitivity"] | None = None
    """How densities become widths; latency times layers instead, sensitivity measures what each cut changes."""
    ratio: float | None = None
    """How many times fewer parameters, met within 2 % (more by --speed); the task's, or its --macs, unless given."""
    macs: float | None = None
    """How many times fewer multiply-accumulates, met within 2 %."""
    latency: float | None = None
    """How many times less time, measured on --size, met within 2 % where the machine is that steady."""
    speed: float = 3.0
    """With --ratio, how many times less work for convolutions at least; 0 leaves it to the rule."""
    only: tuple[str, ...] = ()
    """Modules (paths, or names inside paths) that alone are cut; --ratio then counts their parameters, 2 by default."""
    round_to: int = 16
    """Widths that reach it are multiples of it: CPUs compute 16 channels at a time, GPUs 8 in half precision."""
    steps: int | None = None
    """Steps of fine-tuning; as the model's task has it where left out (600)."""
    sparsify_steps: int | None = None
    """Steps of sparsifying; a twentieth of --steps where left out, a quarter for whole channels."""
    train_steps: int = 600
    """Steps of training the full net first, only where there are no weights."""
    batch_size: int | None = None
    """Items a step; this and what follows as the model's task has it where left out (8 triplets)."""
    crop: int | None = None
    """Side of the training crops in pixels (96)."""
    pool: int | None = None
    """Synthetic scenes to train on, kept in memory (400); folders are read anew each time."""
    lr: float | None = None
    """Peak learning rate of fine-tuning (2e-3; Adamax, falling to 0 as a cosine)."""
    size: tuple[int, int] | None = None
    """Height and width of the frames that cost and time are measured on (256 256)."""
    teacher: float = 0.5
    """Share of the distance to what the full net makes, in the loss at the start; 0 after two thirds."""
    features: tuple[str, ...] = ()
    """Modules (their paths) that fine-tuning draws to the full net's, too: the places that their outputs stress."""
    limit: int = 32
    """Held-out items to measure quality on; 0 for all."""
    seed: int = 0
    """Of everything random."""
    device: str = "cpu"
    """Where the networks run."""

    @property
    def target(self) -> float:
        return next(t for t in (self.ratio, self.macs, self.latency) if t is not None)


class Shrunk(NamedTuple):
    """The small net before fine-tuning, the densities that its widths come from, what share was zero by step."""

    small: nn.Module
    densities: compress.Density
    zero: list[float]


def shrink(config: Config, fitting: Fitting, full: nn.Module, inputs: Any) -> Shrunk:
    """Steps 1 to 4."""
    once = in_steps(fitting.task, full, 1)
    coupling = compress.couple(full, (*inputs, *once)).within(config.only)
    sizes = [(*(x[..., :height, :width] for x in inputs), *once) for height, width in ((64, 96), (72, 48))]
    change = compress.check_groups(full, coupling.groups, sizes)
    print(f"{len(coupling.groups)} groups of channels; permuting them changes the output by {change:.0e}")
    print(f"1/6 sparsify: {config.sparsifier}")
    steps, whole = config.steps or fitting.task.DEFAULTS.steps, config.sparsifier != "obproxsg"
    steps = max(1, steps // (4 if whole else 20)) if config.sparsify_steps is None else config.sparsify_steps
    how = (full, coupling.groups, config.sparsifier, config.target**-0.5, steps)
    sparse, zero = sparsify(fitting, *how) if steps else Sparse(full, [])
    densities = compress.density(sparse)
    print("2/6 density", densities.table(), sep="\n")
    assert config.rule is not None
    plan = compress.plan(
        *(full, coupling, densities.layers, config.rule),
        ratio=config.ratio,
        work_ratio=(config.speed or None) if config.ratio and not config.only else None,
        inputs=(*inputs, *in_steps(fitting.task, full)),
        round_to=config.round_to,
        macs_ratio=config.macs,
        latency_ratio=config.latency,
        modules=config.only,
        losses=sensitivities(fitting, full, coupling.groups) if config.rule == "sensitivity" else None,
    )
    print("3/6 plan", plan.table(), *([plan.missed] if plan.missed else []), sep="\n")
    print(f"4/6 resize: {config.route}, {plan.parameters:,} parameters")
    if config.route == "rebuild":
        return Shrunk(recipe.in_layout(compress.rebuild(full, plan.widths, config.only)), densities, zero)
    base = sparse if whole else full  # what died as a whole is removed without a trace
    return Shrunk(recipe.in_layout(slice_to(fitting, base, coupling.groups, plan.counts)), densities, zero)


def shrunk(config: Config, fitting: Fitting, full: nn.Module, inputs: Any, room: Path) -> Shrunk:
    """Steps 1 to 4, or what they made before the run was stopped."""
    weights, facts = room / "small.safetensors", room / "shrunk.json"
    if facts.exists():
        found = json.loads(facts.read_text())
        small = recipe.in_layout(checkpoints.load(weights, config.device))
        return Shrunk(small, compress.Density(**found["densities"]), found["zero"])
    made = shrink(config, fitting, full, inputs)
    keep_settings(config, room)
    checkpoints.save(cast(Any, made.small), weights)
    write_json(facts, {"densities": asdict(made.densities), "zero": made.zero})
    return made


def keep_settings(config: Config, room: Path) -> None:
    """What --resume needs, before there is something worth going on with."""
    settings = asdict(config) | {"out": None, "resume": None}
    write_json(room / "config.json", {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()})


def resumed(config: Config) -> Config:
    """The settings of the run to go on with, where --resume names one."""
    if config.resume is None:
        if config.out is not None and (config.out / UNFINISHED).exists():
            raise InputError(f"{config.out}: holds a run that was stopped; --resume {config.out} goes on with it")
        return config
    path = config.resume / UNFINISHED / "config.json"
    if not path.exists():
        raise InputError(f"{path}: no such file, expected the folder of a run that was stopped")
    saved: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(path.read_text()).items()}
    return Config(**{**saved, "checkpoint": saved["checkpoint"] and Path(saved["checkpoint"]), "out": config.resume})


def measure(config: Config, task: Task, models: list[nn.Module], inputs: Any, test: Any) -> list[compress.Measured]:
    """Cost, measured in turn, and quality on the held-out data."""
    found = [task.quality(model, test, config.limit or None) for model in models]
    return [compress.Measured(cost, q.psnr, q.ssim) for cost, q in zip(compress.costs(models, inputs), found)]


def starting_point(config: Config, fitting: Fitting, room: Path) -> tuple[nn.Module, str]:
    """The full net and where it is from; trained here where no weights are given nor shipped."""
    given = config.checkpoint or checkpoints.shipped(config.model, config.preset)
    if given is not None:
        return recipe.in_layout(recipe.load_model(config.model, config.preset, given, config.device)), str(given)
    print(f"no shipped weights: training the full net for {config.train_steps} steps first")
    model = recipe.in_layout(build(config.model, config.preset).to(config.device))
    keep_settings(config, room)
    made = fine_tune(fitting, model, None, config.train_steps, room / "full.pt")
    return made, f"{config.train_steps} steps from scratch"


def check(config: Config) -> tuple[Task, Defaults, Config]:
    """What can be seen to be wrong before anything is done; what was left out is as the task has it."""
    recipe.check_device(config.device)
    recipe.check_out(config.out or Path("runs"))
    bare = recipe.build_on_meta(config.model, config.preset)
    with compress.features(bare, config.features):
        pass  # modules of unknown names raise
    for name in config.only:
        if not any(compress.inside(path, [name]) for path, _ in bare.named_modules()):
            raise InputError(f"--only {name}: {config.model} has no module of this path or name")
    recipe.at_least(config, 1, "steps", "train_steps", "batch_size", "crop", "round_to", "pool", "size")
    recipe.at_least(config, 0, "lr", "speed", "teacher", "limit", "sparsify_steps")
    for name in ("ratio", "macs", "latency"):
        if (value := getattr(config, name)) is not None and value <= 1:
            raise InputError(f"--{name} is {value}, expected more than 1")
    if (config.ratio, config.macs, config.latency).count(None) < 2:
        raise InputError("got several of --ratio, --macs and --latency, expected one target")
    if config.checkpoint is not None and not config.checkpoint.exists():
        raise InputError(f"{config.checkpoint}: no such file")
    task, whole = TASKS[config.model], getattr(bare, "multiple", 1)
    usual = task.DEFAULTS._replace(crop=-(-task.DEFAULTS.crop // whole) * whole)  # crops that need no padding
    given = {name: value for name in usual._fields if (value := getattr(config, name, None)) is not None}
    if (config.ratio, config.macs, config.latency) == (None, None, None):
        ratio, macs = (2.0, None) if config.only else (usual.ratio, usual.macs)
        config = replace(config, ratio=ratio, macs=macs)
    return task, usual._replace(**given), replace(config, rule=config.rule or usual.rule)


def main(config: Config) -> None:
    began = time.monotonic()
    task, chosen, config = check(resumed(config))
    data = task.split(config.data, chosen.crop, chosen.size, chosen.pool, config.seed, tqdm)
    folder = recipe.out_folder("compress", config.out)
    torch.manual_seed(config.seed)
    how = (chosen.batch_size, chosen.crop, chosen.lr, config.teacher, config.seed, config.features)
    fitting, room = Fitting(task, data.train, *how), folder / UNFINISHED
    full, source = starting_point(config, fitting, room)
    inputs = task.inputs(to(task.example(data.test), config.device))
    print(f"{config.model}, {source}: {compress.parameters(full):,} parameters")

    small, densities, zero = shrunk(config, fitting, full, inputs, room)
    raw = task.quality(small.eval(), data.test, config.limit or None).psnr
    print(f"5/6 fine-tune: {chosen.steps} steps")
    small = fine_tune(fitting, small, full.eval().requires_grad_(False), chosen.steps, room / "small.pt")
    print(f"6/6 report; PSNR before fine-tuning was {raw:.2f} dB")
    path = folder / "compressed.safetensors"
    checkpoints.save(small, path, compressed_from=source, route=config.route, seed=config.seed)
    loaded = recipe.in_layout(checkpoints.load(path, config.device))
    before, after = measure(config, task, [full, loaded], (*inputs, *in_steps(task, full)), data.test)
    facts = {name: getattr(config, name) for name in ("model", "preset", "route", "sparsifier", "rule", "data", "seed")}
    facts |= {"start": source, "checkpoint": str(path), "held_out": data.held_out, "psnr_before_fine_tuning": raw}
    measured = ", sampling steps: ".join([compress.conditions(inputs), *map(str, in_steps(task, full))])
    facts |= {"zero_by_step": zero, "measured": measured, "seconds": round(time.monotonic() - began)}
    compress.report(folder, facts, before, after, densities, compress.widths(full), compress.widths(small))
    shutil.rmtree(room)
    print(compress.table(before, after), f"held-out {data.held_out}, {measured}; {facts['seconds']} s in all", sep="\n")
    print(f"{path} and report.json, report.md, density.png, report.png beside it")


if __name__ == "__main__":
    recipe.run(main, Config)
