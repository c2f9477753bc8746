"""Trains AdaCoF, its compressed forms or CDFI: the published losses and schedule by default.

    python recipes/train_adacof.py --steps 500
    python recipes/train_adacof.py --data synthetic,PATH@train:3 --validation PATH@test --steps 20000 --schedule cosine
    python recipes/train_adacof.py --resume runs/train_adacof/20260101-120000

Writes model.safetensors (the averaged weights), state.pt (--resume goes on exactly there), log.jsonl and config.json;
prints the last validation's PSNR and where they are. On several GPUs: accelerate launch recipes/train_adacof.py ...
"""

import copy
import itertools
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Triplet, Triplets, open_triplets
from vfikit.files import InputError, write_json
from vfikit.losses import ADVERSARIES, Objective, VGGLoss, adversarial_term, parse_terms
from vfikit.models import build
from vfikit.tasks import interpolation


@dataclass(frozen=True)
class Config:
    model: str = "adacof"
    """adacof, adacof+, adacof-compressed, adacof+-compressed or cdfi."""
    preset: str = "small"
    """Size of the model, small or published."""
    init: Path | None = None
    """Checkpoint to start from (.safetensors, or a published .pth); random weights otherwise."""
    data: str = "synthetic"
    """synthetic, or PATH[@PART][:WEIGHT], joined by commas; see docs/train-and-evaluate.md."""
    validation: str | None = None
    """As --data; its test part is read where it has one. synthetic unless given, on --resume what the run has."""
    out: Path | None = None
    """Folder for the run; runs/train_adacof/<date-time> by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes, and --steps and --validation where given."""
    seed: int = 0
    """Of the first weights, the scenes, the order of the data and its augmentation."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 20,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
    batch_size: int = 4
    """Triplets a step and process."""
    crop: int = 128
    """Side of the random crops, and of synthetic frames; published: 256."""
    terms: str | None = None
    """Loss, a sum of WEIGHT*TERM; 1*Charb+0.01*g_Spatial+0.005*g_Occlusion unless given (CDFI: without the last).
    Others: L1, MSE, Warp, VGG, and one of FI_GAN, GAN, WGAN, WGAN_GP, T_WGAN_GP."""
    vgg_weights: Path | None = None
    """For the term VGG: torchvision's VGG-16 state dict."""
    lr: float = 1e-3
    """Learning rate of Adamax."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """How the learning rate falls: halved at times (published), or to zero at the last step."""
    halve_every: int = 20
    """Epochs after which the step schedule halves the rate; an epoch is one pass over --data."""
    warmup: int = 0
    """Steps over which the learning rate rises."""
    clip: float = 1.0
    """Largest gradient norm; 0 for none (published)."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is validated and written; 0 for none (published)."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the model."""
    channels_last: bool = False
    """Memory layout of the model: faster on most machines."""
    device: str = "auto"
    """auto, cpu or cuda."""
    log_every: int = 50
    """Steps from one line of log.jsonl to the next."""
    save_every: int = 500
    """Steps from one saved state to the next."""
    validate_every: int = 2000
    """Steps from one validation to the next."""
    validation_limit: int | None = None
    """Triplets to validate on; all where left out."""


PATHS = ("init", "vgg_weights")


def learning_rate(config: Config, step: int, steps_an_epoch: int) -> float:
    rate = training.learning_rate(config.lr, step, config.steps or 1, config.warmup, config.schedule == "cosine")
    return rate * 0.5 ** (step // (max(1, config.halve_every * steps_an_epoch))) if config.schedule == "step" else rate


class Run:
    """What a run carries from step to step: the networks, their averages and optimisers, the count of steps."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.step = 0
        model = build(config.model, config.preset)
        model = model if config.init is None else recipe.load_model(config.model, config.preset, config.init)
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.model = model.to(device, memory_format=layout).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adamax(self.model.parameters(), lr=config.lr, foreach=True)
        self.kept: dict[str, Any] = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        vgg = VGGLoss(checkpoints.read_state_dict(config.vgg_weights)).to(device) if config.vgg_weights else None
        name = adversarial_term(parse_terms(config.terms or interpolation.TERMS))
        self.adversary = None
        if name is not None:
            self.adversary = ADVERSARIES[name]().to(device)
            self.adversary_optimizer = self.adversary.optimizer(config.lr / 10)
            self.kept |= {"adversary": self.adversary, "adversary_optimizer": self.adversary_optimizer}
        self.training = interpolation.Training(
            self.model, Objective(config.terms, vgg, self.adversary) if config.terms else None
        )

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        for name, part in self.kept.items():
            part.load_state_dict(state[name])

    def save(self, config: Config, folder: Path) -> None:
        states = {name: part.state_dict() for name, part in self.kept.items()}
        training.save_state({"step": self.step, "rng": torch.get_rng_state(), **states}, folder / "state.pt")
        path = folder / "model.safetensors"
        checkpoints.save(self.average, path, step=self.step, data=config.data, seed=config.seed)

    def teach_adversary(self, batch: Triplet, made: Tensor, accelerator: Accelerator) -> Tensor:
        assert self.adversary is not None
        self.adversary_optimizer.zero_grad()  # what the generator's term left there
        loss = self.adversary.discriminator_loss(batch.frame0, made.float(), batch.frame1, batch.target)
        loss.backward()
        for parameter in self.adversary.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
        self.adversary_optimizer.step()
        self.adversary.constrain()
        return loss


