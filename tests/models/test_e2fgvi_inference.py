"""Sliding windows: what is filled, what stays, what is remembered, and the published program's arithmetic."""

import sys
import weakref
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor

from vfikit.inference import WHOLE, dilate, surroundings
from vfikit.models.e2fgvi import Settings, decoder, stream, windows
from vfikit.models.e2fgvi.published import published_padding
from vfikit.models.e2fgvi.shelf import Shelf

from .test_e2fgvi import toy

SHORT = {"stride": 2, "step": 3, "nearest": 2}


def clip(length: int, height: int = 20, width: int = 28, count: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    masks = torch.zeros(count, length, 1, height, width)
    masks[..., 6:11, 8:15] = 1
    return torch.rand(count, length, 3, height, width, generator=generator), masks


@pytest.mark.parametrize("padding", ["minimal", "published"])
def test_known_pixels_come_back_bit_by_bit(padding: str) -> None:
    frames, masks = clip(5, 30, 54, count=2)
    masks[:, 2] = 0  # a frame without a hole
    filled = toy().inpaint(frames, masks, padding=padding, dilation=1, **SHORT)
    holes = torch.stack([dilate(masks[:, k] > 0, 1) for k in range(5)], dim=1).expand_as(frames)
    assert torch.equal(filled[~holes], frames[~holes])
    assert (filled[holes] != frames[holes]).float().mean() > 0.9
    assert filled[holes].min() >= 0
    assert filled[holes].max() <= 1
    assert torch.equal(filled[:, 2], frames[:, 2])


def test_one_window_is_one_pass_of_the_network() -> None:
    net, (frames, masks) = toy(), clip(3, 16, 24)
    filled = net.inpaint(frames, masks, dilation=0, stride=3)
    with torch.no_grad():
        made = (net((2 * frames - 1) * (1 - masks)).frames + 1) / 2
    assert torch.allclose(filled, torch.where(masks > 0, made, frames), atol=1e-5)


def test_one_mask_serves_the_clip() -> None:
    frames, masks = clip(4)
    net = toy()
    assert torch.equal(net.inpaint(frames, masks[:, :1], **SHORT), net.inpaint(frames, masks, **SHORT))


def test_each_frame_is_encoded_once_and_only_holes_are_decoded() -> None:
    frames, masks = clip(9)
    masks[:, 4:] = 0
    net = toy()
    with (
        mock.patch.object(net, "encode", wraps=net.encode) as encode,
        mock.patch.object(net, "decode", wraps=net.decode) as decode,
        mock.patch.object(net, "flows", wraps=net.flows) as flows,
    ):
        net.inpaint(frames, masks, stride=2, step=4, nearest=1)
    windows_with_holes = [range(3), range(5), range(2, 7)]
    seen = {k for window in windows_with_holes for k in window} | {4, 8}
    assert sum(call.args[0].shape[1] for call in encode.call_args_list) == len(seen)
    assert sum(call.args[0].shape[1] for call in decode.call_args_list) == sum(
        k < 4 for window in windows_with_holes for k in window
    )
    assert sum(call.args[0].shape[1] - 1 for call in flows.call_args_list) == 6  # pairs of frames 0 to 6


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("rows", "columns"), [((0, 20), (0, 28)), ((7, 8), (13, 14)), ((0, 3), (24, 28)), ((10, 17), (5, 6))]
)
def test_a_part_is_decoded_as_within_the_whole(corners: bool, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    net = toy(corners=corners)
    features = torch.randn(1, 2, net.config.features, 5, 7)
    with torch.no_grad():
        whole, part = net.decode(features), net.decode(features, (slice(*rows), slice(*columns)))
    torch.testing.assert_close(part, whole[..., slice(*rows), slice(*columns)])


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 18)], ids=str)
def test_bands_of_rows_are_decoded_as_the_whole(corners: bool, rows: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    net = toy(corners=corners)
    features = torch.randn(1, 2, net.config.features, 5, 7)
    with torch.no_grad():
        whole = net.decoder(features[0]).tanh()[None]
        monkeypatch.setattr(decoder, "BAND", 1)
        monkeypatch.setattr(decoder, "LEAST_ROWS", 4)
        with mock.patch.object(decoder, "decode_within", wraps=decoder.decode_within) as within:
            banded = net.decode(features, (rows, slice(None)))
    assert within.call_count == len(range(20)[rows][::4])
    torch.testing.assert_close(banded, whole[..., rows, :])


def test_no_more_is_decoded_than_holds_the_holes() -> None:
    frames, masks = clip(3)
    masks[:, 1, :, 12:14, 3] = 1
    net = toy()
    with mock.patch.object(net, "decode", wraps=net.decode) as decode:
        net.inpaint(frames, masks, dilation=1)
    assert decode.call_args.args[1] == (slice(5, 15), slice(2, 16))


def test_a_clip_without_holes_is_not_touched() -> None:
    frames, masks = clip(3)
    net = toy()
    with mock.patch.object(net, "encode", side_effect=AssertionError):
        assert torch.equal(net.inpaint(frames, 0 * masks), frames)


@pytest.mark.parametrize("rule", [{"nearest": 2}, {"nearest": None}, {"num_ref": 4}])
def test_going_on_gives_the_same(rule: dict[str, int | None]) -> None:
    frames, masks = clip(11, 12, 16)
    net, settings = toy(), Settings(stride=2, step=3, **rule)  # type: ignore[arg-type]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(frames.unbind(1), masks.unbind(1))

    whole = list(stream(net, pairs(), settings))
    rest = list(stream(net, pairs(), settings, WHOLE, 6))
    assert len(whole) == 11
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole[6:], rest, strict=True))
    with pytest.raises(ValueError, match="start is 3, expected a multiple of the stride 2"):
        next(stream(net, pairs(), settings, WHOLE, 3))


