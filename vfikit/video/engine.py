"""More frames in the same time: any ``interpolate(frame0, frame1, t)`` over a stream of frames.

The stream is cut into gaps between neighbouring frames, and every gap is filled by itself: memory does not grow with
the clip, and a long job can go on from any gap. Frames that are there already pass through untouched.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from torch import Tensor

from .frames import Frame, made
from .similarity import CUT, REPEAT, change, scene_change

# frames (1, 3, H, W) in [0, 1] and a time in (0, 1), 0.5 half-way, to a frame (1, 3, H, W)
Interpolate = Callable[[Tensor, Tensor, float], Tensor]
MAX_FACTOR = 32
MAX_HALVINGS = 16  # calls of the network for one place


class Place(NamedTuple):
    """A frame to be shown: when, for how long, and how far it stands between the two frames around it, in [0, 1)."""

    time: Fraction
    duration: Fraction
    position: Fraction


@dataclass(frozen=True)
class Factor:
    """``factor`` frames for every one, evenly within each gap: N frames become factor * (N - 1) + 1.

    Originals stay at every ``factor``-th place at their own times, so a varying frame rate stays as it is; the last
    frame keeps its duration, and so the clip its length.
    """

    factor: int

    def __post_init__(self) -> None:
        if not 2 <= self.factor <= MAX_FACTOR:
            raise ValueError(f"factor is {self.factor}, expected 2 to {MAX_FACTOR}")

    def places(self, first: Frame, second: Frame | None) -> Iterator[Place]:
        if second is None:
            yield Place(first.time, first.duration, Fraction(0))
            return
        step = (second.time - first.time) / self.factor
        for k in range(self.factor):
            yield Place(first.time + k * step, step, Fraction(k, self.factor))


@dataclass(frozen=True)
class Rate:
    """``fps`` frames a second, exactly evenly from ``start``, whatever the clip's own (varying) rate.

    The last frame is repeated as long as it was shown, so the clip keeps its length to one output frame.
    """

    fps: Fraction
    start: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ValueError(f"fps is {self.fps}, expected more than 0")

    def places(self, first: Frame, second: Frame | None) -> Iterator[Place]:
        end = first.time + first.duration if second is None else second.time
        for k in range(ceil((first.time - self.start) * self.fps), ceil((end - self.start) * self.fps)):
            time = self.start + k / self.fps
            position = Fraction(0) if second is None else (time - first.time) / (end - first.time)
            yield Place(time, 1 / self.fps if second is not None else min(1 / self.fps, end - time), position)


@dataclass
class Tally:
    """What was done: calls of the network, gaps that were cuts, gaps between repeated frames."""

    calls: int = 0
    cuts: int = 0
    repeats: int = 0


@dataclass(frozen=True)
class Engine:
    """Fills gaps by ``interpolate``, which may be ours or anyone's.

    ``any_time`` says that it knows every t. If not, it is only ever asked for t = 0.5 and gaps are halved: halves,
    quarters ... thirty-seconds are exact, any other place is moved to the nearest multiple of 2 ** -``halvings``, off
    by at most 2 ** -(halvings + 1) of the gap (1/32 by default) in motion; the frame's time stays exact.

    A gap whose ``scene_change`` is above ``cut`` is not blended over: the nearer original is repeated. One whose
    ``change`` is below ``repeat`` holds the same picture twice: it is shown again, and no network is called.
    """

    interpolate: Interpolate
    any_time: bool = False
    halvings: int = 4
    cut: float = CUT
    repeat: float = REPEAT
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        if not 0 <= self.halvings <= MAX_HALVINGS:
            raise ValueError(f"halvings is {self.halvings}, expected 0 to {MAX_HALVINGS}")
        for name in ("cut", "repeat"):
            if not getattr(self, name) >= 0:  # so is not NaN
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")

    def fill(self, first: Frame, second: Frame | None, places: Iterable[Place]) -> Iterator[Frame]:
        """The frames at ``places``, in order, ``first`` and ``second`` (exclusive) being the originals around them."""
        planned = [place._replace(position=self._snap(place.position)) for place in places]
        between = [place for place in planned if 0 < place.position < 1]
        if second is not None and between:
            if first.rgb.shape != second.rgb.shape:
                raise ValueError(
                    f"frames are {tuple(first.rgb.shape)} and {tuple(second.rgb.shape)}, expected one size"
                )
            if change(first.rgb, second.rgb) < self.repeat:
                self.tally.repeats += 1
                planned = [place._replace(position=Fraction(0)) for place in planned]
            elif scene_change(first.rgb, second.rgb) > self.cut:
                self.tally.cuts += 1
                planned = [place._replace(position=Fraction(int(place.position > Fraction(1, 2)))) for place in planned]
        pictures = self._pictures(first, second, [place.position for place in planned])
        for place, picture in zip(planned, pictures, strict=True):
            yield picture.at(place.time, place.duration)

    def _pictures(self, first: Frame, second: Frame | None, positions: list[Fraction]) -> Iterator[Frame]:
        yield from (first for position in positions if position == 0)
        inside = [position for position in positions if 0 < position < 1]
        if second is not None:
            if self.any_time:
                yield from (self._call(first, second, float(position)) for position in inside)
            else:
                yield from self._halve(first, second, Fraction(0), Fraction(1), inside)
            yield from (second for position in positions if position == 1)

    def _halve(
        self, low: Frame, high: Frame, left: Fraction, right: Fraction, wanted: list[Fraction]
    ) -> Iterator[Frame]:
        """Frames at ``wanted``, dyadic and strictly between ``left`` and ``right``; holds one frame a level."""
        if not wanted:
            return
        centre = (left + right) / 2
        middle = self._call(low, high, 0.5)
        yield from self._halve(low, middle, left, centre, [position for position in wanted if position < centre])
        yield from (middle for position in wanted if position == centre)
        yield from self._halve(middle, high, centre, right, [position for position in wanted if position > centre])

    def _call(self, low: Frame, high: Frame, t: float) -> Frame:
        self.tally.calls += 1
        result = self.interpolate(low.rgb[None], high.rgb[None], t)
        if result.shape[1:] != low.rgb.shape:
            raise ValueError(f"interpolate returned {tuple(result.shape)}, expected {(1, *low.rgb.shape)}")
        return made(result[0].detach().float().cpu(), low.time, low.duration)

    def _snap(self, position: Fraction) -> Fraction:
        if self.any_time or (position.denominator <= MAX_FACTOR and position.denominator.bit_count() == 1):
            return position
        return Fraction(round(position * 2**self.halvings), 2**self.halvings)


def gaps(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
    """Neighbours: (frame 0, frame 1), (frame 1, frame 2), ..., (the last frame, None)."""
    first: Frame | None = None
    for frame in frames:
        if first is not None:
            yield first, frame
        first = frame
    if first is not None:
        yield first, None


def interpolate_stream(
    frames: Iterable[Frame],
    interpolate: Interpolate,
    *,
    factor: int = 2,
    fps: Fraction | None = None,
    any_time: bool = False,
    halvings: int = 4,
    cut: float = CUT,
    repeat: float = REPEAT,
) -> Iterator[Frame]:
    """The stream at ``factor`` times its rate, or at ``fps`` where given; see ``Factor``, ``Rate`` and ``Engine``.

    A generator: it holds two frames and what one gap needs. Doubling gives exactly 2N - 1 frames, originals at even
    places, and four times is the doubling of the doubled.
    """
    engine = Engine(interpolate, any_time, halvings, cut, repeat)
    schedule: Factor | Rate | None = None if fps is not None else Factor(factor)
    for first, second in gaps(frames):
        if schedule is None:
            assert fps is not None
            schedule = Rate(fps, first.time)
        yield from engine.fill(first, second, schedule.places(first, second))
