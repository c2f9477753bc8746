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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import Clips, open_clips
from vfikit.data.clips import long_enough
from vfikit.files import InputError
from vfikit.losses import VideoAutoencoderLoss
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.models.lvdm import autoencoder_alone
from vfikit.tasks import clips
from vfikit.tasks import lvdm as task
from vfikit.tasks.video_ldm_stages import NO_TEXT
from vfikit.training_run import TrainingConfig, TrainingRun, accelerator, settings


@dataclass(frozen=True)
class Config(TrainingConfig):
    stage: Literal["autoencoder", "scale", "short", "prediction", "interpolation"] = "autoencoder"
    """What is trained; all but the autoencoder need a trained one in --init."""
    preset: str = "small"
    """Size of the model: small, or one of the published (docs/generate-a-video.md lists them); of a U-Net that --init
    has not: it is added."""
    from_short: bool = False
    """Begin prediction or interpolation with the weights for short clips in --init; published: anew."""
    data: str = "synthetic"
    """synthetic, a folder of videos or of folders of frames (UCF-101, Sky Timelapse, TaiChi), or a .csv list."""
    batch_size: int = 2
    """Clips a step and process; published: 1 for the autoencoder, then 3, 2 and 2."""
    size: int = 64
    """Side of the clips in pixels; published: 256."""
    crop: int | None = None
    """Side of the random squares cut from clips to train on; whole clips unless given, as published."""
    stride: int = 1
    """Frames from one frame of a clip to the next."""
    lr: float = 2e-4
    """Learning rate; published: 3.6e-5 for the autoencoder, 6e-5 for short clips, 8e-5 for the others."""
    betas: tuple[float, float] | None = None
    """Of Adam; 0.5 and 0.9 for the autoencoder, 0.9 and 0.999 for U-Nets unless given, as published."""
    warmup: int = 0
    """Steps over which the learning rate rises."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether the learning rate falls to zero at the last step; published: constant."""
    clip: float = 0.0
    """Largest gradient norm; 0 for none (published)."""
    norm: Literal["l1", "l2"] = "l1"
    """Of the autoencoder's reconstruction: as in the published code (l1), or as in the paper (l2)."""
    kl: float = 1e-6
    """Weight of the posterior's divergence in the autoencoder's loss; published: 0."""
    tint: float = 0.0
    """Deviation of a colour that is added to each clip for the autoencoder; published: 0. Brightness is learned first:
    without it a short training ends in grey."""
    lpips_weights: Path | None = None
    """State dict of the LPIPS VGG network (.pth) for the perceptual term (published); without it there is none."""
    discriminator_start: int | None = None
    """Step at which the PatchGAN joins the autoencoder's loss; None for never; published: 50,001."""
    ema: float | None = None
    """Decay of the averaged weights, which are what is validated and written; 0.9999 for U-Nets and 0, none, for the
    autoencoder unless given, as published."""
    checkpointing: bool = False
    """Recompute a U-Net's blocks in the backward pass: less memory, more time."""
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

    def forward(self, frames: Tensor, step: int, text: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, ``loss`` the one that is trained on, and the frames that were made (by U-Nets: none)."""
        if self.game is None:
            return {"loss": task.denoising(self.model, self.name, frames, text=text)}, frames
        made, kl = task.reconstruction(self.model, frames)
        losses = self.game(made.float(), frames, kl.float(), self.model.autoencoder.last_layer, step)
        values = losses.total / frames[0, 0].numel()
        found = {"adversarial": losses.adversarial, "kl": kl.mean(), "l1": (made - frames).abs().mean()}
        return {"loss": values, **found}, made.float()


class Networks:
    """The model with a stage's loss, its average, their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        model = starting_point(config).to(device)
        if config.from_short:
            task.begin_with_short(model, config.stage)
        model.requires_grad_(False)
        self.stage = Stage(model, config).to(device)
        self.module: Any = self.stage
        self.stage.trained.requires_grad_(True).train()
        if config.checkpointing and self.stage.game is None:
            self.stage.trained.checkpoint_blocks()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        parameters = list(self.stage.trained.parameters())
        kind, betas = (torch.optim.AdamW, (0.9, 0.999)) if self.stage.game is None else (torch.optim.Adam, (0.5, 0.9))
        self.optimizer = kind(parameters, lr=config.lr, betas=config.betas or betas, foreach=True)
        self.kept: dict[str, Any] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self.judge: torch.optim.Optimizer | None = None
        if self.stage.game is not None and (discriminator := self.stage.game.discriminator) is not None:
            self.judge = torch.optim.Adam(discriminator.parameters(), lr=config.lr, betas=(0.5, 0.9), foreach=True)
            self.kept |= {"discriminator": discriminator, "judge": self.judge}
        self.decay = config.ema if config.ema is not None else (0.9999 if self.stage.game is None else 0.0)


def starting_point(config: Config) -> Any:
    if config.init is not None:
        return initial(config, config.init)
    if config.stage != "autoencoder":
        raise InputError(f"--stage {config.stage}: got no --init, expected a checkpoint with a trained autoencoder")
    return build("lvdm", config.preset)


def initial(config: Config, path: Path) -> Any:
    """The model of ``path``; the preset's U-Net of the stage is added where that has none."""
    preset = recipe.build_on_meta("lvdm", config.preset).config
    model: Any
    state = {} if path.suffix == ".safetensors" else checkpoints.read_state_dict(path)
    if state and autoencoder_alone(state):
        alone = build(replace(preset, short=None, prediction=None, interpolation=None))
        model = checkpoints.load_published(alone, state).eval()
    else:
        model = recipe.load_model("lvdm", config.preset, path)
    if config.stage not in ("autoencoder", "scale", *model.stages):
        if getattr(preset, config.stage) is None:
            raise InputError(f"--preset {config.preset}: has no U-Net {config.stage!r}, nor has {path}")
        model.add_unet(config.stage, preset)
    return model


def main(config: Config) -> None:
    config, state = settings(config, {"steps": 20_000})
    if config.checkpointing and config.stage in ("autoencoder", "scale"):
        raise InputError(f"--checkpointing: is of U-Nets, expected none for --stage {config.stage}")
    data: Clips = open_clips(config.data, "train", (config.size, config.size), config.seed)
    held_out: Clips = open_clips(config.data, "test", (config.size, config.size), config.seed)
    accelerate = accelerator(config)
    if config.stage == "scale":
        measure_scale(config, starting_point(config).to(accelerate.device), data)
        return
    nets = Networks(config, accelerate.device)
    if any((side or 0) % (covered := nets.average.factors[1]) for side in (config.size, config.crop)):
        raise InputError(f"--size, --crop: expected multiples of {covered}, the pixels that one of a latent covers")
    judge = nets.kept.get("discriminator")
    nets.module, nets.optimizer = training.prepared(accelerate, nets.module, nets.optimizer, judge)
    run = TrainingRun("train_lvdm", config, accelerate, nets.kept, state)
    frames, strides = task.clip_frames(nets.average, config.stage), (config.stride,)
    data, held_out = long_enough(data, frames), long_enough(held_out, frames)
    plan = (config.batch_size, config.crop, config.seed, config.steps, run.step, run.shard, frames, strides)
    with run.over(clips.batches(data, *plan)) as left:
        for batch in left:
            captions = [data.caption(item) for item in batch.item.tolist()]
            run.done(take_step(config, run, nets, batch.frames.to(accelerate.device), captions))
            if run.due(config.save_every):
                run.save(nets.average, stage=config.stage)
            if run.due(config.validate_every):
                validate(config, run, nets, held_out)
    if run.main:
        if config.stage == "autoencoder":
            set_scale(config, nets.average, data)
        run.save(nets.average, stage=config.stage)
        validate(config, run, nets, held_out)
        print(f"weights, state and log are in {run.folder}")


def take_step(
    config: Config, run: TrainingRun, nets: Networks, frames: Tensor, captions: list[str]
) -> dict[str, Tensor]:
    """One step of everything; returns what to log."""
    cosine = config.schedule == "cosine"
    rate = training.learning_rate(config.lr, run.step, config.steps or 1, config.warmup, cosine)
    training.set_rate(nets.optimizer, rate)
    if config.tint > 0 and nets.stage.game is not None:
        frames = task.tinted(frames, config.tint)
    text = task.text_of(nets.average, captions, NO_TEXT) if nets.stage.game is None else None
    losses, made = nets.module(frames, run.step, text)
    parameters = nets.stage.trained.parameters()
    losses["norm"] = training.descend(run.accelerator, nets.optimizer, losses["loss"], parameters, config.clip)
    if nets.judge is not None and nets.stage.game is not None:
        judged = nets.stage.game.discriminator_loss(made, frames, run.step).total
        losses["discriminator"] = training.judge_step(run.accelerator, nets.judge, judged)
    training.update_average(nets.average, nets.stage.model, nets.decay, run.step + 1)
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


def validate(config: Config, run: TrainingRun, nets: Networks, data: Clips) -> None:
    """Of the autoencoder, clips from their latents; of U-Nets, the loss by time; of short clips, sampled ones."""
    if nets.stage.game is not None:
        quality = task.reconstructed(nets.average, data, config.validation_limit)
        found = {"psnr": quality.psnr, "ssim": quality.ssim}
    else:
        found = task.by_time(nets.average, config.stage, data, config.validation_limit)
    if config.stage == "short":
        found["frechet_random"] = task.frechet(nets.average, data, 2 * config.validation_limit)
    run.log.note(run.step, **found)
    tqdm.write(f"step {run.step}, held-out: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    recipe.run(main, Config)