def main(config: Config) -> None:
    recipe.check_device(config.device)
    config, state = training.settings(config, {"steps": 20_000, "validation": "synthetic"}, PATHS)
    data = open_triplets(config.data, "train", config.crop, config.seed)
    validation = open_triplets(config.validation or "synthetic", "test", config.crop, config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    run = Run(config, accelerator.device)
    module, optimizer = accelerator.prepare(run.training, run.optimizer)
    run.kept |= {} if accelerator.scaler is None else {"scaler": accelerator.scaler}
    if state is not None:
        run.load(state)
    shard = (accelerator.process_index, accelerator.num_processes)
    batches = interpolation.batches(data, config.batch_size, config.crop, config.seed, config.steps, run.step, shard)
    first = next(batches, None)  # data that cannot be read fails here, before anything is written
    if first is None:
        raise InputError(f"--steps is {config.steps}, expected more than the {run.step} done")
    folder = recipe.out_folder("train_adacof", config.out)
    if accelerator.is_main_process:
        write_json(folder / "config.json", {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()})
    log, end = recipe.StepLog(folder / "log.jsonl"), time.monotonic() + 60 * (config.minutes or math.inf)
    with tqdm(total=config.steps, initial=run.step, disable=not accelerator.is_main_process) as progress:
        for batch in training.until(end, accelerator, itertools.chain([first], batches)):
            rate = learning_rate(config, run.step, len(data) // (config.batch_size * shard[1]))
            log.add(take_step(config, run, accelerator, module, optimizer, batch, rate))
            progress.update()
            if not accelerator.is_main_process:
                continue
            if run.step % config.log_every == 0:
                progress.set_postfix(loss=f"{log.write(run.step, lr=rate)['loss']:.4f}")
            if run.step % config.save_every == 0:
                run.save(config, folder)
            if run.step % config.validate_every == 0 and run.step != config.steps:
                validate(config, run, validation, log)
    if accelerator.is_main_process:
        run.save(config, folder)
        validate(config, run, validation, log)
        print(f"weights, state and log are in {folder}")


def take_step(
    config: Config, run: Run, accelerator: Accelerator, module: Any, optimizer: Any, batch: Triplet, rate: float
) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batch = Triplet(*(frames.to(accelerator.device, memory_format=layout) for frames in batch))
    losses, made = module(*batch)
    accelerator.backward(losses.total)
    norm = accelerator.clip_grad_norm_(run.model.parameters(), config.clip or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    taught = {} if run.adversary is None else {"discriminator": run.teach_adversary(batch, made, accelerator)}
    training.update_average(run.average, run.model, config.ema, run.step)
    run.step += 1
    return {"loss": losses.total, **losses.parts, **taught, "norm": norm}


def validate(config: Config, run: Run, data: Triplets, log: recipe.StepLog) -> None:
    quality = interpolation.quality(run.average, data, config.validation_limit)
    log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on {config.validation}")


if __name__ == "__main__":
    recipe.run(main, Config)
