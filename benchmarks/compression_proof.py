"""Whether compressing pays: the six steps of recipes/compress.py beside what one would do without them.

    python -m benchmarks.compression_proof --data synthetic:1,PATH@train:3 --validation PATH@test --out runs/proof

Arms that are done are skipped: the same command goes on where it was stopped. When all are done it measures their cost
in one paired run, prints a table, and writes the report and the picture. The arms:

    full      the full net, which all but scratch start from: trained for --train-steps, or with 0 what vfikit ships
    longer    the full net, trained on for as many steps as the others are given
    scratch   ours' widths from scratch, for --scratch-steps; by default all the steps of the full net and of ours
    ours      planned by what each cut changes, sliced, fine-tuned towards the full net
    density   as ours, but sparsified first, and planned by densities
    uniform   as many parameters as ours, every width cut alike; sliced and fine-tuned as ours
    magnitude Torch-Pruning alone: the smallest weights, cut until the net is as fast as ours; fine-tuned as ours
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from vfikit import checkpoints, compress, recipe
from vfikit.compress.cuts import Losses
from vfikit.compress.plan import Rule, uniform
from vfikit.compression import Fitting, fine_tune, sensitivities, slice_to, sparsify
from vfikit.data import Pool, Triplet, Triplets, open_triplets
from vfikit.files import append_jsonl
from vfikit.models import build
from vfikit.tasks import TASKS

from . import magnitude
from .proof_report import file_name, measured, report

SETTINGS = ("sparsify_steps", "batch_size", "crop", "pool", "lr", "teacher", "ratio", "speed", "round_to", "limit")
SHARES = [share / 20 for share in range(5, 19)]  # of channels, for magnitude pruning to choose from


@dataclass(frozen=True)
class Config:
    data: str = "synthetic"
    """To train on, as for train_adacof.py."""
    validation: str = "synthetic"
    """Held out: what quality is measured on."""
    out: Path = Path("runs/proof")
    """Folder for the nets and results.jsonl, one line an arm."""
    models: tuple[str, ...] = ("adacof", "cdfi")
    """Names of vfikit.models.MODELS; their small presets."""
    arms: tuple[str, ...] = ("full", "ours", "density", "scratch", "uniform", "magnitude", "longer")
    """Which arms to run; each needs full, and scratch, uniform and magnitude need ours."""
    seeds: int = 3
    """How many seeds, from 0 on: of weights, data's order and augmentation."""
    train_steps: int = 5000
    """Of the full net, of every seed anew; 0 takes the weights that ship with vfikit."""
    scratch_steps: int | None = None
    """Of training ours' widths from scratch; as many as the full net and ours together where left out."""
    sparsify_steps: int = 40
    """Of sparsifying, for density; the other arms fine-tune for so many more."""
    steps: int = 400
    """Of fine-tuning."""
    batch_size: int = 4
    """Triplets a step."""
    crop: int = 64
    """Side of the training crops in pixels."""
    pool: int = 400
    """Triplets to train on, kept in memory, 160 x 160 pixels of each."""
    lr: float = 2e-3
    """Peak learning rate of every training (Adamax, falling to 0 as a cosine)."""
    teacher: float = 0.5
    """Share of the distance to the full net in the loss at the start (from scratch: of the sampled frames to the
    target); 0 after two thirds."""
    ratio: float = 8.0
    """How many times fewer parameters, at least, for ours and density; uniform has as many as ours."""
    speed: float = 3.0
    """How many times less work for convolutions, at least, for ours and density."""
    round_to: int = 16
    """As in recipes/compress.py, for ours, density and uniform."""
    limit: int | None = None
    """Held-out triplets to measure quality on; all where left out."""
    size: tuple[int, int] = (256, 256)
    """Height and width of the frames that cost and time are measured on."""
    measure: bool = True
    """Measure the nets and write the report; without, the arms are made and no more."""
    report: Path | None = None
    """Where to write the report, a .json; OUT/compression.json where left out. The picture is put beside it, a .png."""

    @property
    def compress_steps(self) -> int:
        return self.sparsify_steps + self.steps


