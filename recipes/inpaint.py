"""Takes something out of a video: what a mask covers is filled from the rest of the clip.

    python recipes/inpaint.py clip.mp4 mask.png without.mp4 --checkpoint m.safetensors  # one mask for all; sound kept
    python recipes/inpaint.py clip.mp4 masks/ without.mp4 --checkpoint m.safetensors    # or a mask each, or a video
    python recipes/inpaint.py frames/ masks/ filled/ --checkpoint E2FGVI-HQ-CVPR22.pth --preset published

Anything but black in the mask is a hole (in lossy files: lighter than middle grey). Pixels outside the holes, grown by
--dilation, stay as they are. Stop it at any time: the same command goes on where it was. Prints what was done.
"""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from vfikit.files import InputError
from vfikit.inference import WHOLE, surroundings
from vfikit.models.e2fgvi import Settings, stream
from vfikit.recipe import fingerprint, frame_rate, in_layout, load_model, run, shown
from vfikit.video import FillOptions, inpaint_clip
from vfikit.video.fill import Fill


@dataclass(frozen=True)
class Config:
    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """A video, a GIF, or a folder of images."""
    mask: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASK")]
    """An image, a folder with one for each frame, or a video as long as the clip."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Where to write: .mp4, .mov, .mkv, .webm, .gif, or a folder (no suffix)."""
    model: str = "e2fgvi-hq"
    """Any model of vfikit.models.MODELS that inpaints."""
    preset: str = "small"
    """Size of the model, small or published."""
    checkpoint: Path | None = None
    """Weights: a .safetensors of vfikit, or a published .pth."""
    dilation: int = Settings.dilation
    """Pixels that holes grow by, so that no rim of what is taken out stays."""
    stride: int = Settings.stride
    """Frames from one window to the next, and that a window reaches to both sides."""
    step: int = Settings.step
    """Every so many frames of the clip, one is looked up for what a window does not show."""
    references: int = Settings.nearest or 0
    """At most so many of those, the nearest; -1: all, as published, which takes ever more memory."""
    num_ref: int = -1
    """0 or more: the published demo's other rule instead of --references, up to so many and one more, --step apart,
    around the window."""
    padding: Literal["minimal", "published"] = "minimal"
    """"published" pads, rounds and blends as the published program; with --references -1 (or --num-ref), results equal
    its own."""
    crop: int | None = None
    """Only so many pixels around all holes are looked at: much faster where holes are small."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the network runs."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """bfloat16 and float16: half the memory, faster where the hardware multiplies in them."""
    audio: bool = True
    """Copy audio and subtitle streams."""
    crf: int | None = None
    """Quality of the encoder, smaller is better; by default hard to tell from the source."""
    input_fps: str = "24"
    """Frames a second of a folder of images."""
    images: Literal["png", "jpg", "webp", "bmp", "tif"] = "png"
    """Kind of images in an output folder."""


def main(config: Config) -> None:
    if config.references < -1:
        raise InputError(f"--references is {config.references}, expected -1 for all, or 0 or more")
    if config.crop is not None and config.crop < 0:
        raise InputError(f"--crop is {config.crop}, expected 0 or more pixels")
    settings = Settings(
        stride=config.stride,
        step=config.step,
        nearest=None if config.references == -1 else config.references,
        num_ref=config.num_ref,
        dilation=config.dilation,
        padding=config.padding,
    )
    options = FillOptions(
        audio=config.audio,
        crf=config.crf,
        image_suffix=f".{config.images}",
        input_fps=frame_rate("--input-fps", config.input_fps),
        segment=config.stride * max(1, 25 // config.stride),
        look_ahead=config.crop is not None,
    )
    model = load_model(config.model, config.preset, config.checkpoint, config.device)
    if not hasattr(model, "inpaint"):
        raise InputError(f"{config.model}: does not inpaint")
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up as Ctrl-C does
        stack.callback(signal.signal, signal.SIGTERM, before)
        report = inpaint_clip(
            *(config.video, config.mask, config.output, filling(model, config, settings), options),
            identity={"weights": fingerprint(model), "device": config.device, "precision": config.precision}
            | {"settings": repr(settings), "crop": config.crop},
            progress=shown(stack),
        )
    print(
        f"{config.output}: {report.frames} frames in {report.seconds:.1f} s, {report.filled} of them with holes"
        + (f", {report.reused} parts kept from before" if report.reused else "")
    )


def filling(model: Any, config: Config, settings: Settings) -> Fill:
    """The model over a stream of frames, in the precision that was asked for."""
    model = in_layout(model.to(getattr(torch, config.precision)))

    def fill(pairs: Iterator[tuple[Tensor, Tensor]], start: int, covered: Tensor | None) -> Iterator[Tensor]:
        margin = (config.crop or 0) + config.dilation
        box = WHOLE if covered is None else surroundings(covered > 0, margin)
        try:
            yield from stream(model, pairs, settings, box, start)
        except torch.OutOfMemoryError:
            raise OSError(
                f"{config.device}: the clip does not fit into its memory, try --crop 64, --references 2 or --stride 3"
            ) from None

    return fill


if __name__ == "__main__":
    run(main, Config)
