"""Trains LDMVFI in its two stages: the autoencoder VQ-FIGAN, then the denoiser on its latents.

    python recipes/train_ldmvfi.py --stage autoencoder --steps 500 --out runs/autoencoder
    python recipes/train_ldmvfi.py --stage denoiser --init runs/autoencoder/model.safetensors --steps 500
    python recipes/train_ldmvfi.py --resume runs/autoencoder

Writes model.safetensors (both networks, the averaged weights), state.pt (--resume goes on exactly there), log.jsonl and
config.json; prints the last validation's PSNR and where they are.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Triplet, Triplets, open_triplets
from vfikit.files import InputError
from vfikit.losses import VQGANLoss
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.tasks import interpolation
from vfikit.tasks import latent_interpolation as task
from vfikit.training_run import TrainingConfig, TrainingRun, accelerator, settings


@dataclass(frozen=True)
class Config(TrainingConfig):
    stage: Literal["autoencoder", "denoiser"] = "autoencoder"
    """What is trained; the denoiser needs a trained autoencoder in --init."""
    data: str = "synthetic"
    """synthetic, or PATH[@PART][:WEIGHT], joined by commas; see docs/train-and-evaluate.md."""
    validation: str | None = None
    """As --data; its test part is read where it has one. synthetic unless given, on --resume what the run has."""
    batch_size: int = 4
    """Triplets a step and process; published: 10, then 64."""
    crop: int = 128
    """Side of the random crops; published: 256."""
    lr: float = 1e-4
    """Learning rate; published, with its batches: 1e-4, then 6.4e-5."""
    optimizer: Literal["adam", "adamax"] = "adam"
    """Of the autoencoder: Adam with betas 0.5 and 0.9 (published), or Adamax, which starts more steadily."""
    warmup: int = 0
    """Steps over which the learning rate rises."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether the learning rate falls to zero at the last step; published: constant."""
    clip: float = 0.0
    """Largest gradient norm; 0 for none (published)."""
    warp: float = 0.0
    """Weight of the autoencoder's distance from each frame, sampled without the mask, to the target; published: none.
    A short training from scratch otherwise rests at the average of the two."""
    mse: float = 0.0
    """Weight of the autoencoder's mean square error, of frames in [0, 1]; published: none."""
    lpips_weights: Path | None = None
    """State dict of the LPIPS VGG network (.pth) for the perceptual term (published); without it there is none."""
    discriminator_start: int | None = 5000
    """Step at which the PatchGAN joins the autoencoder's loss, None for never; published: 5,000 batches."""
    ema: float | None = None
    """Decay of the averaged weights, which are what is validated and written; 0.9999 for the denoiser and 0, none, for
    the autoencoder unless given, as published."""
    validate_every: int = 2000
    """Steps from one validation to the next."""
    validation_limit: int | None = None
    """Triplets to validate on; all where left out."""


