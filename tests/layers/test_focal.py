"""Temporal focal attention against what it says: every window, level and size, keys counted by hand."""

import itertools

import pytest
import torch
from torch import Tensor

from vfikit.layers import FocalAttention, FocalBlock, FusionFeedForward, WindowPooling, focal

WINDOWS = [(5, 9), (4, 6), (3, 2), (1, 1), (1, 4)]


def seen_by_hand(layer: FocalAttention, size: tuple[int, int], row: int, column: int) -> dict[tuple[int, int], int]:
    """How often the window of a token sees each token of its frame: its own, and four rolled copies' other ones."""
    (height, width), rows = layer.window, -(-size[0] // layer.window[0]) * layer.window[0]
    columns = -(-size[1] // width) * width
    top, left = row // height * height, column // width * width
    own = set(itertools.product(range(top, top + height), range(left, left + width)))
    counts = dict.fromkeys(own, 1)
    for down, right in itertools.product((-(height // 2), height // 2), (-(width // 2), width // 2)):
        for y, x in own:
            if not (top <= y + down < top + height and left <= x + right < left + width):
                place = ((y + down) % rows, (x + right) % columns)
                counts[place] = counts.get(place, 0) + 1
    return {place: n for place, n in counts.items() if place[0] < size[0] and place[1] < size[1]}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(7, 11), (10, 18), (1, 1)])
def test_keys(window: tuple[int, int], size: tuple[int, int]) -> None:
    layer = FocalAttention(4, 1, window, window)
    keys = layer.keys(size, [])
    windows = -(-size[0] // window[0]), -(-size[1] // window[1])
    for index in {0, len(keys.places) // 2, len(keys.places) - 1}:
        row, column = index // windows[1] * window[0], index % windows[1] * window[1]
        found: dict[tuple[int, int], int] = {}
        for place, count in zip(keys.places[index].tolist(), keys.counts[index].tolist()):
            if count:
                where = (place // size[1], place % size[1])
                found[where] = found.get(where, 0) + int(count)
        assert found == seen_by_hand(layer, size, row, column)


@pytest.mark.parametrize("size", [(5, 9), (3, 30), (14, 6)])
def test_no_place_of_a_small_map_is_read_twice(size: tuple[int, int]) -> None:
    """A window that comes round to itself counts the places that it sees again."""
    keys = FocalAttention(4, 1, (5, 9), (5, 9)).keys(size, [])
    for places, counts in zip(keys.places, keys.counts):
        seen = places[counts > 0].tolist()
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize("extent", [(5, 9), (4, 6), (1, 1)])
def test_pooled_keys(extent: tuple[int, int]) -> None:
    layer = FocalAttention(4, 1, (2, 2), extent)
    fine = layer.keys((8, 20), []).places.shape[1]
    keys = layer.keys((8, 20), [(4, 10), (2, 5)])
    for index, (level, (rows, columns)) in itertools.product((0, 17, 39), enumerate([(4, 10), (2, 5)])):
        before = 160 + 40 * level
        centre = index // 10 // 2**level, index % 10 // 2**level
        wanted = {
            y * columns + x
            for y in range(centre[0] - extent[0] // 2, centre[0] - extent[0] // 2 + extent[0])
            for x in range(centre[1] - extent[1] // 2, centre[1] - extent[1] // 2 + extent[1])
            if 0 <= y < rows and 0 <= x < columns
        }
        pairs = zip(keys.places[index, fine:].tolist(), keys.counts[index, fine:].tolist())
        inside = range(before, before + rows * columns)
        assert {place - before for place, count in pairs if count and place in inside} == wanted


def attention(layer: FocalAttention, x: Tensor, pooled: list[Tensor], row: int, column: int) -> Tensor:
    """What the token of frame 0 at (row, column) becomes, from the counts alone."""
    window = row // layer.window[0] * -(-x.shape[3] // layer.window[1]) + column // layer.window[1]
    keys = layer.keys((x.shape[2], x.shape[3]), [(p.shape[2], p.shape[3]) for p in pooled])
    tokens = torch.cat([level.flatten(2, 3) for level in (x, *pooled)], dim=2)[0]
    q, k, v = layer.qkv(tokens).chunk(3, dim=-1)
    own, width = q[0, row * x.shape[3] + column], x.shape[4] // layer.heads
    parts = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        logits = (k[:, keys.places[window], part] @ own[part]) * width**-0.5
        weights = keys.counts[window] * logits.exp()
        parts.append(torch.einsum("tk,tkd->d", weights / weights.sum(), v[:, keys.places[window], part]))
    return layer.proj(torch.cat(parts))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_attention_by_hand(window: tuple[int, int], level: int) -> None:
    torch.manual_seed(0)
    layer, pool = FocalAttention(8, 2, window, (3, 4)).double(), WindowPooling(window, level).double()
    x = torch.randn(1, 2, 7, 11, 8, dtype=torch.float64)
    pooled = pool(x)
    assert len(pooled) == level - 1
    out = layer(x, pooled)
    for row, column in ((0, 0), (6, 10), (3, 5)):
        assert torch.allclose(out[0, 0, row, column], attention(layer, x, pooled, row, column), atol=1e-10)
    with torch.no_grad():  # one window after the other
        assert torch.allclose(layer(x, pooled), out, atol=1e-12)


@pytest.mark.parametrize("apart", [False, True])
def test_attention_in_bfloat16(monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    """Some keys count twice, some not at all, as in float64, whichever way the CPU takes."""
    monkeypatch.setattr(focal, "BFLOAT16_APART", apart)
    torch.manual_seed(0)
    q, k, v = (3 * torch.randn(2, 2, tokens, 8, dtype=torch.float64) for tokens in (5, 7, 7))
    bias = torch.tensor([0, 0, 1, 2, 1, 0, 1], dtype=torch.float64).log()[None, None, None]
    exact, out = (focal.attention(*(t.to(dtype) for t in (q, k, v, bias))) for dtype in (q.dtype, torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert (out - exact).abs().mean() < 0.01 * exact.abs().mean()


def test_tokens_past_the_edge_are_not_seen() -> None:
    """Whatever completes the windows of an odd map, a token far from it changes nothing."""
    torch.manual_seed(0)
    layer = FocalAttention(8, 2, (3, 3), (3, 3), count_twice=False).double()
    assert layer.surroundings().unique().tolist() == [1.0]
    x = torch.randn(1, 1, 9, 9, 8, dtype=torch.float64)
    other = x.clone()
    other[:, :, 4, 4] += 1
    changed = (layer(other) - layer(x)).abs().amax((0, 1, 4)) > 0
    assert changed[3:6, 3:6].all()
    assert changed[:3].logical_not().any()


def test_block_of_any_size_and_gradients() -> None:
    torch.manual_seed(0)
    block = FocalBlock(8, 2, (2, 3), (3, 3), 3, FusionFeedForward(8, 2, 7, 3, 3)).double()
    x = torch.randn(2, 2, 4, 5, 8, dtype=torch.float64, requires_grad=True)
    out = block(x, (12, 14))
    assert out.shape == x.shape
    gradients = torch.autograd.grad(out.square().sum(), (x, *block.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    pooled = WindowPooling((2, 3), 2).double()(x)[0]
    assert pooled.shape == (2, 2, 2, 2, 8)


def test_only_kept_frames_come_back() -> None:
    torch.manual_seed(0)
    block = FocalBlock(8, 2, (2, 3), (3, 3), 2, FusionFeedForward(8, 2, 7, 3, 3)).double()
    x = torch.randn(2, 3, 4, 5, 8, dtype=torch.float64)
    assert torch.allclose(block(x, (12, 14), 1), block(x, (12, 14))[:, :1], atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(block(x, (12, 14), 2), block(x, (12, 14))[:, :2], atol=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="FocalAttention: 10 channels, expected a multiple of 4 heads"):
        FocalAttention(10, 4, (5, 9), (5, 9))
    with pytest.raises(ValueError, match="expected 1 or more a side"):
        FocalAttention(8, 4, (0, 9), (5, 9))
    with pytest.raises(ValueError, match="focal_level is 0"):
        WindowPooling((5, 9), 0)
