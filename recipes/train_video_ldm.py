"""Trains Video-LDM, a stage at a time; each begins with what --init holds, and the temporal ones leave images alone.

    python recipes/train_video_ldm.py --stage autoencoder --steps 2000 --out runs/autoencoder
    python recipes/train_video_ldm.py --stage image --init runs/autoencoder/model.safetensors --out runs/image
    python recipes/train_video_ldm.py --stage temporal --init runs/image/model.safetensors --out runs/temporal
    python recipes/train_video_ldm.py --stage prediction --init runs/temporal/model.safetensors
    python recipes/train_video_ldm.py --resume runs/temporal

Then decoder, interpolation, upsampler, in any order. Writes model.safetensors (the averaged weights), state.pt
(--resume goes on exactly there), log.jsonl and config.json; prints where they are. Steps whose loss or gradient is not
finite are skipped and reported.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vfikit import checkpoints, recipe, training
from vfikit.data import Clips, open_clips
from vfikit.data.clips import FileClips
from vfikit.files import InputError
from vfikit.layers.temporal import project
from vfikit.metrics import LPIPS
from vfikit.models import build
from vfikit.models.text import encode_text
from vfikit.models.video_ldm.schedule import BETWEEN
from vfikit.models.video_ldm.upsampler import FACTOR
from vfikit.tasks import clips
from vfikit.tasks import video_ldm as task
from vfikit.tasks.video_ldm_stages import AtItsStride, StageLoss, trained
from vfikit.training_run import TrainingConfig, TrainingRun, accelerator, settings

DECODERS_DISCRIMINATOR = 1000  # step at which it joins unless told otherwise


@dataclass(frozen=True)
class Config(TrainingConfig):
    stage: Literal["autoencoder", "image", "temporal", "decoder", "prediction", "interpolation", "upsampler"] = (
        "temporal"
    )
    """What is trained. autoencoder and image are the image model, for those who have none."""
    preset: str = "small"
    """Size of the model: small, published, driving or text."""
    init: Path | None = None
    """Checkpoint to start from: .safetensors of vfikit, a folder of Stable Diffusion, or the published code's .pth."""
    data: str = "synthetic"
    """synthetic, a folder of videos or of folders of frames, or a list as WebVid's (.csv), whose captions are read."""
    text_encoder: str | None = None
    """Of transformers, a name or a folder, to read the captions; what --init or the preset has where left out."""
    upsampler_autoencoder: Path | None = None
    """Folder of Stable Diffusion's 4x upscaler, or its vae: whose latents an upsampler of latents (text) diffuses."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 10,000 unless given, on --resume what the run has."""
    batch_size: int = 2
    """Clips a step and process."""
    frames: int | None = None
    """Frames of a clip; the model's window unless given, always 5 for interpolation."""
    stride: int = 1
    """Frames of the data from one of a clip to the next; interpolation takes this and four times as much. Of data at 30
    frames a second, 16 for key frames (1.875 a second) and 1 for interpolation (to 7.5 and to 30)."""
    size: tuple[int, int] | None = None
    """Height and width that files are scaled and cut to; the model's unless given."""
    crop: int | None = None
    """Side of random crops; the whole clip unless given, a quarter of its shorter side for the upsampler."""
    lr: float = 2e-4
    """Learning rate, risen over the first hundred steps."""
    lpips_weights: Path | None = None
    """State dict of the LPIPS VGG network (.pth) for the perceptual term of autoencoder and decoder."""
    discriminator_start: int | None = None
    """Step at which the PatchGAN (3-D for the decoder) joins autoencoder's and decoder's loss; unless given 1000 for
    the decoder and never for the autoencoder; -1 is never."""
    discriminator_width: int = 64
    """Channels of the PatchGAN's first layer."""
    divergence: float = 1e-4
    """Weight of the posterior's divergence, a mean over pixels, in the autoencoder's loss."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is written; 0 for none."""
    gradient_checkpointing: bool = False
    """Compute the U-Net twice, for less memory."""


