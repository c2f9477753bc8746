"""Frames into an encoded segment: which encoder keeps the source's pixels best, and the exact times of its packets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

from ..files import InputError
from .colour import from_rgb
from .frames import SRGB_VIDEO, Colour, Frame, Info

# by container: encoders in order of preference; the first that takes the source's pixel format is used
ENCODERS = {
    ".mp4": ("libx264", "libx265"),
    ".m4v": ("libx264", "libx265"),
    ".mov": ("libx264", "libx265", "prores_ks"),
    ".mkv": ("libx264", "libx265", "libsvtav1", "ffv1"),
    ".webm": ("libvpx-vp9", "libsvtav1"),
}
OPTIONS: dict[str, dict[str, str]] = {
    # without it the same frames give other bytes from run to run where AVX-512 is (seen in libx264 165 of PyAV 18)
    "libx264": {"preset": "medium", "x264-params": "cpu-independent=1"},
    "libx265": {"preset": "medium", "x265-params": "log-level=error"},
    "libvpx-vp9": {"b": "0", "row-mt": "1", "cpu-used": "3"},
    "libsvtav1": {"preset": "6"},
}
QUALITY = {"libx264": 16, "libx265": 18, "libvpx-vp9": 22, "libsvtav1": 22}  # CRF: hard to tell from the source
WORST = {"libx264": 51, "libx265": 51, "libvpx-vp9": 63, "libsvtav1": 63}  # the largest CRF
EVEN_SIDES = ("libx264", "libx265")  # where chroma is subsampled
LARGEST_TIMESCALE = 2**31 - 1  # MP4
GLOBAL_HEADER = 1 << 22


@dataclass(frozen=True)
class Encoding:
    """How frames are stored: everything that two segments must share to be joined packet by packet."""

    codec: str
    pixel_format: str
    rate: Fraction
    time_base: Fraction
    options: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path, frames: Iterator[Frame], info: Info) -> list[tuple[int, int]]:
        """Encodes ``frames`` into ``path`` and returns (pts, duration) of each packet in file order, in ticks.

        A frame that was decoded in this very pixel format goes to the encoder as it is, others through ``rgb``. The
        file holds the packets only: their times are kept beside it, since containers round them.
        """
        import av

        durations: dict[int, int] = {}
        packets: list[tuple[int, int]] = []
        last = None
        with av.open(f"file:{path}", "w", format="nut") as container:
            stream = self._add_stream(container, info)

            def store(encoded: Any) -> None:
                for packet in encoded:
                    packets.append((packet.pts, durations.pop(packet.pts)))
                    container.mux(packet)

            for frame in frames:
                native = self._native(frame, info)
                pts = round(frame.time / self.time_base)
                pts = pts if last is None else max(pts, last + 1)  # coarse clocks: never two at one tick
                native.pts, native.time_base = pts, self.time_base
                durations[pts] = max(round((frame.time + frame.duration) / self.time_base) - pts, 1)
                last = pts
                store(stream.encode(native))
            if last is not None:
                store(stream.encode(None))
        return packets

    def _native(self, frame: Frame, info: Info) -> Any:
        import av

        native = frame.native
        if isinstance(native, av.VideoFrame) and native.format.name == self.pixel_format:
            native.pict_type = av.video.frame.PictureType.NONE  # else the source's frame types would be forced
            return native
        return from_rgb(frame.rgb, self.pixel_format, info.colour)

    def _add_stream(self, container: Any, info: Info) -> Any:
        stream = container.add_stream(self.codec, rate=self.rate, options=self.options)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, self.pixel_format
        context.time_base = stream.time_base = self.time_base
        context.flags |= GLOBAL_HEADER
        colour = info.colour
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.colorspace, context.color_range = colour.matrix, colour.range
        if info.aspect:
            context.sample_aspect_ratio = info.aspect
        return stream


def choose(suffix: str, info: Info, rate: Fraction, time_base: Fraction, crf: int | None = None) -> Encoding:
    """The encoding for a container: the source's own pixel format where an encoder takes it, else the nearest.

    RGB (images, GIF) becomes 4:2:0, which plays everywhere; odd sides become 4:4:4, since H.264 has no other way.
    Raises ``InputError`` for a container that is not known or whose encoders this build of libav lacks.
    """
    if suffix not in ENCODERS:
        raise InputError(f"output {suffix or '(no suffix)'}: unknown, expected one of {', '.join(ENCODERS)}")
    available = {codec: formats for codec in ENCODERS[suffix] if (formats := _formats(codec))}
    for name in _wanted(info):
        for codec, formats in available.items():
            if name in formats and not (codec in EVEN_SIDES and _is_odd(name, info)):
                quality = QUALITY.get(codec) if crf is None else crf
                if crf is not None and not 0 <= crf <= WORST.get(codec, crf):
                    raise InputError(f"crf is {crf}, expected 0 to {WORST.get(codec, 0)} for {codec}")
                options = OPTIONS.get(codec, {}) | ({"crf": str(quality)} if codec in QUALITY else {})
                return Encoding(codec, name, rate, time_base, options)
    raise InputError(
        f"{suffix}: none of {', '.join(ENCODERS[suffix])} is in this build of libav for {info.pixel_format}"
    )


def shown_colour(info: Info, pixel_format: str) -> Colour:
    """The source's own tags; RGB that becomes YUV is BT.709, limited range, and says so."""
    import av

    if not av.VideoFormat(info.pixel_format, 64, 64).is_rgb and not info.pixel_format.startswith("pal"):
        return info.colour
    return info.colour if av.VideoFormat(pixel_format, 64, 64).is_rgb else SRGB_VIDEO


