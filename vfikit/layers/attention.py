"""Attention over all pixels of a map: of autoencoders, of denoising U-Nets, and to a context.

All take and give maps (N, C, H, W). The cost grows with (H W)^2; see ``maxvit`` for attention that does not.
"""

import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from ..ops.attention import attend
from ..ops.fold import AT_ONCE, in_turn
from ..ops.linear import Linear, linear
from .embeddings import position_embedding
from .norms import group_norm
from .resnet import zero


class PixelAttention(nn.Module):
    """One head as wide as the map, with a residual: the ordinary attention of latent diffusion's autoencoders."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (rearrange(part(normed), "n c h w -> n 1 (h w) c") for part in (self.q, self.k, self.v))
        attended = attend(q, k, v)
        return x + self.proj_out(rearrange(attended, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class LinearAttention(nn.Module):
    """Attention of linear cost: keys are a softmax over positions, and their products with the values meet the queries.

    One head, no norm, no residual. ``to_qkv`` holds queries, keys and values one after the other.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.to_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).flatten(2).chunk(3, dim=1)  # (N, C, H W) each
        context = k.softmax(dim=-1) @ v.transpose(1, 2)  # (N, C of keys, C of values)
        return self.to_out((context.transpose(1, 2) @ q).unflatten(2, x.shape[2:]))


class HeadAttention(nn.Module):
    """Attention of heads ``head_width`` wide with a residual that it starts as: of guided diffusion's U-Nets.

    ``qkv`` holds, head by head, its queries, keys and values; with ``interleaved`` false, the queries of all heads,
    then all keys, then all values.
    """

    def __init__(self, channels: int, head_width: int = 32, groups: int = 32, interleaved: bool = True) -> None:
        super().__init__()
        if channels % head_width:
            raise ValueError(f"HeadAttention: {channels} channels, expected a multiple of head_width {head_width}")
        self.head_width, self.interleaved = head_width, interleaved
        self.norm = group_norm(channels, groups, 1e-5)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.proj_out)

    def forward(self, x: Tensor) -> Tensor:
        return in_turn(self._of_maps, x)

    def _of_maps(self, x: Tensor) -> Tensor:
        order = "n l (h three d) -> three n h l d" if self.interleaved else "n l (three h d) -> three n h l d"
        qkv = pointwise(self.qkv, rearrange(self.norm(x), "n c ... -> n (...) c"))
        q, k, v = rearrange(qkv, order, three=3, d=self.head_width).unbind(0)
        attended = attend(q, k, v)
        made = pointwise(self.proj_out, rearrange(attended, "n h l d -> n l (h d)"))
        return x + made.transpose(1, 2).unflatten(2, x.shape[2:])


def pointwise(layer: nn.Conv1d, tokens: Tensor) -> Tensor:
    """A convolution of one tap over tokens (N, L, C): what attention makes of them is then in its order of memory."""
    return linear(tokens, layer.weight.flatten(1), layer.bias)


class TokenAttention(nn.Module):
    """Multi-head attention of tokens (N, L, C) to a context (N, M, context_channels), by default to themselves."""

    def __init__(
        self, channels: int, context_channels: int = 0, head_width: int = 32, inner: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        inner, context_channels = inner or channels, context_channels or channels
        if inner % head_width:
            raise ValueError(f"TokenAttention: {inner} channels, expected a multiple of head_width {head_width}")
        self.head_width = head_width
        self.to_q = Linear(channels, inner, bias=False)
        self.to_k = Linear(context_channels, inner, bias=False)
        self.to_v = Linear(context_channels, inner, bias=False)
        self.to_out = nn.Sequential(Linear(inner, channels, bias=bias))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            rearrange(part, "n l (h d) -> n h l d", d=self.head_width)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        attended = attend(q, k, v)
        return self.to_out(rearrange(attended, "n h l d -> n l (h d)"))


class PositionedCrossAttention(TokenAttention):
    """Attention between maps whose pixels know where they are; ``forward(x, context=x)``, both (N, C, H, W).

    Both pass one 1x1 convolution, get sinusoids of their places added and pass one norm. The result is added to x as it
    came.
    """

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__(channels, head_width=head_width)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        attended = super().forward(self.placed(x), None if context is None else self.placed(context))
        return x + rearrange(attended, "n (h w) c -> n c h w", h=x.shape[2])

    def placed(self, x: Tensor) -> Tensor:
        """(N, H W, C), projected, with the sinusoids of every pixel's place, normed."""
        x = self.proj_in(x)
        tokens = rearrange(x, "n c h w -> n (h w) c")
        return self.norm(tokens + position_embedding(x.shape[2], x.shape[3], x.shape[1], x.device, x.dtype))


class GatedFeedForward(nn.Module):
    """Linear to 2 * ``expansion`` times the channels, one half gated by the GELU of the other, and back."""

    def __init__(self, channels: int, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.expansion, inner = expansion, expansion * channels
        self.net = nn.Sequential(GEGLU(channels, inner), nn.Dropout(dropout), Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = max(1, AT_ONCE // (self.expansion * x.shape[-1]))
        return in_turn(self.net, x.flatten(0, -2), tokens).view(x.shape)


class GEGLU(nn.Module):
    """(.., in) -> (.., out): half of a projection times the GELU of its other half (arXiv:2002.05202)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Linear(in_channels, 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class TransformerBlock(nn.Module):
    """Self-attention, attention to a context, gated feed-forward, each after a norm and with a residual."""

    def __init__(self, channels: int, context_channels: int, head_width: int) -> None:
        super().__init__()
        self.attn1 = TokenAttention(channels, head_width=head_width)
        self.ff = GatedFeedForward(channels)
        self.attn2 = TokenAttention(channels, context_channels, head_width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over a map's pixels with a context (N, M, context_channels), or a map, of any size.

    ``forward(x (N, C, H, W), context)``; it starts as its residual.
    """

    def __init__(
        self, channels: int, context_channels: int, head_width: int = 32, depth: int = 1, groups: int = 32
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_channels, head_width) for _ in range(depth)
        )
        self.proj_out = nn.Conv2d(channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.proj_out)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None and context.ndim == 4:
            context = rearrange(context, "n c h w -> n (h w) c")
        tokens = rearrange(self.proj_in(self.norm(x)), "n c h w -> n (h w) c")
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(rearrange(tokens, "n (h w) c -> n c h w", h=x.shape[2]))
