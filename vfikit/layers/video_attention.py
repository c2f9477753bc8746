"""Attention over videos (N, C, T, H, W): within frames, along time with relative positions, and over both at once."""

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..ops.fold import in_turn
from .attention import HeadAttention, TokenAttention, TransformerBlock, pointwise
from .norms import group_norm
from .resnet import zero

RELATIVE = ("published", "regular", "none")


class RelativePosition(nn.Module):
    """A vector (width,) for each distance in time from -``length`` to ``length``; farther ones share the outermost."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.embeddings_table = nn.Parameter(torch.empty(2 * length + 1, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, frames: int) -> Tensor:
        """(frames, frames, width): [i, j] stands for the distance j - i."""
        length = self.embeddings_table.shape[0] // 2
        steps = torch.arange(frames, device=self.embeddings_table.device)
        return self.embeddings_table[(steps - steps[:, None]).clamp(-length, length) + length]


class RelativeAttention(nn.Module):
    """Attention along time with relative positions of keys and values (arXiv:1803.02155), shared by the heads.

    ``forward(q, k, v (N, heads, T, width), mask (T, T)=None)`` -> the same shape. Where the mask is zero, row i does
    not attend to column j. ``kind`` says which term the positions of the keys add to the logits of i attending to j:

    - "regular": q_i . R[i, j] / sqrt(width), as the term of the keys;
    - "published": that of LVDM's attention blocks, q_j . R[j, i] / width^(1/4): transposed, and larger;
    - "none": no positions at all.
    """

    def __init__(self, width: int, length: int, kind: str = "regular") -> None:
        super().__init__()
        if kind not in RELATIVE:
            raise ValueError(f"RelativeAttention: kind is {kind!r}, expected one of {', '.join(RELATIVE)}")
        self.kind = kind
        self.relative_position_k = RelativePosition(width, length) if kind != "none" else None
        self.relative_position_v = RelativePosition(width, length) if kind != "none" else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.relative_position_k is None or self.relative_position_v is None:
            return scaled_dot_product_attention(q, k, v, None if mask is None else mask != 0)
        n, heads, frames, width = q.shape
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # (N heads, T, width)
        keys, values = self.relative_position_k(frames).to(q.dtype), self.relative_position_v(frames).to(q.dtype)
        if self.kind == "published":
            logits = along(q, keys.transpose(1, 2) * width**-0.25).transpose(1, 2)
        else:
            logits = along(q, keys.transpose(1, 2) * width**-0.5)
        logits = torch.baddbmm(logits, q, k.transpose(1, 2), alpha=width**-0.5)
        if mask is not None:
            logits = logits.masked_fill(mask == 0, -1e8)
        weights = logits.float().softmax(-1).to(q.dtype) if q.dtype != torch.float64 else logits.softmax(-1)
        return torch.baddbmm(along(weights, values), weights, v).unflatten(0, (n, heads))


def along(x: Tensor, matrices: Tensor) -> Tensor:
    """Each time's rows by that time's matrix: (N, T, a), (T, a, b) -> (N, T, b)."""
    return (x.transpose(0, 1) @ matrices).transpose(0, 1)


class TemporalHeadAttention(nn.Module):
    """Attention of each pixel along time with a residual, which it starts as: LVDM's, over (N, C, T, H, W).

    ``qkv`` holds the queries of all heads, then all keys, then all values. The norm is over each pixel's own time.
    """

    def __init__(
        self, channels: int, head_width: int, length: int = 16, relative: str = "published", groups: int = 32
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.norm = group_norm(channels, groups, 1e-5)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.attention = RelativeAttention(head_width, length, relative)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.proj_out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        pixels = rearrange(x, "n c t h w -> (n h w) t c")
        made = in_turn(partial(self._of_pixels, mask=mask), pixels)
        return rearrange(made, "(n h w) t c -> n c t h w", h=x.shape[3], w=x.shape[4])

    def _of_pixels(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Of (N, T, C)."""
        x = x.contiguous()
        normed = self.norm(rearrange(x, "n t c -> n c t 1")).squeeze(3).transpose(1, 2)
        qkv = pointwise(self.qkv, normed)
        q, k, v = rearrange(qkv, "n t (three h d) -> three n h t d", three=3, d=self.head_width).unbind(0)
        attended = rearrange(self.attention(q, k, v, mask), "n h t d -> n t (h d)")
        return x + pointwise(self.proj_out, attended)


