"""Trains E2FGVI or E2FGVI-HQ: clips with moving, still and object holes; against a temporal PatchGAN.

    python recipes/train_e2fgvi.py --steps 500 --out runs/e2fgvi
    python recipes/train_e2fgvi.py --model e2fgvi-hq --preset published --data youtube-vos --crop 240 432 \\
        --batch-size 8 --steps 500000 --spynet-weights spynet.pth
    python recipes/train_e2fgvi.py --resume runs/e2fgvi

From nothing, encoder and decoder learn first, at a fraction of the cost; each stage begins with what --init holds:

    python recipes/train_e2fgvi.py --stage frames --batch-size 4 --local 4 --references 0 --lr 3e-3 --out runs/frames
    python recipes/train_e2fgvi.py --stage holes --batch-size 4 --local 3 --references 0 --lr 2e-3 --out runs/holes \
        --init runs/frames/model.safetensors
    python recipes/train_e2fgvi.py --init runs/holes/model.safetensors --out runs/clips

Writes model.safetensors, state.pt (--resume goes on exactly there), log.jsonl and config.json; prints the last
validation's PSNR and where they are. Steps whose loss or gradient is not finite are skipped and reported.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import ObjectMasks, open_clips
from vfikit.files import InputError
from vfikit.layers import TemporalPatchDiscriminator
from vfikit.losses import FlowTargets, InpaintingLoss
from vfikit.losses.inpainting import region_errors
from vfikit.models import build
from vfikit.tasks import inpainting as task
from vfikit.tasks.inpainting_stages import Stage, exact_flow_error
from vfikit.tasks.inpainting_training import Moving, batches, by_brightness, spynet
from vfikit.training_run import TrainingConfig, TrainingRun, accelerator, settings


@dataclass(frozen=True)
class Config(TrainingConfig):
    model: str = "e2fgvi-hq"
    """e2fgvi or e2fgvi-hq."""
    stage: Literal["frames", "holes", "flow", "clips"] = "clips"
    """What learns: encoder and decoder, of single frames, whole or with holes; the flow network (synthetic clips' flows
    are known exactly); all, of clips with holes (published)."""
    data: str = "synthetic"
    """synthetic; a folder of YouTube-VOS or DAVIS, of videos, or of folders of frames."""
    objects: Path | None = None
    """Where half of the holes come from: a folder of YouTube-VOS or DAVIS with annotations, or folders of masks."""
    batch_size: int = 2
    """Clips a step and process; published: 8 over all."""
    size: tuple[int, int] = (80, 80)
    """Height and width that clips are scaled to; published: 240 432."""
    crop: tuple[int, int] = (64, 64)
    """Height and width of the random crops; published: none, that is --size."""
    pool: int | None = None
    """So many clips with their holes are kept in memory and seen again and again; by default each is made anew."""
    local: int = 5
    """Consecutive frames of a clip (published)."""
    references: int = 3
    """Frames from elsewhere in it (published)."""
    lr: float = 1e-4
    """Learning rate of the model and of the discriminator (published)."""
    flow_lr: float = 1.0
    """What the flow network's is multiplied by; published: 1."""
    ends_lr: float = 1.0
    """What that of encoder and decoder is multiplied by; published: 1."""
    offset_lr: float = 1.0
    """What that of the layers that place the deformable taps is multiplied by; published: 1."""
    beta1: float = 0.0
    """Share of the gradient that Adam keeps from step to step, of the model (published)."""
    milestones: tuple[int, ...] = (400_000,)
    """Steps at which the rates fall to a tenth (published)."""
    schedule: Literal["milestones", "cosine"] = "milestones"
    """How the rates fall; cosine: to zero at the last step."""
    warmup: int = 0
    """Steps over which they rise; published: none."""
    ema: float = 0.0
    """Decay of the running average of the weights, which is what is saved and validated; 0 for none, as published."""
    clip: float = 10.0
    """Largest gradient norm, of the model and of the discriminator; 0 for none, as published, which some long runs do
    not survive."""
    weight_decay: float = 0.0
    """Decoupled, of the model; published: none."""
    adversarial: float = 0.01
    """Weight of the game (published); 0 for none."""
    squares: float = 0.0
    """Weight of mean square errors beside the absolute ones; published: none. PSNR is judged by them."""
    spynet_weights: Path | None = None
    """SPyNet's state dict (.pth), as its authors or E2FGVI's name it: where the flow network starts, and the frozen
    teacher of the flow loss (published). Without it flows learn to bring neighbouring frames together."""
    validate_every: int = 2000
    """Steps from one validation to the next."""
    validation_data: str | None = None
    """As --data: whose held-out clips of five frames to validate on; by default --data's."""
    validation_limit: int = 16
    """So many of them."""


