"""Frames that VapourSynth asks for are those of ``interpolate_stream``, and only those asked for are made.

With VapourSynth where it is installed (its wheels need Python 3.12), else with a stand-in for what is called of it.
"""

import importlib.util
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from vfikit import checkpoints
from vfikit.data.synthetic import Scenes
from vfikit.models import AdaCoFNet
from vfikit.video import interpolate_stream, made

from ..models.toys import toy
from . import fake_vapoursynth

SIZE = 32


class Here(NamedTuple):
    vs: Any
    interpolate: Any


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("vapoursynth") is None:
            patch.setitem(sys.modules, "vapoursynth", fake_vapoursynth)
        import vapoursynth as vs

        from integrations.vapoursynth import interpolate

        yield Here(vs, interpolate)
        del sys.modules["integrations.vapoursynth"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    checkpoints.save(toy(), path)
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times that the network is asked for."""
    asked: list[float] = []
    forward = AdaCoFNet.interpolate

    def interpolate(net: AdaCoFNet, frame0: Tensor, frame1: Tensor, t: float = 0.5) -> Tensor:
        asked.append(t)
        return forward(net, frame0, frame1, t)

    monkeypatch.setattr(AdaCoFNet, "interpolate", interpolate)
    return asked


def moving(count: int) -> list[Tensor]:
    return list(Scenes(1, size=SIZE).scene(0).frames([k / 2 for k in range(count)]).clamp(0, 1))


def clip_of(vs: Any, pictures: list[Tensor]) -> Any:
    size = {"width": pictures[0].shape[2], "height": pictures[0].shape[1]}
    rate = {"fpsnum": 24000, "fpsden": 1001}
    blank = vs.core.std.BlankClip(format=vs.RGBS, length=len(pictures), **size, **rate)

    def draw(n: int, f: Any) -> Any:
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), pictures[n][plane].numpy())
        frame.props["number"] = n
        return frame

    return blank.std.ModifyFrame(blank, draw)


def shown(clip: Any, n: int) -> Tensor:
    frame = clip.get_frame(n)
    return torch.from_numpy(np.stack([np.asarray(frame[plane]) for plane in range(3)]))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_frames_are_those_of_a_stream(here: Here, weights: Path, factor: int) -> None:
    pictures = moving(3)
    clip = here.interpolate(clip_of(here.vs, pictures), factor=factor, checkpoint=weights, device="cpu")
    assert (clip.num_frames, clip.fps) == (3 * factor, Fraction(24000 * factor, 1001))
    network = checkpoints.load(weights)
    frames = [made(picture, Fraction(k), Fraction(1)) for k, picture in enumerate(pictures)]
    expected = [frame.rgb for frame in interpolate_stream(frames, network.interpolate, factor=factor)]
    expected += [pictures[-1]] * (factor - 1)
    for n, picture in enumerate(expected):
        assert torch.equal(shown(clip, n), picture), n
    assert not torch.equal(expected[1], expected[0])
    props = clip.get_frame(factor + 1).props
    assert Fraction(props["_DurationNum"], props["_DurationDen"]) == 1 / clip.fps
    assert props["number"] == 1


def test_the_weights_that_ship(here: Here) -> None:
    pictures = moving(2)
    network = checkpoints.load(checkpoints.shipped("adacof", "small"))
    clip = here.interpolate(clip_of(here.vs, pictures), device="cpu")
    assert torch.equal(shown(clip, 1), network.interpolate(*(picture[None] for picture in pictures))[0])


def test_one_frame_is_repeated(here: Here, weights: Path, calls: list[float]) -> None:
    (picture,) = moving(1)
    clip = here.interpolate(clip_of(here.vs, [picture]), factor=3, checkpoint=weights, device="cpu")
    assert clip.num_frames == 3
    assert all(torch.equal(shown(clip, n), picture) for n in range(3))
    assert calls == []


def test_only_what_is_asked_for_is_made(here: Here, weights: Path, calls: list[float]) -> None:
    clip = here.interpolate(clip_of(here.vs, moving(4)), factor=4, checkpoint=weights, device="cpu")
    assert calls == []
    shown(clip, 4)
    assert calls == []  # an original
    shown(clip, 6)
    assert calls == [0.5]  # half-way between frames 1 and 2
    shown(clip, 15)
    assert calls == [0.5]  # after the last


def test_cuts_and_repeats_are_not_shown_to_the_network(here: Here, weights: Path, calls: list[float]) -> None:
    first = moving(1)[0]
    other = Scenes(9, size=SIZE).scene(5).frames([0.0])[0].clamp(0, 1)
    asked = {"checkpoint": weights, "device": "cpu"}
    clip = here.interpolate(clip_of(here.vs, [first, first, 1 - other]), factor=4, cut=0.1, **asked)
    for n in range(1, 8):
        assert torch.equal(shown(clip, n), first), n
    assert calls == []
    blended = here.interpolate(clip_of(here.vs, [first, 1 - other]), cut=float("inf"), **asked)
    assert not torch.equal(shown(blended, 1), first)
    assert calls == [0.5]


def test_values_beyond_the_range(here: Here, weights: Path) -> None:
    pictures = [3 * picture - 1 for picture in moving(2)]  # -1 to 2
    clip = here.interpolate(clip_of(here.vs, pictures), checkpoint=weights, device="cpu", cut=float("inf"))
    assert torch.equal(shown(clip, 0), pictures[0])
    assert 0 <= shown(clip, 1).min() < shown(clip, 1).max() <= 1


def test_wrong_input(here: Here) -> None:
    clip = clip_of(here.vs, moving(2))
    planes = here.vs.core.std.BlankClip(format=here.vs.YUV444PS, width=SIZE, height=SIZE, length=2, fpsnum=25, fpsden=1)
    with pytest.raises(ValueError, match="clip is YUV444PS of 32x32, expected RGBS"):
        here.interpolate(planes)
    with pytest.raises(ValueError, match="factor is 33, expected 2 to 32"):
        here.interpolate(clip, factor=33)
    with pytest.raises(ValueError, match="halvings is 0, expected 1 to 16"):
        here.interpolate(clip, factor=3, halvings=0)
    with pytest.raises(ValueError, match="lvdm does not interpolate"):
        here.interpolate(clip, model="lvdm", device="cpu")
    with pytest.raises(ValueError, match="no weights ship with vfikit"):
        here.interpolate(clip, model="adacof", preset="published", device="cpu")
