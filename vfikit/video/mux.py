"""Segments joined into one file by copying packets, together with the source's audio, subtitles and chapters."""

import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..files import InputError
from .frames import Info
from .reader import open_input

DTS_DURATIONS = (".mp4", ".m4v", ".mov")  # durations there follow the decoding order


# encoded stretches, each closed in itself: where it is, and [pts, duration] of its packets in file order, in ticks
Segments = Iterable[tuple[Path, list[list[int]]]]


def check_copies(source: Path, suffix: str) -> None:
    """Raises ``InputError`` if the source's audio can't be copied into ``suffix``; warns of subtitles that can't."""
    import io

    import av

    name = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix[1:])
    supported = av.open(io.BytesIO(), "w", format=name).supported_codecs
    with open_input(source) as container:
        for stream in container.streams:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else codec
            if codec in supported:
                continue
            if stream.type == "audio":
                raise InputError(
                    f"{source}: its audio ({codec}) can't be copied into {suffix}; write .mkv, or give --no-audio"
                )
            if stream.type == "subtitle":
                print(f"warning: {source}: its {codec} subtitles can't be copied into {suffix}", file=sys.stderr)


def join(segments: Segments, base: Fraction, rate: Fraction, info: Info, source: Path | None, output: Path) -> int:
    """Writes ``output`` from the packets of ``segments`` (times in multiples of ``base``) and, where ``source`` is
    given, of its audio and subtitle streams, byte for byte with their own times. Returns the number of video packets.
    """
    import av

    suffix = output.suffix.lower()
    options = {"movflags": "+faststart"} if suffix in DTS_DURATIONS else {}
    first_path = next(path for path, packets in segments if packets)
    with av.open(f"file:{output}", "w", options=options) as container:
        with av.open(f"file:{first_path}") as first:
            video = container.add_stream_from_template(first.streams.video[0], opaque=True)  # of a decoder alone, too
        video.time_base = base
        video.codec_context.framerate = rate  # Matroska's default duration, and what tools display
        context, colour = video.codec_context, info.colour
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.colorspace, context.color_range = colour.matrix, colour.range
        if info.rotation and suffix != ".webm":
            video.set_display_rotation(info.rotation)
        copied = _Copied(container, source)
        other = next(copied, None)
        count = 0
        for packet in _video_packets(segments, base, suffix):
            while other is not None and _seconds(other) <= packet.dts * base:
                container.mux(other)
                other = next(copied, None)
            packet.stream = video
            packet.time_base = base
            container.mux(packet)
            count += 1
        while other is not None:
            container.mux(other)
            other = next(copied, None)
        copied.close()
    return count


def _video_packets(segments: Segments, base: Fraction, suffix: str) -> Iterator[Any]:
    """Packets with the times that were asked for.

    Decoding times are the presentation times in order, all moved back by the least that keeps every packet's decoding
    at or before its presentation; segments follow one another in time, so this needs one segment's times at once.
    """
    import av

    delay, last = 0, None
    for path, packets in segments:
        ordered = sorted(pts for pts, _ in packets)
        delay = max(delay, *(early - pts for early, (pts, _) in zip(ordered, packets, strict=True)), 0)
        last = path if packets else last
    for path, times in segments:
        ordered = sorted(pts for pts, _ in times)
        if not times:
            continue
        with av.open(f"file:{path}") as container:
            packets_read = (packet for packet in container.demux(video=0) if packet.size)
            for index, (packet, (pts, duration)) in enumerate(zip(packets_read, times, strict=True)):
                packet.pts, packet.dts, packet.duration = pts, ordered[index] - delay, duration
                if path == last and index == len(times) - 1 and suffix in DTS_DURATIONS:
                    packet.duration = max(times)[1]  # of the frame that is shown last
                yield packet


class _Copied:
    """Packets of the source's audio and subtitle streams, set to their twins in ``container``; metadata copied too."""

    def __init__(self, container: Any, source: Path | None):
        self._input: Any = None
        self._packets: Iterator[Any] = iter(())
        self._streams: dict[int, Any] = {}
        if source is None:
            return
        self._input = open_input(source)
        container.metadata.update({key: value for key, value in self._input.metadata.items() if key in KEPT})
        for stream in self._input.streams:
            name = stream.codec_context.codec.canonical_name if stream.codec_context else ""
            if stream.type in ("audio", "subtitle") and name in container.supported_codecs:
                twin = container.add_stream_from_template(stream)
                twin.metadata.update(stream.metadata)
                twin.disposition = stream.disposition
                self._streams[stream.index] = twin
        chapters = self._input.chapters()
        if chapters:
            container.set_chapters(chapters)
        if self._streams:
            self._packets = self._input.demux([self._input.streams[index] for index in self._streams])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for packet in self._packets:
            if packet.dts is not None and packet.size:
                packet.stream = self._streams[packet.stream_index]
                return packet
        raise StopIteration

    def close(self) -> None:
        if self._input is not None:
            self._input.close()


KEPT = ("title", "artist", "album", "comment", "description", "date", "creation_time", "copyright", "genre", "language")


def _seconds(packet: Any) -> Fraction:
    return packet.dts * Fraction(packet.time_base)