@dataclass(frozen=True)
class Job:
    """One model and seed: what its arms share."""

    config: Config
    model: str
    seed: int
    fitting: Fitting
    inputs: tuple[torch.Tensor, ...]

    def path(self, arm: str) -> Path:
        seed = 0 if arm == "full" and not self.config.train_steps else self.seed
        return self.config.out / file_name({"model": self.model, "seed": seed, "arm": arm})

    def steps(self, arm: str) -> int:
        """Of training, in all, beyond what the arm starts from."""
        whole = self.config.train_steps + self.config.compress_steps
        of = {"full": self.config.train_steps, "scratch": self.config.scratch_steps or whole}
        return of.get(arm, self.config.compress_steps)

    def net(self, arm: str) -> Any:
        """What another arm made."""
        return recipe.in_layout(checkpoints.load(self.path(arm)))

    @cached_property
    def coupling(self) -> compress.Coupling:
        return compress.couple(self.net("full"), self.inputs)

    def taught(self, small: nn.Module, steps: int) -> nn.Module:
        teacher = self.net("full").requires_grad_(False)
        tuned: nn.Module = fine_tune(self.fitting, recipe.in_layout(small), teacher, steps)
        return tuned


Made = tuple[Any, dict[str, Any]]  # a net, and what else there is to say of it


def full(job: Job) -> Made:
    if not job.config.train_steps:
        return recipe.load_model(job.model, "small", None), {}
    net = recipe.in_layout(build(job.model, "small"))
    return fine_tune(job.fitting, net, None, job.config.train_steps), {}


def longer(job: Job) -> Made:
    return fine_tune(job.fitting, job.net("full"), None, job.config.compress_steps), {}


def ours(job: Job) -> Made:
    net = job.net("full")
    plan = planned(job, net, {}, "sensitivity", sensitivities(job.fitting, net, job.coupling.groups))
    small = slice_to(job.fitting, net, job.coupling.groups, plan.counts)
    return job.taught(small, job.config.compress_steps), {"missed": plan.missed}


def by_density(job: Job) -> Made:
    config, net, groups = job.config, job.net("full"), job.coupling.groups
    sparse = sparsify(job.fitting, net, groups, "obproxsg", config.ratio**-0.5, config.sparsify_steps).model
    plan = planned(job, net, compress.density(sparse).layers, "consumer")
    return job.taught(slice_to(job.fitting, net, groups, plan.counts), config.steps), {"missed": plan.missed}


def planned(
    job: Job, net: nn.Module, densities: dict[str, float], rule: Rule, losses: Losses | None = None
) -> compress.Plan:
    config = job.config
    targets = (config.ratio, config.speed)
    return compress.plan(net, job.coupling, densities, rule, *targets, job.inputs, config.round_to, losses=losses)


def scratch(job: Job) -> Made:
    net = compress.rebuild(job.net("full"), compress.widths(job.net("ours")))
    return fine_tune(job.fitting, recipe.in_layout(net), None, job.steps("scratch")), {}


def uniform_width(job: Job) -> Made:
    net, ratio = job.net("full"), compress.parameters(job.net("full")) / compress.parameters(job.net("ours"))
    densities = compress.density(net).layers | uniform(job.coupling.groups, 0.5)
    plan = compress.plan(net, job.coupling, densities, ratio=ratio, round_to=job.config.round_to)
    small = slice_to(job.fitting, net, job.coupling.groups, plan.counts)
    return job.taught(small, job.config.compress_steps), {"missed": plan.missed}


def magnitude_alone(job: Job) -> Made:
    """Cut as far as makes it as fast as ours: by the processor's time, as other work on the machine may slow this."""
    net, wanted = job.net("full"), job.net("ours")
    try:
        nets = [magnitude.by_its_graph(net, job.coupling, job.inputs, share, 4) for share in SHARES]
        graph = "its own"
    except (IndexError, RuntimeError, ValueError) as error:
        nets = [magnitude.on_our_groups(net, job.coupling, share, 4) for share in SHARES]
        graph = f"vfikit's, as its own raised {type(error).__name__}: {error}"
    first, *others = busy_seconds([wanted, *map(recipe.in_layout, nets)], job.inputs)
    ratios = [seconds / first for seconds in others]
    best = min(range(len(nets)), key=lambda i: abs(ratios[i] - 1))
    facts = {"graph": graph, "share": SHARES[best], "time_to_ours_when_chosen": round(ratios[best], 3)}
    return job.taught(nets[best], job.config.compress_steps), facts


