"""Temporal focal transformer blocks: windows that attend to themselves, to what surrounds them and to pooled windows.

Tokens are maps (B, T, H, W, C) of any H and W: windows over the edge are completed by tokens that nobody attends to.
Attention is over all T frames at once (E2FGVI, arXiv:2204.02663; Focal Transformer, arXiv:2107.00641).

Published, the surroundings of a window are four rolled copies of the map, cut into windows. Here they are read where
they lie, once: what two copies show counts twice. As there, the map is a torus.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from ..ops.fold import CutPatches, JoinPatches, from_patches, in_turn, to_patches
from ..ops.linear import Linear

Size = tuple[int, int]
# CPUs with products in bfloat16 that torch's fused attention knows nothing of: it converts all to float32.
BFLOAT16_APART = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


class FocalBlock(nn.Module):
    """Attention and fusion feed-forward, each after a norm and with a residual.

    ``forward(x (B, T, H, W, C), size, keep=None)``: ``size`` is that of the feature map whose patches the tokens are.
    The result is of the first ``keep`` frames (all: None); all are looked at.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Size,
        focal_window: Size,
        focal_level: int,
        feed_forward: nn.Module,
        count_twice: bool = True,
    ) -> None:
        super().__init__()
        self.pool = WindowPooling(window, focal_level)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = FocalAttention(channels, heads, window, focal_window, count_twice)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = feed_forward

    def forward(self, x: Tensor, size: Size, keep: int | None = None) -> Tensor:
        normed = self.norm1(x)
        x = x[:, :keep] + self.attn(normed, self.pool(normed), keep)
        return x + self.mlp(self.norm2(x).flatten(0, 1), size).view_as(x)


class WindowPooling(nn.Module):
    """Tokens (B, T, H, W, C) -> one map (B, T, rows, columns, C) for each focal level above the first.

    Level 2 has a token a window, a learned mean of its tokens, the same for every channel; each further level one for
    2 x 2 of the level before.
    """

    def __init__(self, window: Size, focal_level: int) -> None:
        super().__init__()
        if focal_level < 1:
            raise ValueError(f"WindowPooling: focal_level is {focal_level}, expected 1 or more")
        self.windows = [window, *[(2, 2)] * (focal_level - 2)][: focal_level - 1]
        self.levels = nn.ModuleList(nn.Linear(height * width, 1) for height, width in self.windows)

    def forward(self, x: Tensor) -> list[Tensor]:
        pooled = []
        for (height, width), mean in zip(self.windows, self.levels):
            x = functional.pad(x, (0, 0, 0, _missing(x.shape[3], width), 0, _missing(x.shape[2], height)))
            x = rearrange(x, "n t (r i) (c j) d -> n t r c (i j) d", i=height, j=width)
            assert isinstance(mean, nn.Linear)
            x = (mean.weight @ x + mean.bias).squeeze(-2)
            pooled.append(x)
        return pooled


class Keys(NamedTuple):
    """For each window, places in the list of a frame's tokens, and how often each counts; 0: not at all."""

    queries: Tensor  # (windows, height * width)
    places: Tensor  # (windows, K)
    counts: Tensor  # (windows, K)


