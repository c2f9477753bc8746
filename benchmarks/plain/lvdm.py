"""LVDM's networks as its published program runs them, in plain PyTorch: the same weights, attention spelt out.

Logits are held whole, those of relative positions are a product with one vector a pair of times, norms and
convolutions see maps as they lie, and each layer sees all frames and all pixels at once.
"""

import copy

import torch
from einops import rearrange
from torch import Tensor, nn

from vfikit.layers import HeadAttention, SpaceTimeAttention
from vfikit.layers.attention import GatedFeedForward, TokenAttention
from vfikit.layers.video_attention import (
    RelativeAttention,
    SpaceTimeTransformerBlock,
    TemporalHeadAttention,
    TemporalTokenAttention,
)

from .conv3x3 import by_torch


def plain(net: nn.Module) -> nn.Module:
    """``net``, or a part of it: other modules over the same weights."""
    net = copy.deepcopy(net, {id(tensor): tensor for tensor in [*net.parameters(), *net.buffers()]})
    return _replaced(by_torch(net))


def _replaced(net: nn.Module) -> nn.Module:
    if isinstance(net, SpaceTimeAttention):
        return PlainSpaceTimeAttention(net)
    if isinstance(net, TemporalTokenAttention):
        return PlainTokens(net, net.attention)
    if type(net) is TokenAttention:
        return PlainTokens(net)
    if isinstance(net, HeadAttention):
        return PlainHeads(net)
    if isinstance(net, GatedFeedForward):
        return net.net
    for name, child in net.named_children():
        setattr(net, name, _replaced(child))
    return PlainTransformerBlock(net) if isinstance(net, SpaceTimeTransformerBlock) else net


class PlainSpaceTimeAttention(nn.Module):
    """Within frames, then along time."""

    def __init__(self, ours: SpaceTimeAttention) -> None:
        super().__init__()
        self.spatial = PlainHeads(ours.spatial)
        self.temporal = PlainHeads(ours.temporal, ours.temporal.attention)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w = x.shape[0], *x.shape[3:]
        x = rearrange(x, "n c t h w -> (n t) c (h w)").contiguous()
        x = rearrange(self.spatial(x), "(n t) c l -> (n l) c t", n=n).contiguous()
        return rearrange(self.temporal(x), "(n h w) c t -> n c t h w", n=n, h=h, w=w).contiguous()


class PlainHeads(nn.Module):
    """Over (N, C, L): the queries, keys and values of all heads one after the other."""

    def __init__(self, ours: HeadAttention | TemporalHeadAttention, positions: RelativeAttention | None = None) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj_out = ours.norm, ours.qkv, ours.proj_out
        self.head_width, self.positions = ours.head_width, positions

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        q, k, v = rearrange(qkv, "n (three h d) l -> three (n h) l d", three=3, d=self.head_width).contiguous()
        attended = rearrange(attend(q, k, v, self.positions), "(n h) l d -> n (h d) l", n=x.shape[0])
        return (flat + self.proj_out(attended)).view(x.shape)


class PlainTokens(nn.Module):
    """Over (N, L, C), to themselves or to a context."""

    def __init__(self, ours: TokenAttention, positions: RelativeAttention | None = None) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = ours.to_q, ours.to_k, ours.to_v, ours.to_out
        self.head_width, self.positions = ours.head_width, positions

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            rearrange(part, "n l (h d) -> (n h) l d", d=self.head_width)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(rearrange(attend(q, k, v, self.positions), "(n h) l d -> n l (h d)", n=x.shape[0]))


class PlainTransformerBlock(nn.Module):
    """Over tokens (N, T, L, C), within frames and along time in turn."""

    def __init__(self, ours: SpaceTimeTransformerBlock) -> None:
        super().__init__()
        self.within = nn.ModuleList([ours.attn1, ours.attn2])
        self.along = nn.ModuleList([ours.attn1_tmp, ours.attn2_tmp])
        self.within_norms, self.along_norms = (
            nn.ModuleList([ours.norm1, ours.norm2]),
            nn.ModuleList([ours.norm4, ours.norm5]),
        )
        self.norm, self.ff = ours.norm3, ours.ff

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, times, places = x.shape[:3]
        contexts = None, context.repeat_interleave(times, 0)
        x = rearrange(x, "n t l c -> (n t) l c")
        for place in range(2):
            x = x + self.within[place](self.within_norms[place](x), contexts[place])
            x = rearrange(x, "(n t) l c -> (n l) t c", n=n).contiguous()
            x = x + self.along[place](self.along_norms[place](x))
            x = rearrange(x, "(n l) t c -> (n t) l c", n=n).contiguous()
        return (x + self.ff(self.norm(x))).view(n, times, places, -1)


def attend(q: Tensor, k: Tensor, v: Tensor, positions: RelativeAttention | None) -> Tensor:
    """Of (N, L, d) to (N, M, d)."""
    width = q.shape[2]
    logits = torch.einsum("btd,bsd->bts", q * width**-0.25, k * width**-0.25)
    if positions is None or positions.relative_position_k is None or positions.relative_position_v is None:
        return torch.einsum("bts,bsd->btd", logits.softmax(-1), v)
    keys, values = positions.relative_position_k(q.shape[1]), positions.relative_position_v(q.shape[1])
    if positions.kind == "published":
        logits = logits + torch.einsum("bsd,std->bts", q * width**-0.25, keys)
    else:
        logits = logits + torch.einsum("btd,tsd->bts", q * width**-0.5, keys)
    weights = logits.softmax(-1)
    return torch.einsum("bts,bsd->btd", weights, v) + torch.einsum("bts,tsd->btd", weights, values)
