"""Trains E2FGVI or E2FGVI-HQ: clips with moving, still and object holes; against a temporal PatchGAN.

    python recipes/train_e2fgvi.py --steps 500 --out runs/e2fgvi
    python recipes/train_e2fgvi.py --model e2fgvi-hq --preset published --data youtube-vos --crop 240 432 \\
        --batch-size 8 --steps 500000 --spynet-weights spynet.pth
    python recipes/train_e2fgvi.py --resume runs/e2fgvi

Writes model.safetensors, state.pt (--resume goes on exactly there), log.jsonl and config.json; prints the last
validation's PSNR and where they are. Steps whose loss or gradient is not finite are skipped and reported.
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from vfikit import checkpoints, recipe, training
from vfikit.data import ObjectMasks, open_clips
from vfikit.files import InputError, write_json
from vfikit.layers import TemporalPatchDiscriminator
from vfikit.losses import FlowTargets, InpaintingLoss
from vfikit.models import build
from vfikit.tasks import inpainting as task
from vfikit.tasks.inpainting_training import batches, by_brightness, spynet

MOST_SKIPPED = 50  # steps in a row: then the weights themselves are lost


@dataclass(frozen=True)
class Config:
    model: str = "e2fgvi-hq"
    """Which of the two."""
    preset: str = "small"
    """Size of the model, small or published."""
    init: Path | None = None
    """Checkpoint to start from (.safetensors, or a published .pth)."""
    data: str = "synthetic"
    """synthetic; a folder of YouTube-VOS or DAVIS, of videos, or of folders of frames."""
    objects: Path | None = None
    """Where half of the holes come from: a folder of YouTube-VOS or DAVIS with annotations, or folders of masks."""
    out: Path | None = None
    """Folder for the run; runs/train_e2fgvi/<date-time> by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes, --device, and --steps where given."""
    seed: int = 0
    """Of the first weights, the scenes, the order of the data, its augmentation and holes."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 20,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
    batch_size: int = 2
    """Clips a step and process; published: 8 over all."""
    size: tuple[int, int] = (80, 80)
    """Height and width that clips are scaled to; published: 240 432."""
    crop: tuple[int, int] = (64, 64)
    """Height and width of the random crops; published: none, that is --size."""
    local: int = 5
    """Consecutive frames of a clip (published)."""
    references: int = 3
    """Frames from elsewhere in it (published)."""
    lr: float = 1e-4
    """Learning rate of the model and of the discriminator (published)."""
    flow_lr: float = 1.0
    """What the flow network's is multiplied by; published: 1."""
    offset_lr: float = 1.0
    """What that of the layers that place the deformable taps is multiplied by; published: 1."""
    milestones: tuple[int, ...] = (400_000,)
    """Steps at which the rates fall to a tenth (published)."""
    clip: float = 10.0
    """Largest gradient norm; 0 for none, as published, which some long runs do not survive."""
    weight_decay: float = 0.0
    """Decoupled, of the model; published: none."""
    adversarial: float = 0.01
    """Weight of the game (published); 0 for none."""
    spynet_weights: Path | None = None
    """SPyNet's state dict (.pth), as its authors or E2FGVI's name it: where the flow network starts, and the frozen
    teacher of the flow loss (published). Without it flows learn to bring neighbouring frames together."""
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
    validation_limit: int = 16
    """Held-out clips to validate on."""


