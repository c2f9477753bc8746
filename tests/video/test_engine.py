from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vfikit.video import Engine, Frame, interpolate_stream, made
from vfikit.video.engine import gaps

from .clips import blend, other_scene, picture, stream


class Middle:
    """Knows only the middle, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
        if t != 0.5:
            raise ValueError(f"t is {t}, expected 0.5")
        self.calls += 1
        return (frame0 + frame1) / 2


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8, 16, 32])
def test_factor_gives_every_frame_once(factor: int) -> None:
    source, middle = stream(4), Middle()
    result = list(interpolate_stream(source, middle, factor=factor))
    assert len(result) == factor * 3 + 1
    assert [frame.time for frame in result] == [Fraction(k, 25 * factor) for k in range(len(result))]
    assert all(first.time + first.duration == second.time for first, second in pairwise(result))
    assert result[-1].time + result[-1].duration == source[-1].time + source[-1].duration
    for made_frame, original in zip(result[::factor], source, strict=True):
        assert made_frame.rgb is original.rgb
    if factor in (2, 4, 8, 16, 32):
        assert middle.calls == (factor - 1) * 3


def test_four_times_is_the_doubling_of_the_doubled() -> None:
    twice = list(interpolate_stream(interpolate_stream(stream(4), Middle()), Middle()))
    four = list(interpolate_stream(stream(4), Middle(), factor=4))
    assert [frame.time for frame in twice] == [frame.time for frame in four]
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(twice, four, strict=True))


@pytest.mark.parametrize(("fps", "count"), [(Fraction(60), 10), (Fraction(30000, 1001), 5), (Fraction(10), 2)])
def test_rate_is_exact_and_keeps_the_duration(fps: Fraction, count: int) -> None:
    result = list(interpolate_stream(stream(4), blend, fps=fps, any_time=True))
    assert [frame.time for frame in result] == [k / fps for k in range(count)]
    assert abs(result[-1].time + result[-1].duration - Fraction(4, 25)) < 1 / fps


def test_varying_rate_keeps_times_and_places_motion() -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 10), Fraction(11, 100)]
    source = [made(picture(k), time, Fraction(1, 50)) for k, time in enumerate(times)]
    doubled = list(interpolate_stream(source, Middle()))
    assert [frame.time for frame in doubled[::2]] == times
    assert doubled[3].time == (times[1] + times[2]) / 2
    even = list(interpolate_stream(source, blend, fps=Fraction(60), any_time=True))
    gap = next(frame for frame in even if frame.time == Fraction(3, 60))  # a quarter of the way from 1/30 to 1/10
    torch.testing.assert_close(gap.rgb, blend(picture(1), picture(2), 0.25))


@pytest.mark.parametrize("halvings", [1, 3, 4])
def test_bisection_is_within_the_stated_error(halvings: int) -> None:
    ends = [made(torch.full((3, 8, 8), value), Fraction(k), Fraction(1)) for k, value in enumerate((0.4, 0.6))]
    result = list(interpolate_stream(ends, Middle(), factor=7, halvings=halvings, cut=float("inf")))
    places = [(float(frame.rgb.mean()) - 0.4) / 0.2 for frame in result]
    assert all(abs(place - k / 7) <= 2 ** -(halvings + 1) + 1e-5 for k, place in enumerate(places))
    assert places == sorted(places)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_cut_is_not_blended_over(factor: int) -> None:
    shots = [picture(0), picture(1), other_scene(), other_scene() * 0.9]
    source = [made(rgb, Fraction(k, 25), Fraction(1, 25)) for k, rgb in enumerate(shots)]
    middle = Middle()
    result = list(interpolate_stream(source, middle, factor=factor))
    gap = result[factor + 1 : 2 * factor]
    assert all(frame.rgb is shots[1] for frame in gap[: factor // 2])
    assert all(frame.rgb is shots[2] for frame in gap[factor // 2 :])
    assert len(result) == 3 * factor + 1
    assert middle.calls == 2 * (factor - 1)


def test_a_repeated_frame_calls_no_network() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = picture(1) + torch.randn(3, 32, 48, generator=generator) / 1000  # as a codec leaves it
    shots = [picture(0), picture(1), noisy, picture(2)]
    source = [made(rgb, Fraction(k, 25), Fraction(1, 25)) for k, rgb in enumerate(shots)]
    engine = Engine(Middle())
    result = [engine_frame for pair in gaps(source) for engine_frame in _doubled(engine, *pair)]
    assert len(result) == 7
    assert engine.tally.calls == 2
    assert engine.tally.repeats == 1
    assert result[3].rgb is shots[1]


def _doubled(engine: Engine, first: Frame, second: Frame | None) -> Iterator[Frame]:
    from vfikit.video import Factor

    return engine.fill(first, second, Factor(2).places(first, second))


def test_slow_motion_of_a_small_thing_is_no_repeat() -> None:
    source = [made(picture(k / 4), Fraction(k, 25), Fraction(1, 25)) for k in range(3)]
    middle = Middle()
    list(interpolate_stream(source, middle))
    assert middle.calls == 2


def test_memory_is_constant_and_the_stream_is_read_as_it_goes() -> None:
    taken = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken
        while True:
            yield made(picture(taken % 7), Fraction(taken), Fraction(1))
            taken += 1

    result = interpolate_stream(endless(), Middle(), factor=4)
    for _ in range(40):
        next(result)
    assert taken <= 12


def test_any_interpolate_and_its_errors() -> None:
    assert len(list(interpolate_stream(stream(1), Middle()))) == 1
    assert list(interpolate_stream([], Middle())) == []
    with pytest.raises(ValueError, match="factor is 33, expected 2 to 32"):
        next(interpolate_stream(stream(2), Middle(), factor=33))
    with pytest.raises(ValueError, match="fps is 0"):
        next(interpolate_stream(stream(2), Middle(), fps=Fraction(0)))
    with pytest.raises(ValueError, match=r"interpolate returned \(1, 3, 16, 48\), expected \(1, 3, 32, 48\)"):
        list(interpolate_stream(stream(2), lambda a, b, t: a[:, :, ::2]))
    mixed = [stream(1)[0], made(picture(1, 50, 32), Fraction(1), Fraction(1))]
    with pytest.raises(ValueError, match="expected one size"):
        list(interpolate_stream(mixed, Middle()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"halvings": -1}, "halvings is -1, expected 0 to 16"),
        ({"halvings": 1000}, "halvings is 1000, expected 0 to 16"),
        ({"cut": -0.5}, "cut is -0.5, expected 0 or more"),
        ({"cut": float("nan")}, "cut is nan, expected 0 or more"),
        ({"repeat": -1.0}, "repeat is -1.0, expected 0 or more"),
    ],
)
def test_absurd_settings(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(blend, **values)