class SpaceTimeAttention(nn.Module):
    """Attention within each frame, then of each pixel along time: (N, C, T, H, W) -> the same, LVDM's block.

    ``heads`` share the channels. ``length`` and ``relative`` are as in ``RelativeAttention``; ``mask`` (T, T) is of the
    attention along time.
    """

    def __init__(
        self, channels: int, heads: int = 4, length: int = 16, relative: str = "published", groups: int = 32
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"SpaceTimeAttention: {channels} channels, expected a multiple of heads {heads}")
        self.spatial = HeadAttention(channels, channels // heads, groups, interleaved=False)
        self.temporal = TemporalHeadAttention(channels, channels // heads, length, relative, groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        frames = rearrange(x, "n c t h w -> (n t) c h w").contiguous(memory_format=torch.channels_last)
        return self.temporal(rearrange(self.spatial(frames), "(n t) c h w -> n c t h w", n=x.shape[0]), mask)


class JointSpaceTimeAttention(HeadAttention):
    """Every pixel of every frame attends to all others: (N, C, T, H, W) -> the same; cost grows with (T H W)^2."""

    def __init__(self, channels: int, heads: int = 4, groups: int = 32) -> None:
        if channels % heads:
            raise ValueError(f"JointSpaceTimeAttention: {channels} channels, expected a multiple of heads {heads}")
        super().__init__(channels, channels // heads, groups, interleaved=False)


class TemporalTokenAttention(TokenAttention):
    """``TokenAttention`` of tokens (N, T, C) to themselves along time, with relative positions.

    Fastest where times lie one after the other in memory.
    """

    def __init__(self, channels: int, head_width: int, length: int = 16, relative: str = "regular") -> None:
        super().__init__(channels, head_width=head_width)
        self.attention = RelativeAttention(head_width, length, relative)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        times = x.transpose(0, 1).contiguous()
        q, k, v = (
            rearrange(part(times), "t n (h d) -> n h t d", d=self.head_width)
            for part in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(rearrange(self.attention(q, k, v, mask), "n h t d -> t n (h d)")).transpose(0, 1)


class SpaceTimeTransformerBlock(TransformerBlock):
    """A ``TransformerBlock`` over tokens (N, T, L, C) with attention along time after each of its attentions.

    Only attention within frames sees the context (N, M, context_channels); both along time are to themselves.
    """

    def __init__(self, channels: int, context_channels: int, head_width: int, length: int) -> None:
        super().__init__(channels, context_channels, head_width)
        self.attn1_tmp = TemporalTokenAttention(channels, head_width, length)
        self.attn2_tmp = TemporalTokenAttention(channels, head_width, length)
        self.norm4, self.norm5 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Attention along time starts at zero. Its output alone: with q, k and v at zero too, nothing would learn."""
        for layer in (self.attn1_tmp, self.attn2_tmp):
            zero(layer.to_out)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = within_frames(x, self.norm1, self.attn1)
        if context is None:
            early = partial(along_time, norm=self.norm4, attention=self.attn1_tmp)
            x = within_frames(in_turn(early, x, axis=2), self.norm2, self.attn2)
        return in_turn(partial(self._of_pixels, context=context), x, axis=2)

    def _of_pixels(self, x: Tensor, context: Tensor | None) -> Tensor:
        """What treats every pixel of (N, T, L, C) alone: with a context, all but the first attention within frames."""
        x = x.contiguous()
        if context is not None:
            x = along_time(x, self.norm4, self.attn1_tmp)
            x = x + self.attn2(self.norm2(x).flatten(1, 2), context).view(x.shape)
        x = along_time(x, self.norm5, self.attn2_tmp)
        return x + self.ff(self.norm3(x))


def within_frames(x: Tensor, norm: nn.Module, attention: nn.Module) -> Tensor:
    """Attention of (N, T, L, C) within each frame, with its residual."""
    return in_turn(lambda frames: frames + attention(norm(frames)), x.flatten(0, 1)).unflatten(0, x.shape[:2])


def along_time(x: Tensor, norm: nn.Module, attention: nn.Module) -> Tensor:
    """Attention of each pixel of (N, T, L, C) along time, with its residual."""
    made = attention(rearrange(norm(x), "n t l c -> (n l) t c"))
    return x + rearrange(made, "(n l) t c -> n t l c", n=len(x))


class SpaceTimeTransformer(nn.Module):
    """Transformer blocks over a video with a context (N, M, context_channels), say of words.

    ``forward(x (N, C, T, H, W), context)``; it starts as its residual. ``length`` is that of the relative positions.
    """

    def __init__(
        self, channels: int, context_channels: int, heads: int = 8, length: int = 16, depth: int = 1, groups: int = 32
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.proj_in = nn.Conv3d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            SpaceTimeTransformerBlock(channels, context_channels, channels // heads, length) for _ in range(depth)
        )
        self.proj_out = nn.Conv3d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.proj_out)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = rearrange(self.proj_in(self.norm(x)), "n c t h w -> n t (h w) c").contiguous()
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(rearrange(tokens, "n t (h w) c -> n c t h w", h=x.shape[3]))
