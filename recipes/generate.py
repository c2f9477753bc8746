"""Videos from nothing, from words, from an image or from a clip.

    python recipes/generate.py sky.mp4 --model lvdm --num-frames 64
    python recipes/generate.py long.mp4 --model video-ldm --checkpoint m.safetensors --num-frames 29 --interpolations 1
    python recipes/generate.py longer.mp4 --model lvdm --begin clip.mp4 --num-frames 128
    python recipes/generate.py cat.mp4 --model lvdm --preset published-text --checkpoint t2v.ckpt --prompt "a cat"

Takes the weights that ship with vfikit where no checkpoint is given. The same seed makes the same video. Prints where
the video and its contact sheet are.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe
from vfikit.data.clips import cover
from vfikit.diffusion import watched
from vfikit.files import InputError, atomic
from vfikit.tasks import generation
from vfikit.video import ImageReader, VideoReader, write_image
from vfikit.video.clip import check_clip, contact_sheet, write_clip
from vfikit.video.images import IMAGES
from vfikit.video.job import check_output


@dataclass(frozen=True)
class Config:
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """The output: a .mp4, .mov, .mkv, .webm or .gif, or a folder for images (no suffix)."""
    model: str = "lvdm"
    """Any model of vfikit.models.MODELS that makes videos."""
    preset: str = "small"
    """Size of the model: small, or one of the published (docs/generate-a-video.md lists them)."""
    checkpoint: tuple[Path, ...] = ()
    """Weights: a .safetensors of vfikit or a published .ckpt. Several .safetensors, each of one network over the same
    autoencoder, are taken together; recipes/convert.py makes them of .ckpt."""
    prompt: str | None = None
    """What is to be seen, for models that read text."""
    text_encoder: str | None = None
    """Of transformers, a name or a folder; the model's own where left out."""
    subject: Path | None = None
    """video-ldm: folder of an image model tuned to a subject (diffusers' DreamBooth), whose look the video gets."""
    begin: Path | None = None
    """An image or a clip that the video begins with, scaled and cut to the video's size; --begin-frames of it."""
    begin_frames: int = 16
    """The last so many frames of --begin."""
    num_frames: int = 16
    """How many frames, those of --begin included."""
    height: int | None = None
    """Pixels; the model's own where left out."""
    width: int | None = None
    """Pixels; the model's own where left out."""
    steps: int | None = None
    """Denoising steps of a clip; the model's own number where left out."""
    sampler: Literal["ddim", "ancestral", "dpm++", "unipc"] | None = None
    """How to denoise; the model's own, ddim, where left out. dpm++ and unipc need few --steps."""
    guidance_scale: float | None = None
    """How far to lean towards the prompt, or what the video begins with; 1 is not at all; the model's own where left
    out."""
    interpolations: int | None = None
    """video-ldm: how often three frames are put between every two, 0 to 2; few frames are then made from noise."""
    upsample: bool = False
    """video-ldm: four times the sides, by its upsampler."""
    context_guidance_scale: float | None = None
    """video-ldm: how far to lean towards the frames that are continued, or that others are put between."""
    fps: str = "8"
    """Frames a second of the video: 8, 23.976 or 30000/1001. --interpolations leaves it: 30 is of two over key frames
    at 1.875."""
    seed: int = 0
    """Of the noise."""
    sheet: int = 16
    """Frames on the contact sheet beside the video (.png, replaced if it is there); 0 makes none."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the network runs."""
    half: bool = False
    """bfloat16: half the memory, faster on a GPU."""


def check(config: Config) -> Fraction:
    """What can be seen to be wrong before anything is done; the frame rate."""
    recipe.at_least(config, 1, "num_frames", "begin_frames", "height", "width", "steps")
    recipe.at_least(config, 0, "sheet")
    if config.text_encoder is not None and config.prompt is None:
        raise InputError("--text-encoder: reads the prompt, expected --prompt beside it")
    rate = recipe.frame_rate("--fps", config.fps)
    generation.check(recipe.build_on_meta(config.model, config.preset))
    for path in (config.output, sheet_path(config))[: 1 + (config.sheet > 0)]:
        check_output([] if config.begin is None else [config.begin], path)
    check_clip(config.output, rate)
    return rate


def sheet_path(config: Config) -> Path:
    return config.output.with_suffix(".png")


def load(config: Config) -> Any:
    """The model, of one checkpoint or of several, and what reads its prompts."""
    model = load_networks(config)
    if config.text_encoder is not None:
        recipe.read_prompts_by(model, config.text_encoder)
    if config.subject is not None:
        recipe.show_subject(model, config.subject)
    return model


def load_networks(config: Config) -> Any:
    if len(config.checkpoint) < 2:
        only = config.checkpoint[0] if config.checkpoint else None
        return recipe.load_model(config.model, config.preset, only, config.device)
    recipe.check_device(config.device)
    models = [checkpoints.load(path, config.device) for path in config.checkpoint]
    if not hasattr(models[0], "combined"):
        raise InputError(f"--checkpoint: got {len(models)}, expected one; {config.model} is one network")
    return models[0].combined(*models)


def beginning(config: Config, model: Any) -> Tensor | None:
    """(1, T, 3, H, W), the last frames of what the video begins with, at the video's size."""
    if config.begin is None:
        return None
    image = config.begin.suffix.lower() in IMAGES
    with ImageReader([config.begin], Fraction(1)) if image else VideoReader(config.begin) as reader:
        last = deque((frame.rgb for frame in reader), maxlen=config.begin_frames)
    if config.num_frames <= len(last):
        begun = f"--num-frames is {config.num_frames}, {len(last)} of them those of --begin"
        raise InputError(f"{begun}, expected more; --begin-frames takes fewer of it")
    size = (config.height or model.config.size[0], config.width or model.config.size[1])
    return cover(torch.stack(list(last)), size)[None].to(config.device)


def kept(frames: Iterator[Tensor], wanted: set[int], sheet: list[Tensor], progress: Any) -> Iterator[Tensor]:
    """The frames, those that are ``wanted`` also put into ``sheet``."""
    for index, frame in enumerate(frames):
        if index in wanted:
            sheet.append(frame)
        progress.set_postfix(frames=index + 1)
        yield frame


def main(config: Config) -> None:
    rate = check(config)
    model = load(config)
    frames = beginning(config, model)
    if config.half:
        model, frames = model.bfloat16(), None if frames is None else frames.bfloat16()
    size = (None, None) if frames is not None else (config.height, config.width)
    request = generation.Request(
        *(config.num_frames, *size, config.prompt, frames, config.steps),
        *(config.guidance_scale, config.seed),
        interpolations=config.interpolations,
        upsample=config.upsample or None,
        context_guidance_scale=config.context_guidance_scale,
        sampler=config.sampler,
    )
    sheet: list[Tensor] = []
    shown = min(config.sheet, config.num_frames)
    wanted = {round(k * (config.num_frames - 1) / max(shown - 1, 1)) for k in range(shown)}
    with tqdm(desc="denoise", unit="step", delay=1) as progress, watched(progress.update):
        count = write_clip(kept(generation.stream(model, request), wanted, sheet, progress), config.output, rate)
    print(f"{config.output}: {count} frames")
    if sheet:
        with atomic(sheet_path(config)) as temporary:
            write_image(contact_sheet(sheet), temporary)
        print(f"{sheet_path(config)}: {len(sheet)} of them")


if __name__ == "__main__":
    recipe.run(main, Config)
