"""Trains AdaCoF, its compressed forms or CDFI: the published losses and schedule by default.

    python recipes/train_adacof.py --steps 500
    python recipes/train_adacof.py --data synthetic,PATH@train:3 --validation PATH@test --steps 20000 --schedule cosine
    python recipes/train_adacof.py --resume runs/train_adacof/20260101-120000

Writes model.safetensors (the averaged weights), state.pt (--resume goes on exactly there), log.jsonl and config.json;
prints the last validation's PSNR and where they are. On several GPUs: accelerate launch recipes/train_adacof.py ...
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Triplet, Triplets, open_triplets
from vfikit.files import InputError
from vfikit.losses import ADVERSARIES, Objective, VGGLoss, adversarial_term, parse_terms
from vfikit.models import build
from vfikit.tasks import TASKS, interpolation
from vfikit.training_run import TrainingConfig, TrainingRun, accelerator, settings


@dataclass(frozen=True)
class Config(TrainingConfig):
    model: str = "adacof"
    """adacof, adacof+, adacof-compressed, adacof+-compressed or cdfi."""
    data: str = "synthetic"
    """synthetic, or PATH[@PART][:WEIGHT], joined by commas; see docs/train-and-evaluate.md."""
    validation: str | None = None
    """As --data; its test part is read where it has one. synthetic unless given, on --resume what the run has."""
    batch_size: int = 4
    """Triplets a step and process."""
    crop: int = 128
    """Side of the random crops, and of synthetic frames; published: 256."""
    terms: str | None = None
    """Loss, a sum of WEIGHT*TERM; 1*Charb+0.01*g_Spatial+0.005*g_Occlusion unless given (CDFI: without the last).
    Others: L1, MSE, Warp, VGG, and one of FI_GAN, GAN, WGAN, WGAN_GP, T_WGAN_GP."""
    vgg_weights: Path | None = None
    """For the term VGG: torchvision's VGG-16 state dict. With it, 1*Charb+0.01*g_Spatial+0.005*VGG is what --terms is
    unless given for CDFI and the compressed forms, as published."""
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
    channels_last: bool = False
    """Memory layout of the model: faster on most machines."""
    validate_every: int = 2000
    """Steps from one validation to the next."""
    validation_limit: int | None = None
    """Triplets to validate on; all where left out."""


def learning_rate(config: Config, step: int, steps_an_epoch: int) -> float:
    rate = training.learning_rate(config.lr, step, config.steps or 1, config.warmup, config.schedule == "cosine")
    return rate * 0.5 ** (step // (max(1, config.halve_every * steps_an_epoch))) if config.schedule == "step" else rate


class Networks:
    """The model with its loss, its average, the adversary if there is one, their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        model = build(config.model, config.preset)
        model = model if config.init is None else recipe.load_model(config.model, config.preset, config.init)
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.model = model.to(device, memory_format=layout).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adamax(self.model.parameters(), lr=config.lr, foreach=True)
        self.kept: dict[str, Any] = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        vgg = VGGLoss(checkpoints.read_state_dict(config.vgg_weights)).to(device) if config.vgg_weights else None
        terms = config.terms
        if vgg is not None and terms is None and config.model not in ("adacof", "adacof+"):
            terms = interpolation.VGG_TERMS
        weights = parse_terms(terms or interpolation.TERMS)
        if vgg is not None and "VGG" not in weights:
            raise InputError(f"--vgg-weights {config.vgg_weights}: no term needs it, expected one of VGG in --terms")
        name = adversarial_term(weights)
        self.adversary = None
        if name is not None:
            self.adversary = ADVERSARIES[name]().to(device)
            self.adversary_optimizer = self.adversary.optimizer(config.lr / 10)
            self.kept |= {"adversary": self.adversary, "adversary_optimizer": self.adversary_optimizer}
        objective = Objective(terms, vgg, self.adversary) if terms else None
        self.module: Any = interpolation.Training(self.model, objective)


def main(config: Config) -> None:
    config, state = settings(config, {"steps": 20_000, "validation": "synthetic"})
    if TASKS.get(config.model, interpolation) is not interpolation:  # unknown names are said by build
        raise InputError(f"--model {config.model}: expected adacof, one of its forms or cdfi")
    recipe.at_least(config, 7, "crop")  # the window of SSIM
    data = open_triplets(config.data, "train", config.crop, config.seed)
    validation = open_triplets(config.validation or "synthetic", "test", config.crop, config.seed)
    accelerate = accelerator(config)
    nets = Networks(config, accelerate.device)
    nets.module, nets.optimizer = accelerate.prepare(nets.module, nets.optimizer)
    run = TrainingRun("train_adacof", config, accelerate, nets.kept, state)
    batches = interpolation.batches(
        data, config.batch_size, config.crop, config.seed, config.steps, run.step, run.shard
    )
    epoch = len(data) // (config.batch_size * accelerate.num_processes)
    with run.over(batches) as left:
        for batch in left:
            rate = learning_rate(config, run.step, epoch)
            run.done(take_step(config, run, nets, batch, rate), lr=rate)
            if run.due(config.save_every):
                run.save(nets.average)
            if run.due(config.validate_every):
                validate(config, run, nets.average, validation)
    if run.main:
        run.save(nets.average)
        validate(config, run, nets.average, validation)
        print(f"weights, state and log are in {run.folder}")


def take_step(config: Config, run: TrainingRun, nets: Networks, batch: Triplet, rate: float) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    training.set_rate(nets.optimizer, rate)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batch = Triplet(*(frames.to(run.accelerator.device, memory_format=layout) for frames in batch))
    losses, made = nets.module(*batch)
    norm = training.descend(run.accelerator, nets.optimizer, losses.total, nets.model.parameters(), config.clip)
    found = {"loss": losses.total, **losses.parts, "norm": norm}
    if nets.adversary is not None:
        judged = nets.adversary.discriminator_loss(batch.frame0, made.float(), batch.frame1, batch.target)
        found["discriminator"] = training.judge_step(run.accelerator, nets.adversary_optimizer, judged)
        nets.adversary.constrain()
    training.update_average(nets.average, nets.model, config.ema, run.step + 1)
    return found


def validate(config: Config, run: TrainingRun, model: Any, data: Triplets) -> None:
    quality = interpolation.quality(model, data, config.validation_limit)
    run.log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on {config.validation}")


if __name__ == "__main__":
    recipe.run(main, Config)
