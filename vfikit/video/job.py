"""A whole clip through an engine: in stretches that are kept, so that a job can be stopped and gone on with."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import av

from ..files import InputError, atomic, check_place
from .encode import choose, common_base, rate_base, shown_colour
from .engine import Engine, Factor, Interpolate, Rate, gaps
from .frames import Frame, Info
from .images import IMAGES, ImageReader, numbered, write_image
from .mux import check_copies
from .reader import VideoReader
from .sinks import FolderSink, GifSink, Sink, VideoSink
from .work import Parts, Work

SEGMENT = 24  # source frames: what a stop can cost
Reader = VideoReader | ImageReader
Gap = tuple[Frame, Frame | None]


@dataclass(frozen=True)
class Report:
    """What a job did. ``calls`` of the network, ``cuts`` and ``repeats`` leave out what an earlier run had finished."""

    frames: int
    calls: int
    cuts: int
    repeats: int
    reused: int  # segments
    seconds: float


@dataclass(frozen=True)
class Options:
    """How a clip is interpolated and written; see ``Engine`` for the middle four."""

    factor: int = 2
    fps: Fraction | None = None  # instead of factor
    any_time: bool = False
    halvings: int = 4
    cut: float = Engine.cut
    repeat: float = Engine.repeat
    audio: bool = True
    crf: int | None = None
    image_suffix: str = ".png"
    input_fps: Fraction = Fraction(24)  # of images


def open_clip(inputs: list[Path], input_fps: Fraction) -> Reader:
    """One video or GIF, one folder of images, or images one by one (at least two)."""
    if not inputs:
        raise InputError("no input given")
    if len(inputs) == 1 and not inputs[0].is_dir():
        if inputs[0].is_file() and inputs[0].suffix.lower() in IMAGES:
            raise InputError(f"{inputs[0]}: one image, expected two or more, a folder of images, or a video")
        return VideoReader(inputs[0])
    paths = numbered(inputs[0]) if len(inputs) == 1 else inputs
    if len(paths) < 2:
        raise InputError(f"{inputs[0]}: holds {len(paths)} images, expected two or more")
    for path in paths:
        if path.is_dir() or path.suffix.lower() not in IMAGES:
            raise InputError(f"{path}: is no image; several inputs must all be images ({', '.join(IMAGES)})")
    return ImageReader(paths, input_fps)


def interpolate_clip(
    inputs: list[Path],
    output: Path,
    interpolate: Interpolate,
    options: Options | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    segment: int = SEGMENT,
) -> Report:
    """Reads ``inputs`` (see ``open_clip``), writes ``output``: a video, a .gif, or (no suffix) a folder of images.

    ``interpolate(frame0, frame1, t)`` takes and returns (1, 3, H, W) in [0, 1]; see ``Engine``. ``identity`` (JSON)
    says which network it is: a stopped job is only gone on with by the same inputs, options and identity.
    ``progress(done, total)`` is called with the source frames just done, and those of the clip where known. ``output``
    appears when it is whole, replacing a file that was there; a folder with something in it is refused.
    """
    options = options or Options()
    started = time.monotonic()
    check_output(inputs, output)
    with open_clip(inputs, options.input_fps) as reader:
        engine = Engine(interpolate, options.any_time, options.halvings, options.cut, options.repeat)
        schedule, sink, stream = _plan(reader, output, options)
        with kept_if_stopped(Work(output, key_of(inputs, options, identity, segment))) as work:
            parts, reused = _segments(stream, reader.info, engine, schedule, sink, work, segment, progress)
            with atomic(output) as temporary:
                frames = sink.finish(parts, temporary)
    tally = engine.tally
    return Report(frames, tally.calls, tally.cuts, tally.repeats, reused, time.monotonic() - started)


def interpolate_pair(inputs: list[Path], output: Path, interpolate: Interpolate, time: float = 0.5) -> None:
    """Two images to the one between them; ``interpolate`` as for ``interpolate_clip``."""
    check_output(inputs, output)
    if len(inputs) != 2 or output.suffix.lower() not in IMAGES:
        raise InputError(f"{output}: one image, expected from two; name a folder, a video or a .gif")
    with ImageReader(inputs, Fraction(1)) as reader:
        first, second = reader
        rgb = interpolate(first.rgb[None], second.rgb[None], time)[0]
        with atomic(output) as temporary:
            write_image(rgb, temporary, reader.info.bits)


def check_output(inputs: list[Path], output: Path) -> None:
    """Raises ``InputError`` where the output is one of the inputs, a folder that holds something, or in no folder."""
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise InputError(f"{output}: is an input, expected another place for the output")
    if output.is_dir() and (output.suffix or any(output.iterdir())):
        raise InputError(f"{output}: is a folder that holds files, expected a new or an empty one")
    if not output.suffix and output.is_file():
        raise InputError(f"{output}: is a file, expected a folder for images or a name with a suffix")
    check_place(output)


def _plan(reader: Reader, output: Path, options: Options) -> tuple[Factor | Rate, Sink, Iterator[Gap]]:
    info = reader.info
    stream = gaps(reader)
    head = next(stream)
    schedule: Factor | Rate
    if options.fps is None:
        schedule = Factor(options.factor)
        rate, base = info.rate * options.factor, common_base(info.time_base, options.factor)
    else:
        schedule = Rate(options.fps, head[0].time)
        rate, base = options.fps, rate_base(head[0].time, options.fps)
    sink = open_sink(reader, output, rate, base, options.image_suffix, options.audio, options.crf)
    return schedule, sink, chain([head], stream)


def open_sink(
    reader: Reader, output: Path, rate: Fraction, base: Fraction, image_suffix: str, audio: bool, crf: int | None
) -> Sink:
    """What writes ``output``, of ``rate`` frames a second whose times are multiples of ``base``, as the reader's."""
    info, suffix = reader.info, output.suffix.lower()
    if not suffix:
        return FolderSink(info, image_suffix)
    if suffix == ".gif":
        return GifSink(info)
    copy = reader.path if isinstance(reader, VideoReader) and audio else None
    encoding = choose(suffix, info, rate, base, crf)
    if copy is not None:
        check_copies(copy, suffix)
    return VideoSink(replace(info, colour=shown_colour(info, encoding.pixel_format)), encoding, copy)


