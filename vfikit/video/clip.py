"""Frames that were made here, into a video, a GIF or a folder of images; and a clip at a glance."""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from ..files import InputError, atomic
from .encode import choose, rate_base
from .frames import SRGB, SRGB_VIDEO, Frame, Info, made
from .gif import SHORTEST
from .sinks import FolderSink, GifSink, Sink, VideoSink


def write_clip(frames: Iterable[Tensor], output: Path, rate: Fraction, crf: int | None = None) -> int:
    """Writes float frames (3, H, W) in [0, 1] as they come, and returns how many they were.

    ``output`` is .mp4, .mov, .mkv, .webm, .gif, or without a suffix a folder of PNG; it appears when it is whole.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{output}: no frames to write, expected at least one")
    sink = _sink(output, first, rate, crf)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        segment = Path(folder) / f"segment{sink.suffix}"
        facts = sink.write(segment, timed(chain([first], frames), rate))
        with atomic(output) as temporary:
            return sink.finish([(segment, facts)], temporary)


def check_clip(output: Path, rate: Fraction) -> None:
    """Raises ``InputError`` for a name or a rate that ``write_clip`` would refuse, before anything is made."""
    sink = _sink(output, torch.zeros(3, 2, 2), rate, None)
    if isinstance(sink, GifSink) and rate * SHORTEST > 100:
        raise InputError(f"{output}: {float(rate):g} frames a second, a GIF holds at most {100 // SHORTEST}")


def timed(frames: Iterable[Tensor], rate: Fraction) -> Iterator[Frame]:
    """Frames that follow one another at ``rate`` from time 0."""
    for index, rgb in enumerate(frames):
        yield made(rgb, index / rate, 1 / rate)


def contact_sheet(frames: Sequence[Tensor], columns: int = 4) -> Tensor:
    """Frames (3, H, W) row by row in one picture, black where there are none."""
    rows = math.ceil(len(frames) / columns)
    height, width = frames[0].shape[1:]
    sheet = torch.zeros(3, rows * height, min(columns, len(frames)) * width)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        sheet[:, top : top + height, left : left + width] = frame
    return sheet


def _sink(output: Path, first: Tensor, rate: Fraction, crf: int | None) -> Sink:
    height, width = first.shape[1:]
    base = rate_base(Fraction(0), rate)
    info = Info(width, height, "rgb24", 8, rate, base, SRGB)
    suffix = output.suffix.lower()
    if not suffix:
        return FolderSink(info)
    if suffix == ".gif":
        return GifSink(info)
    encoding = choose(suffix, info, rate, base, crf)
    return VideoSink(Info(width, height, "rgb24", 8, rate, base, SRGB_VIDEO), encoding)
