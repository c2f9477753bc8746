"""A whole clip with something taken out: frames and masks in, filled frames out, so that a job can be gone on with."""

import functools
import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..files import InputError, atomic
from .encode import common_base
from .frames import Frame, Info, made
from .images import IMAGES, ImageReader, numbered, read_image
from .job import Reader, check_output, kept_if_stopped, key_of, open_clip, open_sink
from .reader import VideoReader
from .sinks import Sink
from .work import Parts, Work

# (pairs of frame (1, 3, H, W) in [0, 1] and mask (1, 1, H, W), first frame to give, what any mask covers) to frames
Fill = Callable[[Iterator[tuple[Tensor, Tensor]], int, Tensor | None], Iterator[Tensor]]
EXACT = (".png", ".bmp", ".tif", ".tiff", ".ppm")  # masks in these hold just what was painted


@dataclass(frozen=True)
class FillOptions:
    """How a filled clip is written; ``segment`` frames are what a stop can cost.

    With ``look_ahead``, all masks are read first, and ``fill`` is told what any of them covers, (1, H, W); else None.
    """

    audio: bool = True
    crf: int | None = None
    image_suffix: str = ".png"
    input_fps: Fraction = Fraction(24)  # of images
    segment: int = 25
    look_ahead: bool = False


class FillReport(NamedTuple):
    """What a job did: frames written, those of them with a hole in this run, segments kept from an earlier one."""

    frames: int
    filled: int
    reused: int
    seconds: float


def inpaint_clip(
    source: Path,
    mask: Path,
    output: Path,
    fill: Fill,
    options: FillOptions | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> FillReport:
    """Fills what ``mask`` covers of ``source``, a video or a folder of images, and writes ``output``, one or the other.

    ``mask`` is one image for the whole clip, a folder with an image for each frame, or a video as long. Anything but
    black is a hole; of lossy kinds (video, JPEG), anything lighter than middle grey. Masks of the clip's proportions at
    another size are resized, to the nearest pixel. Frames without a hole pass through
    untouched. ``fill`` gives back as many frames as it is given pairs, from the first that it is asked for, a multiple
    of ``options.segment``. The rest is as for ``interpolate_clip``.
    """
    options = options or FillOptions()
    started = time.monotonic()
    check_output([source, mask], output)
    if not mask.exists():
        raise InputError(f"{mask}: no such file")
    with open_clip([source], options.input_fps) as reader:
        check_masks(mask, reader)
        area = covered(mask, reader.info) if options.look_ahead else None
        base = common_base(reader.info.time_base, 1)
        sink = open_sink(*(reader, output, reader.info.rate, base), options.image_suffix, options.audio, options.crf)
        key = key_of([source, mask], options, identity, options.segment)
        with kept_if_stopped(Work(output, key)) as work:
            job = _Job(reader, masks(mask, reader.info), mask, progress)
            parts, reused = job.write(fill, area, sink, work, options.segment)
            with atomic(output) as temporary:
                frames = sink.finish(parts, temporary)
    return FillReport(frames, job.holed, reused, time.monotonic() - started)


class _Job:
    def __init__(
        self, reader: Reader, holes: Iterator[Tensor], mask: Path, progress: Callable[[int, int | None], None] | None
    ) -> None:
        self.reader, self.holes, self.mask, self.progress = reader, holes, mask, progress
        # read, not yet written: time, duration, and the frame if it has no hole; others are in ``fill``'s hands
        self.waiting: deque[tuple[Fraction, Fraction, Frame | None]] = deque()
        self.holed = self.read = 0

    def write(self, fill: Fill, area: Tensor | None, sink: Sink, work: Work, length: int) -> tuple[Parts, int]:
        """The segments, those finished before as they are; how many those were."""
        done = next(index for index in itertools.count() if work.record(index) is None)
        if self.progress and done:
            self.progress(done * length, self.reader.info.count)
        frames, index = self.filled(fill, done * length, area), done
        while (head := next(frames, None)) is not None:
            segment = itertools.chain([head], itertools.islice(frames, length - 1))
            work.commit(index, sink.write(work.path(index, sink.suffix), segment))
            index += 1
        return work.parts(index, sink.suffix), done

    def filled(self, fill: Fill, start: int, area: Tensor | None) -> Iterator[Frame]:
        for rgb in fill(self.pairs(start), start, area):
            moment, duration, untouched = self.waiting.popleft()
            self.holed += untouched is None
            yield untouched or made(rgb[0].cpu(), moment, duration)
            if self.progress:
                self.progress(1, self.reader.info.count)

    def pairs(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index, frame in enumerate(self.reader):
            hole = next(self.holes, None)
            if hole is None:
                raise InputError(f"{self.mask}: holds {index} masks, expected one for each frame of the clip")
            if index >= start:
                self.waiting.append((frame.time, frame.duration, None if hole.any() else frame))
            yield frame.rgb[None], hole[None]
        if not for_all_frames(self.mask) and next(self.holes, None) is not None:
            print(f"warning: {self.mask}: holds more masks than the clip has frames", file=sys.stderr)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES


def for_all_frames(mask: Path) -> bool:
    """Whether there is one mask for the whole clip."""
    return len(numbered(mask)) == 1 if mask.is_dir() else is_image(mask)


def check_masks(mask: Path, reader: Reader) -> None:
    """Raises ``InputError`` for what can be seen to be wrong with them before anything is done."""
    next(masks(mask, reader.info))
    if mask.is_dir() and isinstance(reader, ImageReader) and 1 < (found := len(numbered(mask))) < len(reader.paths):
        raise InputError(f"{mask}: holds {found} masks, expected one for each of {len(reader.paths)} frames")


def masks(path: Path, info: Info) -> Iterator[Tensor]:
    """Masks (1, H, W), 1 in holes, for a clip: one image again and again, or as many as there are."""
    if not path.is_dir() and not is_image(path):
        return _of_video(path, info)
    paths = numbered(path) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path}: holds no images, expected masks")
    holes = (_hole(read_image(each), each, info) for each in paths)
    return itertools.repeat(next(holes)) if len(paths) == 1 else holes


def _of_video(path: Path, info: Info) -> Iterator[Tensor]:
    with VideoReader(path) as reader:
        turned = reader.info.rotation
        for frame in reader:
            yield _hole(torch.rot90(frame.rgb, turned // 90, (1, 2)) if turned % 90 == 0 else frame.rgb, path, info)


def _hole(rgb: Tensor, path: Path, info: Info) -> Tensor:
    """A mask that is upright as the clip's frames are coded, which may be turned for display, and at their size."""
    if info.rotation % 90 == 0:
        rgb = torch.rot90(rgb, -info.rotation // 90, (1, 2))
    height, width = rgb.shape[1:]
    if (height, width) != (info.height, info.width):
        if abs(height * info.width - width * info.height) > 0.02 * height * info.width:
            expected = f"{info.width}x{info.height} like the clip, or of its proportions"
            raise InputError(f"{path}: the mask is {width}x{height}, expected {expected}")
        rgb = functional.interpolate(rgb[None], (info.height, info.width), mode="nearest-exact")[0]
    return (rgb.amax(0, keepdim=True) > (0 if path.suffix.lower() in EXACT else 0.5)).float()


def covered(mask: Path, info: Info) -> Tensor:
    """What any mask covers, (1, H, W); reads every mask once."""
    holes = masks(mask, info)
    return functools.reduce(torch.maximum, itertools.islice(holes, 1) if for_all_frames(mask) else holes)