class Networks:
    """The model with a stage's loss, its average, their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        given = config.init
        model = recipe.load_model("video-ldm", config.preset, given) if given else build("video-ldm", config.preset)
        if config.text_encoder is not None:
            recipe.read_prompts_by(model, config.text_encoder)
        if config.upsampler_autoencoder is not None:
            recipe.upsample_in(model, config.upsampler_autoencoder)
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
            *(joins_at(config), config.discriminator_width),
        ).to(device)
        self.module: Any = self.stage
        self.descend = training.FiniteDescent()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0, foreach=True)
        self.rising = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.01, total_iters=100)
        self.kept: dict[str, Any] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self.kept["rising"] = self.rising
        if (discriminator := self.stage.game.discriminator) is not None:
            self.judge = torch.optim.Adam(discriminator.parameters(), lr=config.lr, betas=(0.5, 0.9), foreach=True)
            self.kept |= {"discriminator": discriminator, "judge": self.judge}


def joins_at(config: Config) -> int | None:
    """The step at which the discriminator joins; None is never."""
    if config.discriminator_start is None:
        return DECODERS_DISCRIMINATOR if config.stage == "decoder" else None
    return None if config.discriminator_start < 0 else config.discriminator_start


def check(config: Config, model: Any, sides: tuple[int, ...]) -> None:
    """Raises ``InputError`` where the stage's model cannot take frames of these sides, or known frames."""
    multiple = FACTOR if config.stage == "upsampler" else model.multiple
    if any(side % multiple for side in sides):
        raise InputError(f"frames of {' x '.join(map(str, sides))} pixels, expected multiples of {multiple}")
    if config.stage == "prediction" and not model.config.unet.planes:
        raise InputError("--stage prediction: this model is not told of known frames (its planes are 0)")


def text_of(model: Any, data: Clips, batch: task.ClipBatch) -> Tensor | None:
    """The captions as the networks read them; None for a model without a text encoder."""
    if not model.config.text_encoder:
        return None
    captions = [data.caption(item) for item in batch.item.tolist()]
    return encode_text(model.config.text_encoder, captions, model.no_text(1))


def main(config: Config) -> None:
    config, state = settings(config, {"steps": 10_000})
    numbers = recipe.build_on_meta("video-ldm", config.preset).config
    height, width = config.size or numbers.size
    if config.size is None and config.stage == "upsampler":
        height, width = 4 * height, 4 * width
    if config.crop is None and config.stage == "upsampler":
        config = replace(config, crop=min(height, width) // 4)
    side = config.crop or min(height, width)
    if joins_at(config) is not None and side < 24:
        raise InputError(
            f"frames of {side} pixels, expected at least 24: the discriminator judges patches of that size"
        )
    data, between = open_clips(config.data, "train", (height, width), config.seed), config.stage == "interpolation"
    if between and isinstance(data, FileClips):
        data = AtItsStride(data.sources, data.size)
    accelerate = accelerator(config)
    nets = Networks(config, accelerate.device)
    check(config, nets.model, (config.crop, config.crop) if config.crop else (height, width))
    judge = nets.kept.get("discriminator")
    nets.module, nets.optimizer = training.prepared(accelerate, nets.module, nets.optimizer, judge)
    run = TrainingRun("train_video_ldm", config, accelerate, nets.kept, state)
    frames = BETWEEN + 1 if between else config.frames or numbers.frames
    strides = (BETWEEN * config.stride, config.stride) if between else (config.stride,)
    plan = (config.batch_size, config.crop, config.seed, config.steps, run.step, run.shard, frames, strides)
    with run.over(clips.batches(data, *plan)) as left:
        for batch in left:
            run.done(take_step(config, run, nets, batch, text_of(nets.model, data, batch)))
            if run.due(config.save_every):
                run.save(nets.average, stage=config.stage)
    if run.main:
        run.save(nets.average, stage=config.stage)
        print(f"weights, state and log are in {run.folder}")


def take_step(
    config: Config, run: TrainingRun, nets: Networks, batch: task.ClipBatch, text: Tensor | None
) -> dict[str, Tensor] | None:
    """One step of everything; returns what to log, None where it was skipped."""
    batch, game = task.ClipBatch(*(part.to(run.accelerator.device) for part in batch)), nets.stage.game
    losses, made = nets.module(batch, text, run.step)
    parameters = nets.model.parameters()
    norm = nets.descend(run.step + 1, run.accelerator, nets.optimizer, losses["loss"], parameters, clip=1.0)
    if norm is None:
        return None
    losses["norm"] = norm
    nets.rising.step()
    project(nets.model)
    if game.discriminator is not None:
        judged = game.discriminator_loss(made, nets.stage.seen(batch.frames), run.step).total
        losses["discriminator"] = training.judge_step(run.accelerator, nets.judge, judged)
    training.update_average(nets.average, nets.model, config.ema, run.step + 1)
    return losses


if __name__ == "__main__":
    recipe.run(main, Config)
