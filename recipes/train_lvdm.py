"""Trains LVDM: the autoencoder, then the U-Nets of short clips, of prediction and of interpolation on its latents.

    python recipes/train_lvdm.py --stage autoencoder --steps 500 --out runs/autoencoder
    python recipes/train_lvdm.py --stage short --init runs/autoencoder/model.safetensors --steps 500 --out runs/short
    python recipes/train_lvdm.py --stage prediction --init runs/short/model.safetensors --steps 500
    python recipes/train_lvdm.py --stage scale --init runs/autoencoder/model.safetensors
    python recipes/train_lvdm.py --resume runs/autoencoder

Writes model.safetensors (all networks, the averaged weights), state.pt (--resume goes on exactly there), log.jsonl and
config.json; prints the last validation and where they are. The autoencoder's stage ends by measuring the scale and
shift of latents; --stage scale measures them alone.
"""

import copy
import itertools
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Clips, open_clips
from vfikit.files import InputError, write_json
from vfikit.losses import VideoAutoencoderLoss
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.tasks import lvdm as task


@dataclass(frozen=True)
class Config:
    stage: Literal["autoencoder", "scale", "short", "prediction", "interpolation"] = "autoencoder"
    """What is trained; all but the autoencoder need a trained one in --init."""
    preset: str = "small"
    """Size of the model, small or one of the published."""
    init: Path | None = None
    """Checkpoint to start from (.safetensors, or a published .ckpt)."""
    data: str = "synthetic"
    """synthetic, a folder of videos or of folders of frames (UCF-101, Sky Timelapse, TaiChi), or a .csv list."""
    out: Path | None = None
    """Folder for the run; runs/train_lvdm/<date-time> by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes, and --steps where given."""
    seed: int = 0
    """Of the first weights, the scenes, the order of the data, masks, times and noise."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 20,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
    batch_size: int = 2
    """Clips a step and process; published: 1 for the autoencoder, then 3, 2 and 2."""
    size: int = 64
    """Side of the clips in pixels; published: 256."""
    stride: int = 1
    """Frames from one frame of a clip to the next."""
    lr: float = 2e-4
    """Learning rate; published: 3.6e-5 for the autoencoder, 6e-5 for short clips, 8e-5 for the others."""
    norm: Literal["l1", "l2"] = "l1"
    """Of the autoencoder's reconstruction: as in the published code (l1), or as in the paper (l2)."""
    kl: float = 1e-6
    """Weight of the posterior's divergence in the autoencoder's loss; published: 0."""
    lpips_weights: Path | None = None
    """State dict of the LPIPS VGG network (.pth) for the perceptual term (published); without it there is none."""
    discriminator_start: int | None = None
    """Step at which the PatchGAN joins the autoencoder's loss; None for never; published: 50,001."""
    ema: float | None = None
    """Decay of the averaged weights, which are what is validated and written; 0.9999 for U-Nets and 0, none, for the
    autoencoder unless given, as published."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, more time."""
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
    validation_limit: int = 8
    """Held-out clips to validate on; twice as many are sampled for frechet_random."""


class Stage(nn.Module):
    """The network and its loss as one module, so that wrappers (several devices, autocast) see the whole step."""

    def __init__(self, model: Any, config: Config) -> None:
        super().__init__()
        self.model, self.name, self.game = model, config.stage, None
        if config.stage == "autoencoder":
            given = config.lpips_weights
            perceptual = None if given is None else LPIPS(checkpoints.read_state_dict(given), "vgg")
            start, kl = config.discriminator_start, config.kl
            self.game = VideoAutoencoderLoss(perceptual, start=start, norm=config.norm, kl_weight=kl)
        self.trained = model.autoencoder if self.game is not None else model.unet(config.stage)

    def forward(self, frames: Tensor, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, ``loss`` the one that is trained on, and the frames that were made (by U-Nets: none)."""
        if self.game is None:
            return {"loss": task.denoising(self.model, self.name, frames)}, frames
        made, kl = task.reconstruction(self.model, frames)
        losses = self.game(made.float(), frames, kl.float(), self.model.autoencoder.last_layer, step)
        values = losses.total / frames[0, 0].numel()
        found = {"adversarial": losses.adversarial, "kl": kl.mean(), "l1": (made - frames).abs().mean()}
        return {"loss": values, **found}, made.float()


class Run:
    """What a run carries from step to step: the networks, their averages and optimizers, the count of steps."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.step = 0
        model = starting_point(config).to(device)
        model.requires_grad_(False)
        self.stage = Stage(model, config).to(device)
        self.stage.trained.requires_grad_(True).train()
        if config.checkpointing and self.stage.game is None:
            self.stage.trained.checkpoint_blocks()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        parameters = list(self.stage.trained.parameters())
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=config.lr, foreach=True)
        if self.stage.game is not None:
            self.optimizer = torch.optim.Adam(parameters, lr=config.lr, betas=(0.5, 0.9), foreach=True)
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