class Stage(nn.Module):
    """The network and its losses as one module, so that wrappers (several devices, autocast) see the whole step."""

    def __init__(self, model: Any, config: Config) -> None:
        super().__init__()
        self.model, self.denoising = model, config.stage == "denoiser"
        self.warp, self.mse = config.warp, config.mse
        perceptual = None
        if config.lpips_weights is not None:
            perceptual = LPIPS(checkpoints.read_state_dict(config.lpips_weights), "vgg")
        self.game = None if self.denoising else VQGANLoss(perceptual, start=config.discriminator_start)
        self.trained = model.denoiser if self.denoising else model.autoencoder

    def forward(self, batch: Triplet, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, ``loss`` their sum, and the frame that was made (of the denoiser, the target)."""
        if self.game is None:
            seen = self.model.denoise(*batch, task.times(self.model, batch))
            return {"loss": (seen.prediction.float() - seen.noise).square().mean()}, batch.target
        made = self.model.reconstruct(*batch, warp=self.warp > 0)
        frame = made.decoded.frame.float()
        last_layer = self.model.autoencoder.decoder.conv_out.weight
        losses = self.game(frame, batch.target, made.codebook_loss, last_layer, step)
        found = {name: value.mean() for name, value in losses._asdict().items() if name != "total"}
        total = losses.total
        if self.warp > 0:
            found["warp"] = sum((warped.float() - batch.target).abs().mean() for warped in made.warped)
            total = total + self.warp * found["warp"]
        if self.mse > 0:
            found["mse"] = (frame - batch.target).square().mean()
            total = total + self.mse * found["mse"]
        return {"loss": total, **found}, frame


class Networks:
    """The model with a stage's loss, its average, their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        if config.init is None:
            if config.stage == "denoiser":
                raise InputError("--stage denoiser: got no --init, expected a checkpoint with a trained autoencoder")
            model = build("ldmvfi", config.preset)
        else:
            model = recipe.load_model("ldmvfi", config.preset, config.init)
        self.stage = Stage(model.to(device).train(), config).to(device)
        self.module: Any = self.stage
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        parameters = list(self.stage.trained.parameters())
        if self.stage.game is None:
            model.autoencoder.eval().requires_grad_(False)
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=config.lr, foreach=True)
        else:
            model.denoiser.requires_grad_(False)
            kind, betas = (
                (torch.optim.Adam, (0.5, 0.9)) if config.optimizer == "adam" else (torch.optim.Adamax, (0.9, 0.999))
            )
            self.optimizer = kind(parameters, lr=config.lr, betas=betas, foreach=True)
        self.kept: dict[str, Any] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self.judge: torch.optim.Optimizer | None = None
        if self.stage.game is not None and (discriminator := self.stage.game.discriminator) is not None:
            self.judge = torch.optim.Adam(discriminator.parameters(), lr=config.lr, betas=(0.5, 0.9), foreach=True)
            self.kept |= {"discriminator": discriminator, "judge": self.judge}
        self.decay = config.ema if config.ema is not None else (0.9999 if self.stage.game is None else 0.0)


def main(config: Config) -> None:
    config, state = settings(config, {"steps": 20_000, "validation": "synthetic"})
    data = open_triplets(config.data, "train", config.crop, config.seed)
    validation = open_triplets(config.validation or "synthetic", "test", config.crop, config.seed)
    accelerate = accelerator(config)
    nets = Networks(config, accelerate.device)
    judge = nets.kept.get("discriminator")
    nets.module, nets.optimizer = training.prepared(accelerate, nets.module, nets.optimizer, judge)
    run = TrainingRun("train_ldmvfi", config, accelerate, nets.kept, state)
    batches = task.batches(data, config.batch_size, config.crop, config.seed, config.steps, run.step, run.shard)
    with run.over(batches) as left:
        for batch in left:
            run.done(take_step(config, run, nets, batch))
            if run.due(config.save_every):
                run.save(nets.average, stage=config.stage)
            if run.due(config.validate_every):
                validate(config, run, nets.average, validation)
    if run.main:
        run.save(nets.average, stage=config.stage)
        validate(config, run, nets.average, validation)
        print(f"weights, state and log are in {run.folder}")


def take_step(config: Config, run: TrainingRun, nets: Networks, batch: Triplet) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    falls = config.schedule == "cosine"
    training.set_rate(
        nets.optimizer, training.learning_rate(config.lr, run.step, config.steps or 1, config.warmup, falls)
    )
    batch = Triplet(*(frames.to(run.accelerator.device) for frames in batch))
    losses, made = nets.module(batch, run.step)
    parameters = nets.stage.trained.parameters()
    losses["norm"] = training.descend(run.accelerator, nets.optimizer, losses["loss"], parameters, config.clip)
    game = nets.stage.game
    if game is not None and nets.judge is not None:
        judged = game.discriminator_loss(made, batch.target, run.step).total
        losses["discriminator"] = training.judge_step(run.accelerator, nets.judge, judged)
    training.update_average(nets.average, nets.stage.model, nets.decay, run.step + 1)
    return losses


def validate(config: Config, run: TrainingRun, model: Any, data: Triplets) -> None:
    """Of the autoencoder, frames from their own latents; of the denoiser, sampled ones."""
    measured = task.reconstruction if config.stage == "autoencoder" else interpolation.quality
    quality = measured(model, data, config.validation_limit)
    run.log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on {config.validation}")


if __name__ == "__main__":
    recipe.run(main, Config)