class FocalAttention(nn.Module):
    """``forward(x (B, T, H, W, C), pooled)`` -> the same shape; ``pooled`` as ``WindowPooling`` makes it.

    Each window of all frames attends to its own tokens, to those up to half a window around it, and on each pooled map
    to ``focal_window`` tokens around its own. ``qkv`` gives queries, keys and values one after the other, each head by
    head. Published, some of the surrounding tokens count twice; without ``count_twice`` all count once. Only the first
    ``keep`` frames ask (all: None), and only theirs come back.
    """

    def __init__(self, channels: int, heads: int, window: Size, focal_window: Size, count_twice: bool = True) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"FocalAttention: {channels} channels, expected a multiple of {heads} heads")
        if min(*window, *focal_window) < 1:
            raise ValueError(f"FocalAttention: windows are {window} and {focal_window}, expected 1 or more a side")
        self.heads, self.window, self.focal_window, self.count_twice = heads, window, focal_window, count_twice
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)

    def forward(self, x: Tensor, pooled: Sequence[Tensor] = (), keep: int | None = None) -> Tensor:
        items, _, height, width, _ = x.shape
        keys = self.keys((height, width), [(p.shape[2], p.shape[3]) for p in pooled], x.device)
        rows = self.rows(x, pooled)

        def attend(index: Tensor) -> Tensor:
            """(windows, B, heads, T * tokens, C / heads), of the windows of this index."""
            some = Keys(*(part[index] for part in keys))
            q, k, v = self.project(x, rows, some)
            q = q[:, :, : None if keep is None else keep * some.queries.shape[1]]
            attended = attention(q, k, v, self.bias(some, k))
            return attended.unflatten(0, (items, -1)).transpose(0, 1)

        attended = in_turn(attend, torch.arange(len(keys.queries), device=x.device), 1)
        down, across = (_ceil(side, own) for side, own in zip((height, width), self.window))
        attended = rearrange(
            attended,
            "(r c) n h (t i j) d -> n t (r i) (c j) (h d)",
            r=down,
            c=across,
            i=self.window[0],
            j=self.window[1],
        )
        return self.proj(attended[:, :, :height, :width])

    def rows(self, x: Tensor, pooled: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Queries, keys and values of all tokens, frame by frame, the pooled ones last: (B * T * tokens, C) each."""
        tokens = torch.cat([level.flatten(2, 3) for level in (x, *pooled)], dim=2)
        return self.qkv(tokens).flatten(0, 2).chunk(3, dim=1)

    def project(self, x: Tensor, rows: tuple[Tensor, ...], keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of windows, (B * windows, heads, T * places, C / heads)."""
        items, frames = x.shape[:2]
        starts = torch.arange(0, len(rows[0]), len(rows[0]) // (items * frames), device=x.device)
        gathered = (
            functional.embedding(starts.view(items, 1, frames, 1) + places[:, None], part)  # (B, w, T, places, C)
            for part, places in zip(rows, (keys.queries, keys.places, keys.places))
        )
        q, k, v = (rearrange(g, "n w t p (h d) -> (n w) h (t p) d", h=self.heads) for g in gathered)
        return q, k, v

    def bias(self, keys: Keys, k: Tensor) -> Tensor:
        """What is added to the logits, (B * windows, 1, 1, T * K): a key that counts twice is twice in the softmax."""
        windows, places = keys.places.shape
        exact = keys.counts.to(torch.promote_types(k.dtype, torch.float32)).log()
        return exact.repeat(k.shape[0] // windows, k.shape[2] // places).to(k.dtype)[:, None, None]

    def keys(self, size: Size, pooled: Sequence[Size], device: torch.device | None = None) -> Keys:
        """Of a map of ``size`` tokens and its pooled maps, one after the other in a frame's list of tokens."""
        (height, width), (own_height, own_width) = size, self.window
        around = self.surroundings(device)
        rows = [torch.arange(_ceil(side, own), device=device) for side, own in zip(size, self.window)]
        reach = [own // 2 for own in self.window]
        queries, _ = _places(size, [rows[i] * own for i, own in enumerate(self.window)], self.window)
        starts = [rows[i] * own - reach[i] for i, own in enumerate(self.window)]
        torus = [len(rows[0]) * own_height, len(rows[1]) * own_width]
        for axis, length in enumerate(torus):
            around = _ring(around, axis, length)
        parts = [_places(size, starts, (around.shape[0], around.shape[1]), torus)]
        parts[0] = (parts[0][0], parts[0][1] * around.flatten())
        before = height * width
        for level, cells in enumerate(pooled):
            places, counts = _neighbours(cells, [place // 2**level for place in rows], self.focal_window)
            parts.append((before + places, counts))
            before += cells[0] * cells[1]
        places, counts = (torch.cat(part, dim=1) for part in zip(*parts))
        return Keys(queries, places, counts)

    def surroundings(self, device: torch.device | None = None) -> Tensor:
        """How often a window sees what lies up to half a window around its own tokens, and these: once."""
        (height, width), (above, left) = self.window, (own // 2 for own in self.window)
        counts = torch.zeros(height + 2 * above, width + 2 * left, device=device)
        for top, start in itertools.product((0, 2 * above), (0, 2 * left)):
            counts[top : top + height, start : start + width] += 1
        counts[above : above + height, left : left + width] = 1
        return counts if self.count_twice else counts.clamp(max=1)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """``scaled_dot_product_attention``; where that has no products of its own in bfloat16, softmax and two of them."""
    if BFLOAT16_APART and q.is_cpu and q.dtype == torch.bfloat16:
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    return functional.scaled_dot_product_attention(q, k, v, bias)


def _places(
    size: Size, starts: Sequence[Tensor], extent: Size, torus: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Of windows that begin at ``starts``, (windows, extent) each: places in a map, and 1 where they are inside it."""
    sides = []
    for axis in range(2):
        place = starts[axis][:, None] + torch.arange(extent[axis], device=starts[axis].device)
        place = place if torus is None else place % torus[axis]
        sides.append((place.clamp(max=size[axis] - 1), place < size[axis]))
    return _grid(size, sides)


def _ring(counts: Tensor, axis: int, length: int) -> Tensor:
    """Counts along an axis that goes round a ring of ``length``: those of one place are added."""
    steps = torch.arange(counts.shape[axis], device=counts.device)
    shape = list(counts.shape)
    shape[axis] = min(shape[axis], length)
    return counts.new_zeros(shape).index_add(axis, steps % length, counts)


def _neighbours(size: Size, centres: Sequence[Tensor], extent: Size) -> tuple[Tensor, Tensor]:
    """As ``_places``, of windows around ``centres``, moved inside the map: what is too far away then counts 0."""
    sides = []
    for axis in range(2):
        wanted, shown = extent[axis], min(extent[axis], size[axis])
        start = centres[axis] - wanted // 2
        steps = torch.arange(shown, device=start.device)
        place = start.clamp(0, size[axis] - shown)[:, None] + steps
        sides.append((place, (place >= start[:, None]) & (place < start[:, None] + wanted)))
    return _grid(size, sides)


def _grid(size: Size, sides: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows and columns of windows, (windows, extent) of each, multiplied out: (windows, extent)."""
    (rows, rows_inside), (columns, columns_inside) = sides
    places = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    inside = rows_inside[:, None, :, None] & columns_inside[None, :, None, :]
    return places.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1).float()


def _ceil(size: int, part: int) -> int:
    return (size + part - 1) // part


def _missing(size: int, part: int) -> int:
    """How much there is to the next multiple; torch.compile has no Python remainder of a negative size."""
    return (part - size % part) % part


class FusionFeedForward(nn.Module):
    """A feed-forward layer that mixes neighbouring patches by averaging where they overlap (arXiv:2109.02974).

    ``forward(x (N, rows, columns, C), size)``: tokens of patches of a map of ``size``. ``hidden`` is the number of
    channels of the map between the two Linears, whose layout is that of ``SoftComposition`` and ``SoftSplit``.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(channels, hidden * kernel_size**2)
        self.conv2 = nn.Linear(hidden * kernel_size**2, channels)
        self.kernel_size = kernel_size
        self.join, self.cut = JoinPatches(stride, padding), CutPatches(kernel_size, stride, padding)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        widen, narrow = to_patches(self.conv1, self.kernel_size), from_patches(self.conv2, self.kernel_size)

        def mixed(x: Tensor) -> Tensor:
            patches = widen(x)
            once = torch.ones(1, *patches.shape[1:5], 1, dtype=patches.dtype, device=patches.device)
            fused = self.join(patches, size) / self.join(once, size)  # by how many patches overlap
            return narrow(self.cut(functional.gelu(fused)))  # on the map: each number once

        return in_turn(mixed, x)
