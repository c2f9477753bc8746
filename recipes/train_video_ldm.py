"""Trains Video-LDM, a stage at a time; each begins with what --init holds, and the temporal ones leave images alone.

    python recipes/train_video_ldm.py --stage autoencoder --steps 2000 --out runs/autoencoder
    python recipes/train_video_ldm.py --stage image --init runs/autoencoder/model.safetensors --out runs/image
    python recipes/train_video_ldm.py --stage temporal --init runs/image/model.safetensors --out runs/temporal
    python recipes/train_video_ldm.py --stage prediction --init runs/temporal/model.safetensors
    python recipes/train_video_ldm.py --resume runs/temporal

Then decoder, interpolation, upsampler, in any order. Writes model.safetensors (the averaged weights), state.pt
(--resume goes on exactly there), log.jsonl and config.json; prints where they are.
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
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Clips, open_clips
from vfikit.files import InputError, write_json
from vfikit.layers.temporal import project
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.models.text import encode_text
from vfikit.models.video_ldm.schedule import BETWEEN
from vfikit.tasks import video_ldm as task
from vfikit.tasks.video_ldm_stages import StageLoss, trained


@dataclass(frozen=True)
class Config:
    stage: Literal["autoencoder", "image", "temporal", "decoder", "prediction", "interpolation", "upsampler"] = (
        "temporal"
    )
    """What is trained. autoencoder and image are the image model, for those who have none."""
    preset: str = "small"
    """Size of the model: small, published, driving or text."""
    init: Path | None = None
    """Checkpoint to start from: .safetensors, or the U-Net of Stable Diffusion or of the published code (.pth)."""
    data: str = "synthetic"
    """synthetic, a folder of videos or of folders of frames, or a list as WebVid's (.csv), whose captions are read."""
    out: Path | None = None
    """Folder for the run; runs/train_video_ldm/<date-time> by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes, and --steps where given."""
    seed: int = 0
    """Of the first weights, the scenes, the order of the data, times and noise."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 10,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
    batch_size: int = 2
    """Clips a step and process."""
    frames: int | None = None
    """Frames of a clip; the model's window unless given, always 5 for interpolation."""
    stride: int = 1
    """Frames of the data from one of a clip to the next; interpolation takes this and four times as much."""
    size: tuple[int, int] | None = None
    """Height and width that files are scaled and cut to; the model's unless given."""
    crop: int | None = None
    """Side of random crops; the whole clip unless given, a part of it for the upsampler."""
    lr: float = 2e-4
    """Learning rate, risen over the first hundred steps."""
    lpips_weights: Path | None = None
    """State dict of the LPIPS VGG network (.pth) for the perceptual term of autoencoder and decoder."""
    discriminator_start: int | None = None
    """Step at which the PatchGAN (3-D for the decoder) joins autoencoder's and decoder's loss; none unless given."""
    discriminator_width: int = 64
    """Width of its first layer."""
    divergence: float = 1e-4
    """Weight of the posterior's divergence, a mean over pixels, in the autoencoder's loss."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is written; 0 for none."""
    gradient_checkpointing: bool = False
    """Compute the U-Net twice, for less memory."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the model."""
    device: str = "auto"
    """auto, cpu or cuda."""
    log_every: int = 50
    """Steps from one line of log.jsonl to the next."""
    save_every: int = 500
    """Steps from one saved state to the next."""


