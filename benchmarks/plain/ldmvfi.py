"""LDMVFI as its published program runs it, in plain PyTorch: the same weights, attention spelt out, no kernels.

What that program wastes is left out (weights averaged anew for every frame, losses of frames that are only looked at),
what it does to the frame is kept: its padding, both neighbours encoded for every pair, DDIM in its own steps.
"""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from vfikit.layers.maxvit import WindowAttention
from vfikit.models.ldmvfi import LDMVFINet
from vfikit.models.ldmvfi.published import published_padding
from vfikit.ops import DSepConv

from .conv3x3 import by_torch
from .dsepconv import grid_sampled


def plain(net: nn.Module) -> nn.Module:
    """``net``, or a part of it, for ``forward`` without gradients: other modules over the same weights."""
    net = by_torch(copy.deepcopy(net, {id(tensor): tensor for tensor in [*net.parameters(), *net.buffers()]}))
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, WindowAttention):
                setattr(module, name, PlainWindowAttention(child))
            elif isinstance(child, DSepConv):
                setattr(module, name, PlainDSepConv(child.padding))
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(_contiguous)
    return net


def middle(
    net: LDMVFINet, frame0: Tensor, frame1: Tensor, steps: int, start: Tensor, noises: Iterable[Tensor]
) -> Tensor:
    """The frame between two of (N, 3, H, W) in [0, 1], in about [-1, 1], by DDIM with eta = 1 from noise ``start``."""
    height, width = frame0.shape[2:]
    frame0, frame1 = (published_padding(2 * frame - 1) for frame in (frame0, frame1))
    encoded0, encoded1 = net.autoencoder.encode(frame0), net.autoencoder.encode(frame1)
    condition = torch.cat([encoded0.latent, encoded1.latent], dim=1)
    latent = ddim(net, condition, steps, start, noises)
    frame = net.autoencoder.decode(latent, encoded0, encoded1, frame0, frame1).frame
    return frame[..., :height, :width]


def ddim(net: LDMVFINet, condition: Tensor, steps: int, start: Tensor, noises: Iterable[Tensor]) -> Tensor:
    """Denoised from ``start`` (N, C, h, w), a noise of ``noises`` a step, the last included."""
    config, x = net.config, start
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    times = torch.arange(0, config.timesteps, config.timesteps // steps) + 1
    before = torch.cat([kept[:1], kept[times[:-1]]])
    for t, a, b, noise in zip(times.flip(0), kept[times].flip(0), before.flip(0), noises):
        found = net.denoiser(torch.cat([x, condition], dim=1), t.expand(len(x)))
        clean = (x - (1 - a).sqrt() * found) / a.sqrt()
        sigma = ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        x = (b.sqrt() * clean + (1 - b - sigma**2).sqrt() * found + sigma * noise).to(start.dtype)
    return x


class PlainWindowAttention(nn.Module):
    """Stands in for ``vfikit.layers.WindowAttention``: products and softmax one by one, its bias looked up by index."""

    index: Tensor

    def __init__(self, ours: WindowAttention) -> None:
        super().__init__()
        self.head_width, self.window = ours.head_width, ours.window
        self.to_q, self.to_k, self.to_v, self.to_out = ours.to_q, ours.to_k, ours.to_v, ours.to_out
        self.rel_pos_bias = ours.rel_pos_bias
        place = torch.cartesian_prod(torch.arange(ours.window), torch.arange(ours.window))
        apart = place[:, None] - place[None] + ours.window - 1  # query less key
        index = apart[..., 0] * (2 * ours.window - 1) + apart[..., 1]
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        parts = (self.to_q(x), self.to_k(context), self.to_v(context))
        q, k, v = (part.unflatten(2, (-1, self.head_width)).transpose(1, 2) for part in parts)
        scores = torch.einsum("bhid,bhjd->bhij", q * self.head_width**-0.5, k)
        scores = scores + self.rel_pos_bias(self.index).permute(2, 0, 1)
        out = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        return self.to_out(out.transpose(1, 2).flatten(2))


class PlainDSepConv(nn.Module):
    """Stands in for ``vfikit.ops.DSepConv`` without gradients."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, frame: Tensor, *maps: Tensor) -> Tensor:
        padded = functional.pad(frame, [self.padding] * 4, mode="replicate")
        return grid_sampled(padded, *(each.contiguous() for each in maps))


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in inputs)