class Networks:
    """The model and its loss, their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.descend = training.FiniteDescent()
        if config.init is not None:
            self.model = recipe.load_model(config.model, config.preset, config.init)
        else:
            self.model = build(config.model, config.preset)
        self.model.to(device).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False) if config.ema > 0 else self.model
        self.module: Any = Stage(recipe.in_layout(self.model), config.stage)
        flow: Any = by_brightness
        if config.spynet_weights is not None:
            teacher = spynet(checkpoints.read_state_dict(config.spynet_weights))
            if config.init is None and config.preset == "published":
                self.model.flow.load_state_dict(teacher.state_dict())
            flow = FlowTargets(teacher)
        judge = TemporalPatchDiscriminator() if config.adversarial > 0 and config.stage == "clips" else None
        seen = float(config.stage != "flow")
        self.loss = InpaintingLoss(flow, judge, weights=(seen, seen, 1.0, config.adversarial)).to(device)
        self.optimizer = torch.optim.AdamW(
            list(groups(self.model, config)), betas=(config.beta1, 0.99), weight_decay=config.weight_decay, foreach=True
        )
        self.kept: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        if config.ema > 0:
            self.kept["average"] = self.average
        self.judge: torch.optim.Optimizer | None = None
        if judge is not None:
            self.judge = torch.optim.Adam(judge.parameters(), lr=config.lr, betas=(0.0, 0.99), foreach=True)
            self.kept |= {"discriminator": judge, "judge": self.judge}


def groups(model: nn.Module, config: Config) -> Iterator[dict[str, Any]]:
    """The parameters that are trained, by the factor of their learning rate."""
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        of_parts = {"flow": config.flow_lr, "encoder": config.ends_lr, "decoder": config.ends_lr}
        factor = config.offset_lr if ".conv_offset." in name else of_parts.get(name.split(".")[0], 1.0)
        parts.setdefault(factor, []).append(parameter)
    for factor, parameters in parts.items():
        yield {"params": parameters, "lr": config.lr * factor, "factor": factor}


def main(config: Config) -> None:
    if config.model not in ("e2fgvi", "e2fgvi-hq"):
        raise InputError(f"model {config.model!r}: expected e2fgvi or e2fgvi-hq")
    config, state = settings(config, {"steps": 20_000})
    recipe.at_least(config, 0, "references")
    data = open_clips(config.data, "train", config.size, config.seed)
    objects = None if config.objects is None else ObjectMasks(config.objects)
    held_out = open_clips(config.validation_data or config.data, "test", config.size, config.seed)
    accelerate = accelerator(config)
    nets = Networks(config, accelerate.device)
    nets.module, nets.optimizer = accelerate.prepare(nets.module, nets.optimizer)
    run = TrainingRun("train_e2fgvi", config, accelerate, nets.kept, state)
    frames = (config.local, config.references)
    plan = (config.batch_size, frames, config.crop, config.seed, config.steps, run.step, run.shard, objects)
    validation = task.Kept(held_out, config.validation_limit)
    with run.over(batches(data, *plan, config.stage, config.pool)) as left:
        for batch in left:
            run.done(take_step(config, run, nets, batch))
            if run.due(config.save_every):
                run.save(nets.average)
            if run.due(config.validate_every):
                validate(config, run, nets.average, validation)
    if run.main:
        run.save(nets.average)
        validate(config, run, nets.average, validation)
        print(f"weights, state and log are in {run.folder}")


def learning_rate(config: Config, step: int) -> float:
    cosine = config.schedule == "cosine"
    rate = training.learning_rate(config.lr, step, config.steps or 1, config.warmup, cosine)
    return rate if cosine else training.stepped(rate, step, config.milestones)


def take_step(config: Config, run: TrainingRun, nets: Networks, batch: task.Holed | Moving) -> dict[str, Tensor] | None:
    """One step of everything; returns what to log, None where it was skipped."""
    accelerate, rate = run.accelerator, learning_rate(config, run.step)
    batch = type(batch)(*(tensor.to(accelerate.device) for tensor in batch))
    frames, shown = 2 * batch.frames - 1, (2 * batch.frames - 1) * (1 - batch.masks)
    made = nets.module(shown, config.local)
    found: dict[str, Tensor] = {}
    if nets.judge is not None and training.all_finite(accelerate, made.frames):
        training.set_rate(nets.judge, rate)
        judged = nets.loss.discriminator_loss(made.frames.float(), frames, batch.masks).total
        found["discriminator"] = training.judge_step(accelerate, nets.judge, judged, config.clip)
    training.set_rate(nets.optimizer, rate)
    losses = nets.loss(*made, frames, batch.masks)
    if isinstance(batch, Moving):
        exact = exact_flow_error(made, (batch.ahead, batch.back))
        losses = losses._replace(total=exact, flow=exact)
    elif config.squares > 0 and config.stage != "flow":
        squares = torch.stack(region_errors(made.frames, frames, batch.masks, power=2)).sum()
        losses = losses._replace(total=losses.total + config.squares * squares)
    parameters = nets.model.parameters()
    norm = nets.descend(run.step + 1, accelerate, nets.optimizer, losses.total, parameters, config.clip)
    if norm is None:
        return None
    if config.ema > 0:
        training.update_average(nets.average, nets.model, config.ema, run.step + 1)
    return {"loss": losses.total, **{k: v for k, v in losses._asdict().items() if k != "total"}, "norm": norm, **found}


def validate(config: Config, run: TrainingRun, model: Any, data: task.Kept) -> None:
    was = model.training
    quality = task.quality(model.eval(), data)
    model.train(was)
    run.log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on held-out clips")


if __name__ == "__main__":
    recipe.run(main, Config)
