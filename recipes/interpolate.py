"""More frames: two images to the one between, a folder of images, a GIF or a video to 2 to 32 times its frame rate.

    python recipes/interpolate.py first.png second.png middle.png
    python recipes/interpolate.py clip.mp4 smooth.mp4                   # doubled; audio, subtitles, colour tags kept
    python recipes/interpolate.py clip.mp4 smooth.mp4 --fps 60000/1001  # any rate, also from a varying one
    python recipes/interpolate.py frames/ smooth/ --factor 4

Doubling N frames gives 2N - 1, the originals untouched at even places. Cuts are not blended over, repeated frames are
copied. Stop it at any time: the same command goes on where it was. Prints where the output is and what was done.
"""

import contextlib
import itertools
import signal
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from vfikit.files import InputError
from vfikit.inference import tiled
from vfikit.models.ldmvfi import LDMVFINet
from vfikit.recipe import fingerprint, frame_rate, load_model, run, shown
from vfikit.video import Options, interpolate_clip, interpolate_pair
from vfikit.video.engine import MAX_FACTOR, Interpolate
from vfikit.video.images import IMAGES


@dataclass(frozen=True)
class Config:
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT... OUTPUT")]
    """Paths: a video, a GIF, a folder of images, or images one by one; last the output: .mp4, .mov, .mkv, .webm, .gif,
    an image (from two), or a folder (no suffix)."""
    model: str = "adacof"
    """Any model of vfikit.models.MODELS that interpolates."""
    preset: str = "small"
    """Size of the model, small or published; small adacof, cdfi and ldmvfi have weights that come with vfikit."""
    checkpoint: Path | None = None
    """Weights: a .safetensors of vfikit, or a published .pth."""
    factor: int = 2
    """Times as many frames, 2 to 32."""
    fps: str | None = None
    """Frames a second instead of a factor: 60, 23.976 or 60000/1001."""
    halvings: int = 4
    """With --fps or a factor that is no power of two: motion is placed to 1/2**(halvings + 1) of the source's gap."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the network runs."""
    half: bool = False
    """Half precision: half the memory, faster on a GPU."""
    tile: int = 0
    """For large frames: pixels a side of overlapping tiles, say 512; 0 takes whole frames."""
    steps: int | None = None
    """Denoising steps, for a model that samples (ldmvfi); its own number unless given."""
    sampler: Literal["ddim", "ancestral", "dpm++", "unipc"] | None = None
    """How such a model samples; its own way unless given."""
    seed: int = 0
    """Of the noise that such a model begins with, the same for every frame."""
    cut: float = Options.cut
    """Scene-change score above which a gap is not blended over; "inf" never finds one."""
    repeat: float = Options.repeat
    """Largest change of an 8 x 8 block (of 1) up to which a frame is a repeat; 0 never finds one."""
    audio: bool = True
    """Copy audio and subtitle streams."""
    crf: int | None = None
    """Quality of the encoder, smaller is better; by default hard to tell from the source."""
    input_fps: str = "24"
    """Frames a second of a folder of images."""
    images: Literal["png", "jpg", "webp", "bmp", "tif"] = "png"
    """Kind of images in an output folder; inputs of the same kind are copied."""


def main(config: Config) -> None:
    *inputs, output = config.paths or (Path(),)
    if not inputs:
        raise InputError("expected INPUT... OUTPUT: at least one input and the output")
    if not 2 <= config.factor <= MAX_FACTOR:
        raise InputError(f"--factor is {config.factor}, expected 2 to {MAX_FACTOR}")
    options = Options(
        factor=config.factor,
        fps=None if config.fps is None else frame_rate("--fps", config.fps),
        halvings=config.halvings,
        cut=config.cut,
        repeat=config.repeat,
        audio=config.audio,
        crf=config.crf,
        image_suffix=f".{config.images}",
        input_fps=frame_rate("--input-fps", config.input_fps),
    )
    model = load_model(config.model, config.preset, config.checkpoint, config.device)
    if not hasattr(model, "interpolate"):
        raise InputError(f"{config.model}: does not interpolate")
    set_sampling(model, config)
    interpolate = prepared(model, config)
    if output.suffix.lower() in IMAGES:
        if config.factor != 2 or config.fps is not None:
            raise InputError(f"{output}: one image, but --factor or --fps asks for more; name a folder or a video")
        interpolate_pair(inputs, output, interpolate)
        print(f"{output}: the frame between {inputs[0]} and {inputs[1]}")
        return
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up as Ctrl-C does
        stack.callback(signal.signal, signal.SIGTERM, before)
        report = interpolate_clip(
            inputs, output, interpolate, options, identity=identity(model, config), progress=shown(stack)
        )
    print(
        f"{output}: {report.frames} frames in {report.seconds:.1f} s; {report.calls} made, {report.cuts} cuts and "
        f"{report.repeats} repeats not blended" + (f", {report.reused} parts kept from before" if report.reused else "")
    )


def set_sampling(model: Any, config: Config) -> None:
    """What was asked of a model that samples; InputError where it was asked of another."""
    asked = {name: value for name, value in (("steps", config.steps), ("sampler", config.sampler)) if value is not None}
    if isinstance(model, LDMVFINet):
        model.config = replace(model.config, sampling=model.config.sampling.taking(**asked))
        model.config.sampling.scheduler(model.schedule)  # wrong numbers end here
        model.seed = config.seed
    elif asked or config.seed:
        name = next(iter(asked), "seed")
        raise InputError(f"--{name}: got {getattr(config, name)} for {config.model}, expected a model that samples")


def prepared(model: Any, config: Config) -> Interpolate:
    """The model's ``interpolate`` on the device, in the precision and the tiles that were asked for."""
    dtype = torch.float16 if config.half else torch.float32
    model = model.to(dtype)
    if config.tile and config.tile < 64:
        raise InputError(f"--tile is {config.tile}, expected 64 or more, or 0 for whole frames")

    each: dict[int, Any] = defaultdict(model.in_sequence)  # tile by tile

    @torch.inference_mode()
    def interpolate(frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
        pair = [frame.to(config.device, dtype) for frame in (frame0, frame1)]
        try:
            if not config.tile:
                return each[0](*pair, t)
            tiles = itertools.count()
            return tiled(lambda *parts: each[next(tiles)](*parts, t), *pair, tile=config.tile, overlap=config.tile // 4)
        except torch.OutOfMemoryError:
            raise OSError(f"{config.device}: frames do not fit into its memory, try --tile 512 or --half") from None

    return interpolate


def identity(model: Any, config: Config) -> dict[str, Any]:
    """What a stopped job must find unchanged, beside its input and options."""
    return {
        "weights": fingerprint(model),
        **{name: getattr(config, name) for name in ("half", "tile", "device", "steps", "sampler", "seed")},
    }


if __name__ == "__main__":
    run(main, Config)