class Run:
    """What a run carries from step to step: the networks, their optimizers, the count of steps, and of skipped ones."""

    def __init__(self, config: Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.step, self.skipped, self.config = 0, 0, config
        if config.init is not None:
            self.model = recipe.load_model(config.model, config.preset, config.init)
        else:
            self.model = build(config.model, config.preset)
        self.model.to(device).train().requires_grad_(True)
        flow: Any = by_brightness
        if config.spynet_weights is not None:
            teacher = spynet(checkpoints.read_state_dict(config.spynet_weights))
            if config.init is None and config.preset == "published":
                self.model.flow.load_state_dict(teacher.state_dict())
            flow = FlowTargets(teacher)
        judge = TemporalPatchDiscriminator() if config.adversarial > 0 else None
        self.loss = InpaintingLoss(flow, judge, weights=(1.0, 1.0, 1.0, config.adversarial)).to(device)
        self.optimizer = torch.optim.AdamW(
            list(groups(self.model, config)), betas=(0.0, 0.99), weight_decay=config.weight_decay, foreach=True
        )
        self.kept: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        self.judge: torch.optim.Optimizer | None = None
        if judge is not None:
            self.judge = torch.optim.Adam(judge.parameters(), lr=config.lr, betas=(0.0, 0.99), foreach=True)
            self.kept |= {"discriminator": judge, "judge": self.judge}

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        for name, part in self.kept.items():
            part.load_state_dict(state[name])

    def save(self, folder: Path) -> None:
        states = {name: part.state_dict() for name, part in self.kept.items()}
        training.save_state({"step": self.step, "rng": torch.get_rng_state(), **states}, folder / "state.pt")
        path = folder / "model.safetensors"
        checkpoints.save(self.model, path, step=self.step, data=self.config.data, seed=self.config.seed)


def groups(model: nn.Module, config: Config) -> Iterator[dict[str, Any]]:
    """The parameters by the factor of their learning rate."""
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = config.flow_lr if name.startswith("flow.") else config.offset_lr if ".conv_offset." in name else 1.0
        parts.setdefault(factor, []).append(parameter)
    for factor, parameters in parts.items():
        yield {"params": parameters, "lr": config.lr * factor, "factor": factor}


def main(config: Config) -> None:
    recipe.check_device(config.device)
    if config.model not in ("e2fgvi", "e2fgvi-hq"):
        raise InputError(f"model {config.model!r}: expected e2fgvi or e2fgvi-hq")
    config, state = training.settings(config, {"steps": 20_000}, ("init", "spynet_weights", "objects"))
    data = open_clips(config.data, "train", config.size, config.seed)
    objects = None if config.objects is None else ObjectMasks(config.objects)
    held_out = open_clips(config.data, "test", config.size, config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    run = Run(config, accelerator.device)
    module, optimizer = accelerator.prepare(run.model, run.optimizer)
    run.kept |= {} if accelerator.scaler is None else {"scaler": accelerator.scaler}
    if state is not None:
        run.load(state)
    shard = (accelerator.process_index, accelerator.num_processes)
    frames = (config.local, config.references)
    found = batches(data, config.batch_size, frames, config.crop, config.seed, config.steps, run.step, shard, objects)
    first = next(found, None)  # data that cannot be read fails here, before anything is written
    if first is None:
        raise InputError(f"--steps is {config.steps}, expected more than the {run.step} done")
    validation = task.Kept(held_out, config.validation_limit)
    folder = recipe.out_folder("train_e2fgvi", config.out)
    if accelerator.is_main_process:
        write_json(folder / "config.json", {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()})
    log, end = recipe.StepLog(folder / "log.jsonl"), time.monotonic() + 60 * (config.minutes or math.inf)
    with tqdm(total=config.steps, initial=run.step, disable=not accelerator.is_main_process) as progress:
        for batch in training.until(end, accelerator, itertools.chain([first], found)):
            losses = take_step(run, accelerator, module, optimizer, batch)
            if losses is not None:
                log.add(losses)
            progress.update()
            if not accelerator.is_main_process:
                continue
            if run.step % config.log_every == 0 and losses is not None:
                progress.set_postfix(loss=f"{log.write(run.step)['loss']:.4f}")
            if run.step % config.save_every == 0:
                run.save(folder)
            if run.step % config.validate_every == 0 and run.step != config.steps:
                validate(run, validation, log)
    if accelerator.is_main_process:
        run.save(folder)
        validate(run, validation, log)
        print(f"weights, state and log are in {folder}")


def take_step(
    run: Run, accelerator: Accelerator, module: Any, optimizer: Any, batch: task.Holed
) -> dict[str, Tensor] | None:
    """One step of everything; returns what to log, None where it was skipped."""
    config = run.config
    for each in (optimizer, *([] if run.judge is None else [run.judge])):
        for group in each.param_groups:
            group["lr"] = training.stepped(config.lr, run.step, config.milestones) * group.get("factor", 1.0)
    batch = task.Holed(*(tensor.to(accelerator.device) for tensor in batch))
    frames, (shown,) = 2 * batch.frames - 1, task.inputs(batch)
    made = module(shown, config.local)
    run.step += 1
    losses: dict[str, Tensor] = {}
    if training.all_finite(accelerator, made.frames) and run.judge is not None:
        training.judge_step(
            run.judge, accelerator, losses, run.loss.discriminator_loss, made.frames.float(), frames, batch.masks
        )
    terms = run.loss(*made, frames, batch.masks)
    optimizer.zero_grad()
    accelerator.backward(terms.total)
    norm = accelerator.clip_grad_norm_(run.model.parameters(), config.clip if config.clip > 0 else math.inf)
    if not training.all_finite(accelerator, terms.total, norm):
        if accelerator.scaler is not None:
            optimizer.step()  # skips by itself, and lowers its scale
        optimizer.zero_grad()
        run.skipped += 1
        tqdm.write(f"step {run.step}: loss {terms.total.item():.4g}, gradient {norm.item():.4g}: skipped")
        if run.skipped == MOST_SKIPPED:
            raise InputError(f"step {run.step}: {MOST_SKIPPED} steps in a row were not finite; try a smaller --lr")
        return None
    optimizer.step()
    run.skipped = 0
    found = {name: value for name, value in terms._asdict().items() if name != "total"}
    return {"loss": terms.total, **found, "norm": norm, **losses}


def validate(run: Run, data: task.Kept, log: recipe.StepLog) -> None:
    quality = task.quality(run.model.eval(), data)
    run.model.train()
    log.note(run.step, psnr=quality.psnr, ssim=quality.ssim)
    tqdm.write(f"step {run.step}: PSNR {quality.psnr:.2f} dB on held-out clips of {run.config.data}")


if __name__ == "__main__":
    recipe.run(main, Config)
