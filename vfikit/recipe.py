"""What every recipe shares: the command line, errors in one line, the folder for results, the model by name."""

import contextlib
import ctypes
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import torch

from . import checkpoints
from .files import InputError, append_jsonl, atomic, check_place
from .models import MODELS, PRESETS, AdaCoFNet, E2FGVINet, build

Config = TypeVar("Config")
FASTEST = 1_000_000  # frames a second
TOLD_APART_BY = {AdaCoFNet: ("kernel_size", "dilation"), E2FGVINet: ("hq",)}  # models of one class, whatever their size


def run(main: Callable[[Config], None], config_type: type[Config]) -> None:
    """Parses the command line into ``config_type`` and calls ``main`` with it.

    Input that the user can mend (a missing file, a full disk, an unknown model) ends in one line on stderr and exit
    code 2; an interrupt in exit code 130. ``VFIKIT_TRACEBACK=1`` shows the traceback instead.
    """
    import tyro

    config = tyro.cli(config_type, description=sys.modules[main.__module__].__doc__)
    keep_freed_memory()
    os.environ.setdefault("MKL_CBWR", "AUTO")  # else MKL's sums, and so what a resumed run makes, can differ by chance
    torch.set_flush_denormal(True)  # slow, and the softmax of a trained net makes many
    try:
        check_values(config)
        main(config)
    except (InputError, ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        defect = isinstance(error, RuntimeError) and not is_out_of_memory(error)
        if defect or os.environ.get("VFIKIT_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get the memory that it asked for: on a CPU it says so by a plain ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def check_values(config: Any) -> None:
    """Raises ``InputError`` for what is no value of any recipe's field: not a number, a seed that torch can't take."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"--{field.name.replace('_', '-')} is nan, expected a number")
        if field.name == "seed" and not 0 <= value < 2**32:
            raise InputError(f"--seed is {value}, expected 0 to {2**32 - 1}")


def at_least(config: Any, least: int, *names: str) -> None:
    """Raises ``InputError`` for a field of ``names``, or a part of it, that is less; what is absent or None is not."""
    for name in names:
        value = getattr(config, name, None)
        if any(part < least for part in (value if isinstance(value, tuple) else (value,)) if part is not None):
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise InputError(f"--{name.replace('_', '-')} is {shown}, expected at least {least}")


def keep_freed_memory() -> None:
    """Has glibc keep what tensors of up to 32 MiB free: else the kernel clears the same pages anew at every layer.

    For this process, whose peak stays what it is. On LDMVFI's small net that is a tenth of the time; where there is no
    glibc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        mallopt(mmap_threshold, 32 << 20)  # the largest that it takes
        mallopt(trim_threshold, 2**31 - 1)


def out_folder(recipe: str, out: Path | None) -> Path:
    """``out``, or ``runs/<recipe>/<date-time>``; made if it is not there."""
    folder = out or Path("runs") / recipe / time.strftime("%Y%m%d-%H%M%S")
    check_out(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_out(folder: Path) -> None:
    """Raises ``InputError`` for a place that can hold no results, before there are any."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for results")
    check_place(folder / "results")


def load_model(name: str, preset: str, checkpoint: Path | None, device: str = "cpu") -> Any:
    """The model with its weights: a vfikit file, a published .pth/.ckpt, or what ships with vfikit for ``preset``."""
    check_device(device)
    build_on_meta(name, preset)  # an unknown name is the first thing to say
    if checkpoint is None:
        checkpoint = checkpoints.shipped(name, preset)
        if checkpoint is None:
            raise InputError(f"{name}, preset {preset}: no weights ship with vfikit; give --checkpoint PATH")
    if not Path(checkpoint).exists():
        raise InputError(f"{checkpoint}: no such file")
    if Path(checkpoint).suffix == ".safetensors":
        model = checkpoints.load(checkpoint, device)
        names = names_of(model)
        if name not in names:
            raise InputError(f"{checkpoint}: holds the network of {' or '.join(names)}, expected that of {name}")
        return model
    try:
        return checkpoints.load_published(build(name, preset), checkpoint).to(device).eval()
    except checkpoints.Misfit as error:
        hint = "" if preset == "published" else ", try --preset published"
        raise InputError(f"{checkpoint}: does not fit {name}, preset {preset}{hint} ({error.in_short()})") from error


def names_of(model: Any) -> list[str]:
    """What ``model`` may be, at any size; every name of its class for a config of one's own, unlike any preset."""
    names = [name for name, kind in MODELS.items() if kind is type(model)]

    def marks(config: Any) -> list[Any]:
        return [getattr(config, mark) for mark in TOLD_APART_BY.get(type(model), ())]

    return [n for n in names if marks(model.config) in map(marks, PRESETS[n].values())] or names


def read_prompts_by(model: Any, encoder: str) -> None:
    """From now on, prompts are read by this text encoder of transformers: a name or a folder."""
    if not hasattr(model.config, "text_encoder"):
        raise ValueError(f"{type(model).__name__} reads no text")
    model.config = replace(model.config, text_encoder=encoder)


def show_subject(model: Any, subject: Path) -> None:
    """Gives Video-LDM's layers in space the weights and the text encoder of an image model tuned to a subject.

    ``subject`` is its folder as diffusers' DreamBooth scripts write it. The temporal layers stay as they are and read
    the prompt by the model's own text encoder.
    """
    if not hasattr(model.config, "spatial_text_encoder"):
        raise ValueError(f"{type(model).__name__} cannot take a subject, expected a video-ldm")
    if not (subject / "text_encoder").is_dir():
        raise InputError(f"{subject}: no text_encoder in it, expected a folder that diffusers saved a tuned model to")
    checkpoints.load_published(model, subject)
    model.config = replace(model.config, spatial_text_encoder=str(subject))


def upsample_in(model: Any, folder: Path) -> None:
    """Gives Video-LDM's upsampler the autoencoder in diffusers' ``folder`` of it, or of a pipeline, and its scale."""
    if model.upsampler is None:
        model.add_upsampler()
    if model.upsampler.autoencoder is None:
        raise InputError("the upsampler of this model is of pixels, it takes no autoencoder")
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    try:
        scale = json.loads((folder / "config.json").read_text()).get("scaling_factor", 0.18215)  # what diffusers takes
        model.upsampler.autoencoder.load_state_dict(checkpoints.read_state_dict(folder))
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{folder}: no autoencoder of this upsampler, as diffusers keeps one ({why})") from error
    numbers = replace(model.upsampler.config, autoencoder=replace(model.upsampler.config.autoencoder, scale=scale))
    model.upsampler.config, model.config = numbers, replace(model.config, upsampler=numbers)


class StepLog:
    """A training log of JSON lines; numbers are averaged from one line to the next, without a wait for the device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums: dict[str, torch.Tensor] = {}
        self._count, self._seconds, self._clock = 0, 0.0, time.monotonic()

    def go_on_after(self, step: int) -> None:
        """Drops the lines of later steps, which a stopped run is about to do again, and what it wrote half."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            with atomic(self.path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Takes in what one step measured."""
        self._sums = {name: self._sums.get(name, 0) + value.detach() for name, value in values.items()}
        self._count += 1
        self._seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()

    def write(self, step: int, **more: float) -> dict[str, float]:
        """Writes the means since the last line, with the seconds a step; InputError if ``loss`` is not finite."""
        row = {name: float(value) / self._count for name, value in self._sums.items()}
        if not math.isfinite(row["loss"]):
            raise InputError(f"step {step}: the loss is {row['loss']}, expected a finite one; try a smaller --lr")
        pace = round(self._seconds / self._count, 4)
        append_jsonl(self.path, {"step": step, **row, **more, "seconds_a_step": pace})
        self._sums, self._count, self._seconds = {}, 0, 0.0
        return row

    def note(self, step: int, **values: float) -> None:
        """Writes a line of its own; what it took to find out does not count as steps' time."""
        append_jsonl(self.path, {"step": step, **values})
        self._clock = time.monotonic()


def build_on_meta(name: str, preset: str) -> Any:
    """The model without memory for its weights: for names, shapes and counts."""
    with torch.device("meta"):
        return build(name, preset)


def check_device(device: str) -> None:
    """Raises ``InputError`` if torch can't use ``device`` here; "auto" is what is there."""
    if device == "auto":
        return
    try:
        torch.empty(1, device=device).item()  # "meta" makes tensors, but computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {device}: {str(error).splitlines()[0]}") from error


def lower_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where the hardware multiplies in it; elsewhere it would be slower than float32."""
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type in ("cuda", "cpu") and able)


def in_layout(model: Any) -> Any:
    """On a CPU, convolutions want their weights channels-last: else they are copied at every call."""
    layout = torch.channels_last if next(model.parameters()).device.type == "cpu" else torch.contiguous_format
    for parameter in model.parameters():
        if parameter.ndim == 4:  # those of 3-D convolutions have none like it
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def frame_rate(option: str, text: str) -> Fraction:
    """Frames a second from the ``text`` of an option; also 23.976 and 29.97 as what they stand for."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{option} is {text!r}, expected a number such as 60, 23.976 or 60000/1001") from None
    if not 0 < value <= FASTEST:
        raise InputError(f"{option} is {text}, expected more than 0 and at most {FASTEST}")
    value = value.limit_denominator(min(100_000, 2_000_000_000 // math.ceil(value))) or Fraction(1, 100_000)  # 32 bits
    ntsc = Fraction(round(value) * 1000, 1001)
    return ntsc if "." in text and round(float(ntsc), 2) == round(float(value), 2) else value


def fingerprint(model: Any) -> str:
    """What tells one set of weights from another."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shown(stack: contextlib.ExitStack) -> Callable[[int, int | None], None]:
    """A progress bar that appears with the first frame: what is wrong before that is said in one line."""
    from tqdm import tqdm

    bars: list[Any] = []

    def progress(done: int, total: int | None) -> None:
        if not bars:
            bars.append(stack.enter_context(tqdm(unit="frame", desc="source frames", total=total)))
        bars[0].update(done)

    return progress
