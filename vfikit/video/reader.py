"""Frames out of a video file or GIF, one at a time, with exact times."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..files import InputError
from .colour import to_rgb
from .frames import FULL_RANGE, UNSPECIFIED, Colour, Frame, Info


class VideoReader:
    """The first video stream of a file: ``info``, and frames by iterating. Memory does not grow with the length.

    Frames come as they are coded, ``info.rotation`` not applied. Times are the container's, to the tick; a frame whose
    time does not lie after the one before (broken files have them) is put one tick after it, so that none is lost.
    Raises ``InputError`` for a file that is missing, holds no video, or turns out damaged on the way; damage that libav
    conceals is told on stderr.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._container = open_input(self.path)
        try:
            self.stream = _picture_stream(self._container, self.path)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise InputError(f"{self.path}: holds no video frame that can be decoded")
            self.info = _describe(self._container, self.stream, self._first)
        except BaseException:
            self._container.close()
            raise
        self._used = False
        self._corrupt = int(self._first.is_corrupt)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._used:
            raise ValueError(f"{self.path}: this reader has been read; open another")
        self._used = True
        held, held_time = self._first, self._time(self._first, 0, None)
        self._first = None
        gap: Fraction | None = None
        for index, frame in enumerate(self._frames, 1):
            self._corrupt += frame.is_corrupt
            time = self._time(frame, index, held_time)
            gap = time - held_time
            yield self._frame(held, held_time, gap)
            held, held_time = frame, time
        self._warn(held, held_time + (gap or 0))
        yield self._frame(held, held_time, self._last_duration(held, held_time, gap))

    def _warn(self, held: Any, end: Fraction) -> None:
        """Damage that libav passes over: it conceals pictures, and takes a torn file for a short one."""
        if held.interlaced_frame:
            print(f"warning: {self.path}: is interlaced; deinterlace it first", file=sys.stderr)
        if self._corrupt:
            print(f"warning: {self.path}: {self._corrupt} frames are damaged and were concealed", file=sys.stderr)
        length = Fraction(self._container.duration or 0, 1_000_000)
        if length - end > max(Fraction(1), length / 4):
            print(
                f"warning: {self.path}: its video ends at {float(end):.2f} s of {float(length):.2f} s", file=sys.stderr
            )

    def _frame(self, native: Any, time: Fraction, duration: Fraction) -> Frame:
        colour = self.info.colour
        return Frame(time, duration, lambda: to_rgb(native, colour), native)

    def _time(self, frame: Any, index: int, before: Fraction | None) -> Fraction:
        base = self.info.time_base
        # without a time (raw streams, some AVI) frames are evenly spaced
        time = index / self.info.rate if frame.pts is None else frame.pts * Fraction(frame.time_base or base)
        return before + base if before is not None and time <= before else time

    def _last_duration(self, frame: Any, time: Fraction, gap: Fraction | None) -> Fraction:
        """What the container says of the stream's end, else the frame's own duration, else that of the frame before."""
        stream = self.stream
        if stream.duration and stream.time_base:
            left = ((stream.start_time or 0) + stream.duration) * Fraction(stream.time_base) - time
            if left > 0 and (gap is None or left < 100 * gap):
                return left
        if frame.duration:
            return frame.duration * Fraction(frame.time_base)
        return gap or 1 / self.info.rate

    def _decode(self) -> Iterator[Any]:
        import av

        size: tuple[int, int] | None = None
        count = 0
        try:
            for frame in self._container.decode(self.stream):
                if size not in (None, (frame.width, frame.height)):
                    raise InputError(f"{self.path}: frame {count} is {frame.width}x{frame.height}, expected {size}")
                size, count = (frame.width, frame.height), count + 1
                yield frame
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: damaged after {count} frames ({error.strerror})") from error


def open_input(path: Path) -> Any:
    """A libav input container; raises ``InputError`` where there is none."""
    import av

    if not path.is_file():
        raise InputError(f"{path}: is a folder, expected a video" if path.is_dir() else f"{path}: no such file")
    try:
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a video that can be read ({error.strerror})") from error


def _picture_stream(container: Any, path: Path) -> Any:
    import av

    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError(f"{path}: holds video of a kind that can't be decoded here")
            stream.thread_type = "AUTO"
            return stream
    raise InputError(f"{path}: holds no video stream")


def _either(first: int, second: int) -> int:
    return second if first == UNSPECIFIED else first


def _describe(container: Any, stream: Any, frame: Any) -> Info:
    context = stream.codec_context
    rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
    base = Fraction(stream.time_base or 1 / rate)
    colour = Colour(  # of the bitstream, else of the container
        _either(frame.color_primaries, context.color_primaries),
        _either(frame.color_trc, context.color_trc),
        _either(frame.colorspace, context.colorspace),
        # grey without a tag is full (see to_rgb), but would be limited once it is encoded
        frame.color_range or context.color_range or FULL_RANGE * frame.format.name.startswith("gray"),
    )
    count = stream.frames or None
    if count is None:
        length = stream.duration * base if stream.duration else Fraction(container.duration or 0, 1_000_000)
        count = round(length * rate) or None
    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
    bits = max(component.bits for component in frame.format.components)
    return Info(
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        bits=bits,
        rate=rate,
        time_base=base,
        colour=colour,
        rotation=int(frame.rotation),
        aspect=Fraction(aspect) if aspect else None,
        count=count,
    )
