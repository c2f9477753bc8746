"""Frames into a GIF, each with a palette of its own, in constant memory."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..files import InputError
from .colour import from_rgb
from .frames import SRGB, Frame

SHORTEST = 2  # hundredths of a second; viewers slow down what is shorter


def spaced(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames; raises ``InputError`` at the first two that come closer than a GIF can hold."""
    before: Frame | None = None
    for frame in frames:
        if before is not None and round(frame.time * 100) - round(before.time * 100) < SHORTEST:
            raise InputError(
                f"frames would be {float(frame.time - before.time):.4f} s apart, a GIF holds at least 2/100 s: "
                "ask for fewer (50 a second at most), or write a video"
            )
        before = frame
        yield frame


def write_gif(frames: Iterator[Frame], width: int, height: int, path: Path) -> int:
    """Writes a GIF that loops for ever and returns the number of frames; times are rounded to hundredths of a second.

    Raises ``InputError`` where frames come closer than 2/100 s: viewers play those at a fifth of the speed.
    """
    import av

    count = 0
    shown, start = None, 0
    with av.open(f"file:{path}", "w", format="gif") as container:
        stream = container.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        for frame in spaced(frames):
            begin, end = round(frame.time * 100), round((frame.time + frame.duration) * 100)
            if shown is not None:
                _store(container, stream, shown, start, begin)
            shown, start, last = _paletted(from_rgb(frame.rgb, "rgb24", SRGB)), begin, end
            count += 1
        if shown is not None:
            _store(container, stream, shown, start, max(last, start + SHORTEST))
        container.mux(stream.encode(None))
    return count


def _store(container: Any, stream: Any, shown: Any, start: int, end: int) -> None:
    shown.pts, shown.time_base = start, Fraction(1, 100)
    for packet in stream.encode(shown):
        packet.duration = end - start
        container.mux(packet)


def _paletted(frame: Any) -> Any:
    """The frame in 256 colours chosen for it, with error diffusion."""
    from av.filter import Graph

    frame.pts = 0
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 100))
    split, choose = graph.add("split"), graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use, sink = graph.add("paletteuse", "new=1:dither=sierra2_4a"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(choose, 0, 0)
    split.link_to(use, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    return graph.pull()