@pytest.mark.parametrize("start", [0, 40])
def test_memory_does_not_grow_with_the_clip(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a window reaches bounds what is read ahead; what no window needs is forgotten, or not kept at all."""
    net, settings = toy(), Settings(stride=2, step=3, nearest=2)
    shelves: list[Shelf] = []
    held: list[int] = []
    blocks: list[int] = []
    read: list[weakref.ref[Tensor]] = []

    class Watched(Shelf):
        def __init__(self) -> None:
            super().__init__()
            shelves.append(self)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., 3:5, 3:5] = 1
        for _ in range(100):
            held.append(max(len(shelf.places) for shelf in shelves))
            blocks.append(sum(len(shelf.blocks) for shelf in shelves))
            assert sum(frame() is not None for frame in read) <= 1, "a copy is kept, in its place"
            frame = torch.rand(1, 3, 8, 8)
            read.append(weakref.ref(frame))
            yield frame, mask

    monkeypatch.setattr(sys.modules[stream.__module__], "Shelf", Watched)
    assert len(list(map(type, stream(net, pairs(), settings, WHOLE, start)))) == 100 - start
    assert len(shelves) == 5
    assert max(held) <= 2 * (2 + 3 * 2) + 2 * 2 + 3
    assert max(held[: start + 30]) >= max(held) - 1
    assert blocks[-1] == blocks[start + 30] <= 12


def test_frames_given_back_stay_as_they_are() -> None:
    """Their places are used again."""
    frames, masks = clip(40, 8, 8)
    filled = list(stream(toy(), zip(frames.unbind(1), (0 * masks).unbind(1)), Settings(stride=2, step=3, nearest=1)))
    assert torch.equal(torch.stack(filled, dim=1), frames)


def test_a_shelf_uses_its_places_again() -> None:
    shelf = Shelf()

    def go_on(index: int) -> None:
        shelf[index] = torch.full((2, 3), index)
        shelf.keep(lambda k: k % 10 == 0 or k > index - 4)

    for index in range(100):
        go_on(index)
    assert sorted(shelf.places) == [*range(0, 91, 10), 96, 97, 98, 99]
    assert all(shelf[k].unique().tolist() == [k] for k in shelf.places)
    assert len(shelf.blocks) == 2
    shelf[99] = torch.zeros(2, 3, dtype=torch.long)
    assert not shelf[99].any()
    assert 1 not in shelf
    with pytest.raises(KeyError):
        shelf[1]


def test_cropped_to_the_surroundings() -> None:
    frames, masks = clip(3, 40, 40)
    net = toy()
    with mock.patch.object(net, "encode", wraps=net.encode) as encode:
        filled = net.inpaint(frames, masks, crop=3, dilation=1)
    assert encode.call_args_list[0].args[0].shape[-2:] == (16, 16)  # 5 + 2 * 4 by 7 + 2 * 4, in multiples of 4
    hole = dilate(masks[:, 0] > 0, 1)[:, None].expand_as(frames)
    assert torch.equal(filled[~hole], frames[~hole])
    box = (..., slice(2, 15), slice(4, 19))
    assert torch.equal(filled[box], net.inpaint(frames[box], masks[box], dilation=1))


def test_surroundings_and_dilation() -> None:
    holes = torch.zeros(2, 1, 9, 12, dtype=torch.bool)
    assert surroundings(holes, 2) == WHOLE
    holes[0, 0, 4, 1], holes[1, 0, 5, 9] = True, True
    assert surroundings(holes, 2) == (slice(2, 8), slice(0, 12))
    grown = dilate(holes, 2)
    y, x = torch.meshgrid(torch.arange(9), torch.arange(12), indexing="ij")
    assert torch.equal(grown[0, 0], (y - 4).abs() + (x - 1).abs() <= 2)


def test_windows_of_any_length() -> None:
    for length in (1, 5, 6, 23):
        for window in windows(length):
            assert window.centre in window.local
            assert not set(window.references) & set(window.local)
            assert max((*window.local, *window.references)) < length
    near = Settings(nearest=2).window(50, 100)
    assert (near.references, Settings(nearest=2).reach) == ([40, 60], 25)
    for settings in (Settings(), Settings(num_ref=4), Settings(stride=3, step=4, nearest=1)):
        for centre in range(0, 100, settings.stride):
            window = settings.window(centre, 100)
            used = (*window.local, *window.references)
            assert max(used) <= centre + (settings.reach or 100)
            assert all(settings.keeps(k, before) for k in used for before in range(0, centre + 1, settings.stride))


def test_published_padding_mirrors_the_edge() -> None:
    x = torch.arange(30.0)[None, None, :, None].expand(1, 3, 30, 60)
    padded = published_padding(x)
    assert padded.shape == (1, 3, 60, 108)
    assert padded[0, 0, 30:, 0].tolist() == list(range(29, -1, -1))
    with pytest.raises(ValueError, match="a side of 29 pixels cannot be mirrored"):
        published_padding(x[:, :, 1:])


def test_frames_of_two_sizes() -> None:
    pairs = ((torch.rand(1, 3, 8, size), torch.zeros(1, 1, 8, size)) for size in (8, 8, 12))
    expected = r"stream: frame 2 is \(1, 3, 8, 12\), expected \(1, 3, 8, 8\) like the first"
    with pytest.raises(ValueError, match=expected):
        list(stream(toy(), pairs))


def test_wrong_input() -> None:
    frames, masks = clip(3)
    net = toy()
    for wrong, message in (
        ({"masks": masks[:, :2]}, r"inpaint: masks are \(1, 2, 1, 20, 28\), expected \(1, 3 or 1, 1, 20, 28\)"),
        ({"frames": frames[0]}, "inpaint: frames are"),
        ({"stride": 0}, "Settings: stride is 0, expected 1 or more"),
        ({"nearest": -1}, "Settings: nearest is -1"),
        ({"padding": "none"}, "Settings: padding is 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            net.inpaint(**({"frames": frames, "masks": masks} | wrong))