class Run:
    """What a run carries from step to step: the networks, their averages and optimizers, the count of steps."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.step, self.ema = 0, config.ema
        given = config.init
        model = recipe.load_model("video-ldm", config.preset, given) if given else build("video-ldm", config.preset)
        parameters = trained(model, config.stage)
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        if config.gradient_checkpointing:
            for net in (model.generator, model.interpolator, model.upsampler and model.upsampler.denoiser):
                if net is not None:
                    net.unet.enable_gradient_checkpointing()
        perceptual = None
        if config.lpips_weights is not None:
            perceptual = LPIPS(checkpoints.read_state_dict(config.lpips_weights), "vgg")
        self.model = model.to(device).train()
        self.stage = StageLoss(
            *(model, config.stage, config.divergence, perceptual),
            *(config.discriminator_start, config.discriminator_width),
        ).to(device)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0, foreach=True)
        self.rising = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.01, total_iters=100)
        self.kept: dict[str, Any] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self.kept["rising"] = self.rising
        if (discriminator := self.stage.game.discriminator) is not None:
            self.judge = torch.optim.Adam(discriminator.parameters(), lr=config.lr, betas=(0.5, 0.9), foreach=True)
            self.kept |= {"discriminator": discriminator, "judge": self.judge}

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


def text_of(model: Any, data: Clips, batch: task.ClipBatch) -> Tensor | None:
    """The captions as the networks read them; None for a model without a text encoder."""
    if not model.config.text_encoder:
        return None
    captions = [data.caption(item) for item in batch.item.tolist()]
    return encode_text(model.config.text_encoder, captions, model.no_text(1))


def main(config: Config) -> None:
    recipe.check_device(config.device)
    config, state = training.settings(config, {"steps": 10_000}, ("init", "lpips_weights"))
    numbers = recipe.build_on_meta("video-ldm", config.preset).config
    height, width = config.size or numbers.size
    if config.size is None and config.stage == "upsampler":
        height, width = 4 * height, 4 * width
    if config.crop is None and config.stage == "upsampler":
        config = replace(config, crop=min(height, width) // 4)
    side = config.crop or min(height, width)
    if config.discriminator_start is not None and side < 24:
        raise InputError(
            f"frames of {side} pixels, expected at least 24: the discriminator judges patches of that size"
        )
    data = open_clips(config.data, "train", (height, width), config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    run = Run(config, accelerator.device)
    module, optimizer = accelerator.prepare(run.stage, run.optimizer)
    run.kept |= {} if accelerator.scaler is None else {"scaler": accelerator.scaler}
    if state is not None:
        run.load(state)
    shard = (accelerator.process_index, accelerator.num_processes)
    between = config.stage == "interpolation"
    frames = BETWEEN + 1 if between else config.frames or numbers.frames
    strides = (BETWEEN * config.stride, config.stride) if between else (config.stride,)
    plan = (data, config.batch_size, config.crop, config.seed, config.steps, run.step, shard, frames, strides)
    batches = task.batches(*plan)
    first = next(batches, None)  # data that cannot be read fails here, before anything is written
    if first is None:
        raise InputError(f"--steps is {config.steps}, expected more than the {run.step} done")
    folder = recipe.out_folder("train_video_ldm", config.out)
    if accelerator.is_main_process:
        write_json(folder / "config.json", {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()})
    log, end = recipe.StepLog(folder / "log.jsonl"), time.monotonic() + 60 * (config.minutes or math.inf)
    with tqdm(total=config.steps, initial=run.step, disable=not accelerator.is_main_process) as progress:
        for batch in training.until(end, accelerator, itertools.chain([first], batches)):
            text = text_of(run.model, data, batch)
            log.add(take_step(run, accelerator, module, optimizer, batch, text))
            progress.update()
            if not accelerator.is_main_process:
                continue
            if run.step % config.log_every == 0:
                progress.set_postfix(loss=f"{log.write(run.step)['loss']:.4f}")
            if run.step % config.save_every == 0:
                run.save(config, folder)
    if accelerator.is_main_process:
        run.save(config, folder)
        print(f"weights, state and log are in {folder}")


def take_step(
    run: Run, accelerator: Accelerator, module: Any, optimizer: Any, batch: task.ClipBatch, text: Tensor | None
) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    batch, game = task.ClipBatch(*(part.to(accelerator.device) for part in batch)), run.stage.game
    losses, made = module(batch, text, run.step)
    accelerator.backward(losses["loss"])
    accelerator.clip_grad_norm_(run.model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    run.rising.step()
    project(run.model)
    if game.discriminator is not None:
        run.judge.zero_grad()  # what the generator's term left there
        judged = game.discriminator_loss(made, run.stage.seen(batch.frames), run.step)
        judged.total.backward()
        for parameter in game.discriminator.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
        run.judge.step()
        losses["discriminator"] = judged.total
    training.update_average(run.average, run.model, run.ema, run.step)
    run.step += 1
    return losses


if __name__ == "__main__":
    recipe.run(main, Config)