@contextlib.contextmanager
def kept_if_stopped(work: Work) -> Iterator[Work]:
    """Removes the finished segments at the end, or where the input is wrong; not where something else stops the job."""
    keep = False
    try:
        yield work
    except InputError:
        raise
    except OSError as error:  # a disk can be emptied: what is finished stays
        keep = True
        raise _explained(error, work) from error
    except BaseException:  # so does it when the job is stopped
        keep = True
        raise
    finally:
        work.close(remove=not keep)


def _segments(
    stream: Iterator[Gap],
    info: Info,
    engine: Engine,
    schedule: Factor | Rate,
    sink: Sink,
    work: Work,
    length: int,
    progress: Callable[[int, int | None], None] | None,
) -> tuple[Parts, int]:
    def filled(chunk: Iterator[Gap]) -> Iterator[Frame]:
        for first, second in chunk:
            yield from engine.fill(first, second, schedule.places(first, second))
            if progress:
                progress(1, info.count)

    reused = 0
    for index in count():
        chunk = islice(stream, length)
        head = next(chunk, None)
        if head is None:
            return work.parts(index, sink.suffix), reused
        if work.record(index) is None:
            work.commit(index, sink.write(work.path(index, sink.suffix), filled(chain([head], chunk))))
        else:
            skipped = 1 + sum(1 for _ in chunk)  # decoded, for the times and the place; nothing else is done
            reused += 1
            if progress:
                progress(skipped, info.count)
    raise AssertionError("unreachable")


def key_of(inputs: list[Path], options: Any, identity: Mapping[str, Any] | None, segment: int) -> dict[str, Any]:
    """Everything that a job's segments depend on (JSON); ``options`` is a dataclass."""
    paths = [path for given in inputs for path in (numbered(given) if given.is_dir() else [given])]
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    libraries = {name: list(version) for name, version in av.library_versions.items()}
    return {
        "files": files,
        "options": asdict(options),
        "identity": dict(identity or {}),
        "segment": segment,
        "libraries": libraries,
    }


def _explained(error: OSError, work: Work) -> OSError:
    if not work.finished:
        return error
    return OSError(f"{error.strerror or error}; run the same command again to go on from what is done ({work.folder})")
