"""The handful of VapourSynth that ``integrations.vapoursynth`` calls, for machines without it: lazy, one thread."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np

RGBS = 1
YUV444PS = 2
FORMATS = {RGBS: SimpleNamespace(id=RGBS, name="RGBS"), YUV444PS: SimpleNamespace(id=YUV444PS, name="YUV444PS")}


@dataclass
class VideoFrame:
    planes: np.ndarray
    props: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.planes.flags.writeable = False

    def __getitem__(self, plane: int) -> memoryview:
        return memoryview(self.planes[plane])

    def copy(self) -> "VideoFrame":
        frame = VideoFrame(self.planes.copy(), dict(self.props))
        frame.planes.flags.writeable = True
        return frame


@dataclass
class VideoNode:
    load: Callable[[int], VideoFrame]
    num_frames: int
    format: Any
    width: int
    height: int
    fps: Fraction

    @property
    def std(self) -> "Std":
        return Std(self)

    def get_frame(self, n: int) -> VideoFrame:
        if not 0 <= n < self.num_frames:
            raise IndexError(n)
        return self.load(n)

    def __getitem__(self, places: slice) -> "VideoNode":
        kept = range(self.num_frames)[places]
        return replace(self, load=lambda n: self.get_frame(kept[n]), num_frames=len(kept))


@dataclass
class Std:
    """``core.std``, and bound to a clip ``clip.std``."""

    clip: Any = None

    def BlankClip(self, width: int, height: int, format: int, length: int, fpsnum: int, fpsden: int) -> VideoNode:
        def load(n: int) -> VideoFrame:
            props = {"_DurationNum": fpsden, "_DurationDen": fpsnum}
            return VideoFrame(np.zeros((3, height, width), np.float32), props)

        return VideoNode(load, length, FORMATS[format], width, height, Fraction(fpsnum, fpsden))

    def ModifyFrame(self, clips: Any, selector: Callable[..., VideoFrame]) -> VideoNode:
        def load(n: int) -> VideoFrame:
            frames = [clip.get_frame(n) for clip in clips] if isinstance(clips, list) else clips.get_frame(n)
            return selector(n=n, f=frames)

        return replace(self.clip, load=load)

    def DuplicateFrames(self, frames: int) -> VideoNode:
        load = self.clip.get_frame
        return replace(self.clip, load=lambda n: load(n - (n > frames)), num_frames=self.clip.num_frames + 1)

    def Interleave(self, clips: list[VideoNode]) -> VideoNode:
        times = len(clips)
        return replace(
            clips[0],
            load=lambda n: lasting(clips[n % times].get_frame(n // times), Fraction(1, times)),
            num_frames=clips[0].num_frames * times,
            fps=clips[0].fps * times,
        )

    def SelectEvery(self, cycle: int, offsets: list[int]) -> VideoNode:
        clip, times = self.clip, Fraction(len(offsets), cycle)
        return replace(
            clip,
            load=lambda n: lasting(clip.get_frame(n // len(offsets) * cycle + offsets[n % len(offsets)]), 1 / times),
            num_frames=int(clip.num_frames * times),
            fps=clip.fps * times,
        )


def lasting(frame: VideoFrame, times: Fraction) -> VideoFrame:
    """The frame, shown ``times`` as long."""
    duration = Fraction(frame.props["_DurationNum"], frame.props["_DurationDen"]) * times
    numbers = {"_DurationNum": duration.numerator, "_DurationDen": duration.denominator}
    return VideoFrame(frame.planes, {**frame.props, **numbers})


core = SimpleNamespace(std=Std())