def lossless(rate: Fraction, time_base: Fraction) -> Encoding:
    """For pixels that are decoded again: 8-bit RGB, FFV1."""
    return Encoding("ffv1", "bgr0", rate, time_base)


def common_base(source: Fraction, divisor: int) -> Fraction:
    """A time base in which every multiple of ``source / divisor`` is whole, where containers can hold it.

    Beyond 2 ** 31 - 1 ticks a second (a nanosecond clock divided) it is a microsecond, and times are rounded to it.
    """
    base = source / divisor
    return base if base.denominator <= LARGEST_TIMESCALE else Fraction(1, 1_000_000)


def rate_base(start: Fraction, fps: Fraction) -> Fraction:
    """A time base in which ``start`` + k / ``fps`` is whole for every k."""
    ticks = lcm(start.denominator, fps.numerator)
    return Fraction(1, ticks) if ticks <= LARGEST_TIMESCALE else Fraction(1, 1_000_000)


def _wanted(info: Info) -> Iterator[str]:
    """Pixel formats from the best on."""
    import av

    yield info.pixel_format
    source = av.VideoFormat(info.pixel_format, 64, 64)
    depth = {8: "", 12: "12le"}.get(info.bits, "10le")  # 16-bit stills too: 12-bit video hardly plays anywhere
    if info.pixel_format.startswith("gray"):
        yield f"gray{depth}"
    columns, rows = 64 // max(source.chroma_width(64), 1), 64 // max(source.chroma_height(64), 1)
    if source.is_rgb or source.has_palette or (columns > 1 and rows > 1):
        chroma = ["420", "422", "444"]
    else:
        chroma = ["422", "444"] if columns > 1 else ["444"]
    for deep in dict.fromkeys((depth, "10le" if depth else "", "")):
        yield from (f"yuv{name}p{deep}" for name in chroma)
    yield from ("yuv420p10le", "yuv420p") if depth else ("yuv420p",)


def _is_odd(pixel_format: str, info: Info) -> bool:
    import av

    layout = av.VideoFormat(pixel_format, 64, 64)
    wide, high = layout.chroma_width(64) < 64, layout.chroma_height(64) < 64
    return (wide and info.width % 2 == 1) or (high and info.height % 2 == 1)


def _formats(codec: str) -> set[str]:
    import av

    try:
        return {name.name for name in av.Codec(codec, "w").video_formats or ()}
    except (av.FFmpegError, ValueError):
        return set()
