"""Multi-axis attention as in MaxViT (arXiv:2204.01697): dense inside windows, then dilated over the whole map.

All layers take feature maps (N, C, H, W) whose sides are multiples of the window. In ``block`` attention each w x w
patch attends inside itself; in ``grid`` attention the w x w pixels that lie H / w and W / w apart attend to each other.
"""

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from ..ops.linear import Linear
from .mbconv import MBConv


class WindowAttention(nn.Module):
    """Multi-head attention over windows of w x w tokens, with a learned bias for every relative position.

    ``forward(x (B, w * w, C), context=x)``: queries from ``x``, keys and values from ``context``; heads are
    ``head_width`` wide. The bias of head h for a query at (y, x) and a key at (y', x') in the window stands in
    ``rel_pos_bias.weight[(y - y' + w - 1) * (2 w - 1) + x - x' + w - 1, h]``.
    """

    def __init__(self, channels: int, head_width: int, window: int) -> None:
        super().__init__()
        if channels % head_width:
            raise ValueError(f"WindowAttention: {channels} channels, expected a multiple of head_width {head_width}")
        self.head_width, self.window = head_width, window
        self.to_q = Linear(channels, channels, bias=False)
        self.to_k = Linear(channels, channels, bias=False)
        self.to_v = Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(Linear(channels, channels, bias=False))
        self.rel_pos_bias = nn.Embedding((2 * window - 1) ** 2, channels // head_width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The bias starts small; an embedding's own start would drown the products of queries and keys."""
        nn.init.normal_(self.rel_pos_bias.weight, std=0.02)

    def start_local(self) -> None:
        """Starts as about the identity in space: each query sees mostly the key of its own place, at full strength."""
        with torch.no_grad():
            self.rel_pos_bias.weight[len(self.rel_pos_bias.weight) // 2] += 4
        for layer in (self.to_v, self.to_out[0]):
            nn.init.xavier_normal_(layer.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            rearrange(part, "b n (h d) -> b h n d", d=self.head_width)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias()[None].to(q.dtype))
        return self.to_out(rearrange(attended, "b h n d -> b n (h d)"))

    def bias(self) -> Tensor:
        """(heads, w * w, w * w), for queries by keys, from the table; slices of it, so that no index is kept."""
        w = self.window
        table = self.rel_pos_bias.weight.view(2 * w - 1, 2 * w - 1, -1).flip(0, 1)
        windows = table.unfold(0, w, 1).unfold(1, w, 1).flip(0, 1)  # query y, query x, head, key y, key x
        return rearrange(windows, "qy qx h ky kx -> h (qy qx) (ky kx)")


class FeedForward(nn.Module):
    """Linear to ``expansion`` times the channels, GELU, and back: (.., C) -> (.., C)."""

    def __init__(self, channels: int, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            Linear(channels, expansion * channels),
            nn.GELU(),
            nn.Dropout(dropout),
            Linear(expansion * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNormAttention(nn.Module):
    """x + attention(norm(x), norm(context)), on maps (N, H, W, C), by blocks or by the grid.

    One norm serves both: context and x are of the same width.
    """

    def __init__(self, channels: int, head_width: int, window: int, grid: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fn = WindowAttention(channels, head_width, window)
        self.grid = grid

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        height, width = x.shape[1:3]
        queries = to_windows(self.norm(x), self.fn.window, self.grid)
        keys = None if context is None else to_windows(self.norm(context), self.fn.window, self.grid)
        return x + from_windows(self.fn(queries, keys), height, width, self.fn.window, self.grid)


class PreNormFeedForward(nn.Module):
    """x + feed_forward(norm(x)), on (.., C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fn = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class MaxAttention(nn.Module):
    """MaxViT self-attention without its MBConv: block attention, feed-forward, grid attention, feed-forward.

    ``forward(x (N, C, H, W))`` -> the same shape. Sides that ``window`` does not divide raise ``ValueError``.
    """

    def __init__(self, channels: int, head_width: int = 32, window: int = 8) -> None:
        super().__init__()
        self.window = window
        self.attn_block = PreNormAttention(channels, head_width, window, grid=False)
        self.ff_block = PreNormFeedForward(channels)
        self.attn_grid = PreNormAttention(channels, head_width, window, grid=True)
        self.ff_grid = PreNormFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, None)

    def attend(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The four stages; keys and values come from ``context`` (N, C, H, W), where given, which never changes."""
        height, width = x.shape[2:]
        if height % self.window or width % self.window:
            raise ValueError(
                f"{type(self).__name__}: a map of {height} x {width}, expected multiples of window {self.window}"
            )
        x = rearrange(x, "n c h w -> n h w c")
        context = None if context is None else rearrange(context, "n c h w -> n h w c")
        x = self.ff_block(self.attn_block(x, context))
        x = self.ff_grid(self.attn_grid(x, context))
        return rearrange(x, "n h w c -> n c h w")


class MaxCrossAttention(MaxAttention):
    """MaxCA (arXiv:2303.09508): multi-axis attention from x to a context, which an MBConv brings to x's width.

    ``forward(x (N, C, H, W), context (N, context_channels, H', W'))``: a larger context, H' = r H and W' = r W, is
    first averaged over r x r.
    """

    def __init__(self, channels: int, context_channels: int, head_width: int = 32, window: int = 8) -> None:
        super().__init__(channels, head_width, window)
        self.proj_in = MBConv(context_channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]  # it needs the context
        ratio = context.shape[2] // x.shape[2]
        if context.shape[0] != x.shape[0] or tuple(context.shape[2:]) != tuple(ratio * side for side in x.shape[2:]):
            raise ValueError(
                f"MaxCrossAttention: context is {tuple(context.shape)}, expected a multiple of x {tuple(x.shape)}"
            )
        if ratio > 1:
            context = functional.avg_pool2d(context, ratio)
        return self.attend(x, self.proj_in(context))


def to_windows(x: Tensor, window: int, grid: bool = False) -> Tensor:
    """(N, H, W, C) -> (N * H * W / w^2, w * w, C): patches, or with ``grid`` pixels H / w and W / w apart."""
    pattern = "n (i y) (j x) c -> (n y x) (i j) c" if grid else "n (y i) (x j) c -> (n y x) (i j) c"
    return rearrange(x, pattern, i=window, j=window)


def from_windows(x: Tensor, height: int, width: int, window: int, grid: bool = False) -> Tensor:
    """What ``to_windows`` took apart: (N * H * W / w^2, w * w, C) -> (N, H, W, C)."""
    pattern = "(n y x) (i j) c -> n (i y) (j x) c" if grid else "(n y x) (i j) c -> n (y i) (x j) c"
    return rearrange(x, pattern, y=height // window, x=width // window, i=window)