@torch.no_grad()
def busy_seconds(nets: list[nn.Module], inputs: Sequence[Any], rounds: int = 4) -> list[float]:
    """The least processor time of a call of each net, called in turn."""
    taken: list[list[float]] = [[] for _ in nets]
    for _ in range(rounds):
        for net, times in zip(nets, taken, strict=True):
            began = time.process_time()
            net(*inputs)
            times.append(time.process_time() - began)
    return [min(times) for times in taken]


ARMS: dict[str, Callable[[Job], Made]] = {
    "full": full,
    "ours": ours,
    "density": by_density,
    "scratch": scratch,
    "uniform": uniform_width,
    "magnitude": magnitude_alone,
    "longer": longer,
}


def run(job: Job, arm: str, test: Triplets) -> dict[str, Any]:
    """Makes the net of an arm, saves it, and says how good it is."""
    torch.manual_seed(job.seed)
    began = time.process_time()
    net, facts = ARMS[arm](job)
    seconds = time.process_time() - began
    checkpoints.save(net.eval(), job.path(arm), arm=arm, seed=job.seed)
    net = job.net(arm)
    quality = TASKS[job.model].quality(net, test, job.config.limit)
    row = {"model": job.model, "seed": job.seed, "arm": arm, "steps": job.steps(arm)}
    row |= {"parameters": compress.parameters(net)}
    return row | {"psnr": quality.psnr, "ssim": quality.ssim, "ie": quality.ie, "cpu_seconds": round(seconds), **facts}


def main(config: Config) -> None:
    if unknown := set(config.arms) - ARMS.keys():
        raise ValueError(f"--arms has {sorted(unknown)}, expected some of {', '.join(ARMS)}")
    path = config.out / "results.jsonl"
    side = config.crop * 5 // 2
    data = Pool(open_triplets(config.data, "train", side), config.pool, side, tqdm)
    test = open_triplets(config.validation, "test", config.size)
    frames = Triplet(*(frame[None] for frame in test[0]))
    config.out.mkdir(parents=True, exist_ok=True)
    for seed, model in itertools.product(range(config.seeds), config.models):
        how = (config.batch_size, config.crop, config.lr, config.teacher, seed)
        job = Job(config, model, seed, Fitting(TASKS[model], data, *how), TASKS[model].inputs(frames))
        done = {(row["model"], row["seed"], row["arm"]) for row in rows(path)}
        for arm in config.arms:
            if (model, seed, arm) in done or (arm == "full" and seed > 0 and not config.train_steps):
                continue
            row = run(job, arm, test)
            append_jsonl(path, row)
            print(f"{model}, seed {seed}, {arm}: {row['psnr']:.2f} dB", flush=True)
    if config.measure:
        print(account(config, rows(path), {model: TASKS[model].inputs(frames) for model in config.models}))


def account(config: Config, done: list[dict[str, Any]], calls: dict[str, tuple[Any, ...]]) -> str:
    """Measures what is done, model by model, and writes the report; gives the table."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
    settings |= {"data": bare(config.data), "validation": bare(config.validation)}
    found: list[dict[str, Any]] = []
    for model, inputs in calls.items():
        own = [row for row in done if row["model"] == model and row["seed"] < config.seeds]
        own.sort(key=lambda row: (list(ARMS).index(row["arm"]), row["seed"]))
        found += measured(own, config.out, inputs)
        settings[f"measured {model}"] = compress.conditions(inputs)
    return report(config.report or config.out / "compression.json", settings, found)


def bare(spec: str) -> str:
    """Data without the folders that it lies in."""
    return re.sub(r"[^,]*/", "", spec)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    recipe.run(main, Config)
