"""Trains LDMVFI in its two stages: the autoencoder VQ-FIGAN, then the denoiser on its latents.

    python recipes/train_ldmvfi.py --stage autoencoder --steps 500 --out runs/autoencoder
    python recipes/train_ldmvfi.py --stage denoiser --init runs/autoencoder/model.safetensors --steps 500
    python recipes/train_ldmvfi.py --resume runs/autoencoder

Writes model.safetensors (both networks, the averaged weights), state.pt (--resume goes on exactly there), log.jsonl and
config.json; prints the last validation's PSNR and where they are.
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
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Triplet, Triplets, open_triplets
from vfikit.files import InputError, write_json
from vfikit.losses import VQGANLoss
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.tasks import latent_interpolation as task


@dataclass(frozen=True)
class Config:
    stage: Literal["autoencoder", "denoiser"] = "autoencoder"
    """What is trained; the denoiser needs a trained autoencoder in --init."""
    preset: str = "small"
    """Size of the model, small or published."""
    init: Path | None = None
    """Checkpoint to start from (.safetensors, or a published .ckpt)."""
    data: str = "synthetic"
    """synthetic, or PATH[@train|@test|@all][:WEIGHT], joined by commas; see docs/train-and-evaluate.md."""
    validation: str | None = None
    """As --data; its test part is read where it has one. synthetic unless given, on --resume what the run has."""
    out: Path | None = None
    """Folder for the run; runs/train_ldmvfi/<date-time> by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes, and --steps and --validation where given."""
    seed: int = 0
    """Of the first weights, the scenes, the order of the data, its augmentation, times and noise."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 20,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
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
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the model."""
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


class Run:
    """What a run carries from step to step: the networks, their averages and optimizers, the count of steps."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.step = 0
        if config.init is None:
            if config.stage == "denoiser":
                raise InputError("--stage denoiser: got no --init, expected a checkpoint with a trained autoencoder")
            model = build("ldmvfi", config.preset)
        else:
            model = recipe.load_model("ldmvfi", config.preset, config.init)
        self.stage = Stage(model.to(device).train(), config).to(device)
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

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        for name, part in self.kept.items():
            part.load_state_dict(state[name])

    def save(self, config: Config, folder: Path) -> None:
        states = {name: part.state_dict() for name, part in self.kept.items()}
        training.save_state({"step": self.step, "rng": torch.get_rng_state(), **states}, folder / "state.pt")
        path = folder / "model.safetensors"
        checkpoints.save(self.average, path, step=self.step, data=config.data, seed=config.seed, stage=config.stage)


def main(config: Config) -> None:
    recipe.check_device(config.device)
    defaults = {"steps": 20_000, "validation": "synthetic"}
    config, state = training.settings(config, defaults, ("init", "lpips_weights"))
    data = open_triplets(config.data, "train", config.crop, config.seed)
    validation = open_triplets(config.validation or "synthetic", "test", config.crop, config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    run = Run(config, accelerator.device)
    module, optimizer = accelerator.prepare(run.stage, run.optimizer)
    run.kept |= {} if accelerator.scaler is None else {"scaler": accelerator.scaler}
    if state is not None:
        run.load(state)
    shard = (accelerator.process_index, accelerator.num_processes)
    batches = task.batches(data, config.batch_size, config.crop, config.seed, config.steps, run.step, shard)
    first = next(batches, None)  # data that cannot be read fails here, before anything is written
    if first is None:
        raise InputError(f"--steps is {config.steps}, expected more than the {run.step} done")
    folder = recipe.out_folder("train_ldmvfi", config.out)
    if accelerator.is_main_process:
        write_json(folder / "config.json", {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()})
    log, end = recipe.StepLog(folder / "log.jsonl"), time.monotonic() + 60 * (config.minutes or math.inf)
    with tqdm(total=config.steps, initial=run.step, disable=not accelerator.is_main_process) as progress:
        for batch in training.until(end, accelerator, itertools.chain([first], batches)):
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate(
                    config.lr, run.step, config.steps or 1, config.warmup, config.schedule == "cosine"
                )
            log.add(take_step(run, accelerator, module, optimizer, batch, config.clip))
            progress.update()
            if not accelerator.is_main_process:
                continue
            if run.step % config.log_every == 0:
                progress.set_postfix(loss=f"{log.write(run.step)['loss']:.4f}")
            if run.step % config.save_every == 0:
                run.save(config, folder)
            if run.step % config.validate_every == 0 and run.step != config.steps:
                validate(config, run, validation, log)
    if accelerator.is_main_process:
        run.save(config, folder)
        validate(config, run, validation, log)
        print(f"weights, state and log are in {folder}")


def take_step(
    run: Run, accelerator: Accelerator, module: Any, optimizer: Any, batch: Triplet, clip: float
) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    batch = Triplet(*(frames.to(accelerator.device) for frames in batch))
    losses, made = module(batch, run.step)
    accelerator.backward(losses["loss"])
    if clip > 0:
        losses["norm"] = accelerator.clip_grad_norm_(run.stage.trained.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    game, judge = run.stage.game, run.judge
    if game is not None and judge is not None:
        training.judge_step(judge, accelerator, losses, game.discriminator_loss, made, batch.target, run.step)
    training.update_average(run.average, run.stage.model, run.decay, run.step)
    run.step += 1
    return losses


def validate(config: Config, run: Run, data: Triplets, log: recipe.StepLog) -> None:
    """Of the autoencoder, frames from their own latents; of the denoiser, sampled ones."""
    measured = task.reconstruction if config.stage == "autoencoder" else task.quality
    quality = measured(run.average, data, config.validation_limit)
    log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on {config.validation}")


if __name__ == "__main__":
    recipe.run(main, Config)