def starting_point(config: Config) -> Any:
    if config.init is not None:
        return recipe.load_model("lvdm", config.preset, config.init)
    if config.stage != "autoencoder":
        raise InputError(f"--stage {config.stage}: got no --init, expected a checkpoint with a trained autoencoder")
    return build("lvdm", config.preset)


def main(config: Config) -> None:
    recipe.check_device(config.device)
    config, state = training.settings(config, {"steps": 20_000}, ("init", "lpips_weights"))
    data = open_clips(config.data, "train", (config.size, config.size), config.seed)
    held_out = open_clips(config.data, "test", (config.size, config.size), config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    if config.stage == "scale":
        measure_scale(config, starting_point(config).to(accelerator.device), data)
        return
    run = Run(config, accelerator.device)
    module, optimizer = accelerator.prepare(run.stage, run.optimizer)
    run.kept |= {} if accelerator.scaler is None else {"scaler": accelerator.scaler}
    if state is not None:
        run.load(state)
    shard = (accelerator.process_index, accelerator.num_processes)
    frames = task.clip_frames(run.average, config.stage)
    sizes = (config.batch_size, config.size, config.seed, config.steps, run.step, shard, frames, (config.stride,))
    batches = task.batches(data, *sizes)
    first = next(batches, None)  # data that cannot be read fails here, before anything is written
    if first is None:
        raise InputError(f"--steps is {config.steps}, expected more than the {run.step} done")
    folder = recipe.out_folder("train_lvdm", config.out)
    if accelerator.is_main_process:
        write_json(folder / "config.json", {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()})
    log, end = recipe.StepLog(folder / "log.jsonl"), time.monotonic() + 60 * (config.minutes or math.inf)
    with tqdm(total=config.steps, initial=run.step, disable=not accelerator.is_main_process) as progress:
        for batch in training.until(end, accelerator, itertools.chain([first], batches)):
            log.add(take_step(run, accelerator, module, optimizer, batch.frames.to(accelerator.device)))
            progress.update()
            if not accelerator.is_main_process:
                continue
            if run.step % config.log_every == 0:
                progress.set_postfix(loss=f"{log.write(run.step)['loss']:.4f}")
            if run.step % config.save_every == 0:
                run.save(config, folder)
            if run.step % config.validate_every == 0 and run.step != config.steps:
                validate(config, run, held_out, log)
    if accelerator.is_main_process:
        if config.stage == "autoencoder":
            set_scale(config, run.average, data)
        run.save(config, folder)
        validate(config, run, held_out, log)
        print(f"weights, state and log are in {folder}")


def take_step(run: Run, accelerator: Accelerator, module: Any, optimizer: Any, frames: Tensor) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    losses, made = module(frames, run.step)
    accelerator.backward(losses["loss"])
    optimizer.step()
    optimizer.zero_grad()
    if run.judge is not None and run.stage.game is not None:
        training.judge_step(run.judge, accelerator, losses, run.stage.game.discriminator_loss, made, frames, run.step)
    training.update_average(run.average, run.stage.model, run.decay, run.step)
    run.step += 1
    return losses


def set_scale(config: Config, model: Any, data: Clips, batches: int = 16) -> None:
    """Puts scale and shift of latents of training clips into the model's config, and prints them."""
    found = task.batches(data, 2, config.size, config.seed + 1, batches, frames=task.clip_frames(model, "autoencoder"))
    scale, shift = task.latent_moments(model, found)
    model.config = replace(model.config, scale=scale, shift=shift)
    print(f"latents: scale {scale:.6f}, shift {shift:.6f}")


def measure_scale(config: Config, model: Any, data: Clips) -> None:
    set_scale(config, model, data)
    folder = recipe.out_folder("train_lvdm", config.out)
    checkpoints.save(model, folder / "model.safetensors", data=config.data, stage="scale")
    print(f"{folder / 'model.safetensors'}: the model with them")


def validate(config: Config, run: Run, data: Clips, log: recipe.StepLog) -> None:
    """Of the autoencoder, clips from their latents; of U-Nets, the loss by time; of short clips, sampled ones."""
    if run.stage.game is not None:
        quality = task.reconstructed(run.average, data, config.validation_limit)
        found = {"psnr": quality.psnr, "ssim": quality.ssim}
    else:
        found = task.by_time(run.average, config.stage, data, config.validation_limit)
    if config.stage == "short":
        found["frechet_random"] = task.frechet(run.average, data, 2 * config.validation_limit)
    log.note(run.step, **found)
    tqdm.write(f"step {run.step}, held-out: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    recipe.run(main, Config)
