"""The frame of a training recipe: fields of its command line, a run that is shown, logged, saved and gone on with."""

import contextlib
import itertools
import json
import math
import pickle
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import torch

from . import checkpoints, recipe, training
from .files import InputError, write_json
from .models.pretrained import Pretrained

Batch = TypeVar("Batch")
Config = TypeVar("Config", bound="TrainingConfig")
COUNTS = (  # fields that recipes have, of which none is less than 1
    *("steps", "batch_size", "size", "crop", "stride", "frames", "local", "log_every", "save_every", "halve_every"),
    *("validate_every", "validation_limit"),
)


@dataclass(frozen=True)
class TrainingConfig:
    """What every training recipe takes; the recipe's own fields, and what it says otherwise of these, stand there."""

    preset: str = "small"
    """Size of the model, small or published."""
    init: Path | None = None
    """Checkpoint to start from (.safetensors, or a published one); random weights otherwise."""
    data: str = "synthetic"
    """What is trained on."""
    out: Path | None = None
    """Folder for the run; runs/RECIPE/DATE-TIME by default."""
    resume: Path | None = None
    """Folder of a run to go on with: its settings hold, but for --minutes and --device, and for what is given of
    --steps and --validation."""
    seed: int = 0
    """Of all that is random: first weights, scenes, order of the data, augmentation, noise."""
    steps: int | None = None
    """Steps in all, those before a --resume included; 20,000 unless given, on --resume what the run has."""
    minutes: float | None = None
    """Stop after so long, even if steps are left; --resume goes on."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the model."""
    device: str = "auto"
    """auto, cpu or cuda."""
    log_every: int = 50
    """Steps from one line of log.jsonl to the next."""
    save_every: int = 500
    """Steps from one saved state to the next."""


def settings(config: Config, defaults: Mapping[str, Any]) -> tuple[Config, dict[str, Any] | None]:
    """The settings that hold, and the state to go on from, None for a new run.

    Fields named in ``defaults`` are None unless given; a new run takes their defaults, a resumed one (``resume``) what
    it was begun with unless they are given. All others are the saved run's, but for ``minutes`` and ``device``.
    Raises ``InputError`` for a run that is there already, or that cannot be read.
    """
    recipe.at_least(config, 1, *COUNTS)
    if config.out is not None:
        recipe.check_out(config.out)
    if config.out is not None and (config.out / "state.pt").exists():
        raise InputError(f"{config.out}: holds a run already; --resume {config.out} goes on with it")
    given = {name: value for name in defaults if (value := getattr(config, name)) is not None}
    if (folder := config.resume) is None:
        return replace(config, **{**defaults, **given}), None
    if not (folder / "state.pt").exists():
        raise InputError(f"{folder / 'state.pt'}: no such file, expected the folder of a run that was saved")
    try:
        saved = json.loads((folder / "config.json").read_text())
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{folder}: its state cannot be read ({str(error).splitlines()[0]})") from error
    paths = [name for name, hint in get_type_hints(type(config)).items() if Path in get_args(hint)]
    as_paths = {name: Path(saved[name]) for name in paths if saved.get(name)}
    try:
        kept = type(config)(**{**saved, **as_paths, "out": folder, "resume": folder})
    except TypeError as error:
        raise InputError(f"{folder}: is a run of another recipe ({error})") from error
    return replace(kept, minutes=config.minutes, device=config.device, **given), state


def accelerator(config: TrainingConfig) -> Any:
    """accelerate's set-up for the device and the precision asked for; ``InputError`` for a device that is not there."""
    from accelerate import Accelerator

    recipe.check_device(config.device)
    return Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")


class TrainingRun:
    """The count of steps, the log, the folder and the state of ``parts``, all that has a state dict, by name.

    Goes on from ``state`` if there is one. Only the main process writes; ``folder`` and ``log`` are there from the
    first batch on: what is wrong before leaves nothing behind.
    """

    folder: Path
    log: recipe.StepLog

    def __init__(
        self, name: str, config: TrainingConfig, accelerator: Any, parts: Mapping[str, Any], state: Any
    ) -> None:
        self.name, self.config, self.accelerator = name, config, accelerator
        self.parts = {**parts} if accelerator.scaler is None else {**parts, "scaler": accelerator.scaler}
        self.step = 0 if state is None else training.restore(state, self.parts)
        self._draw_apart()

    @property
    def shard(self) -> tuple[int, int]:
        """The number of this process, and how many there are."""
        return self.accelerator.process_index, self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)

    @contextlib.contextmanager
    def over(self, batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
        """``batches`` while there is time, under a progress bar; ``InputError`` if no step is left."""
        from tqdm import tqdm

        config, end = self.config, time.monotonic() + 60 * (self.config.minutes or math.inf)
        first = next(batches, None)  # data that cannot be read fails here, before anything is written
        if first is None:
            raise InputError(f"--steps is {config.steps}, expected more than the {self.step} done")
        new = config.out is None or not config.out.exists()
        self.folder = recipe.out_folder(self.name, config.out)
        if self.main:
            values = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
            write_json(self.folder / "config.json", values)
        self.log = recipe.StepLog(self.folder / "log.jsonl")
        if self.main:
            self.log.go_on_after(self.step)
        try:
            with tqdm(total=config.steps, initial=self.step, disable=not self.main) as self._progress:
                yield training.until(end, self.accelerator, itertools.chain([first], batches))
        except BaseException:
            if self.main and new and [path.name for path in self.folder.iterdir()] == ["config.json"]:
                shutil.rmtree(self.folder)  # nothing came of it
            raise

    def done(self, losses: Mapping[str, torch.Tensor] | None, **more: float) -> None:
        """Counts a step and logs its ``losses``, if it had any, with ``more`` in the line that says them."""
        self.step += 1
        self._draw_apart()
        self._progress.update()
        if losses is None:
            return
        self.log.add(losses)
        if self.main and self.step % self.config.log_every == 0:
            self._progress.set_postfix(loss=f"{self.log.write(self.step, **more)['loss']:.4f}")

    def _draw_apart(self) -> None:
        """Other processes draw other noise than the main one, whose generator ``state`` holds: theirs by the step."""
        if not self.main:
            drawn = (1_000_003 * self.config.seed + self.step) * 1_000_003 + self.accelerator.process_index
            torch.manual_seed(drawn % 2**63)

    def due(self, every: int) -> bool:
        """Whether what comes after so many steps comes now, in this process; not at the last, which has its own end."""
        return self.main and self.step % every == 0 and self.step != self.config.steps

    def save(self, model: Pretrained, **about: Any) -> None:
        """Writes state.pt and model.safetensors, whole or not at all; ``about`` goes into the latter's metadata."""
        training.save_state(training.state_of(self.step, self.parts), self.folder / "state.pt")
        about = {"step": self.step, "data": self.config.data, "seed": self.config.seed, **about}
        checkpoints.save(model, self.folder / "model.safetensors", **about)
