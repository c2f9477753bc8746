"""E2FGVI as its published program does it, in plain PyTorch: rolled maps, folds, logits in memory, every window anew.

The deformable convolution is mmcv's where it imports, else one ``grid_sample`` and one convolution.
"""

import copy

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from benchmarks.peers import peers
from vfikit.inference import dilate
from vfikit.layers import SPyNet
from vfikit.layers.focal import FocalAttention, FusionFeedForward, WindowPooling
from vfikit.layers.propagation import DeformableAlignment
from vfikit.models.e2fgvi import E2FGVINet, windows
from vfikit.ops import SoftComposition, SoftSplit

from .conv3x3 import by_torch
from .deform_conv2d import grid_sampled

FOLDING = {"kernel_size": 7, "padding": 3, "stride": 3}


def plain(net: E2FGVINet) -> E2FGVINet:
    """A copy of a network with the published patches, on sizes that the published program takes; no gradients."""
    net = by_torch(copy.deepcopy(net)).eval().to(memory_format=torch.contiguous_format)
    net.flow, net.split, net.compose = Flow(net.flow), Split(net.split), Composition(net.compose)
    for branch in (net.propagation.backward_branch, net.propagation.forward_branch):
        branch.align = Alignment(branch.align)
    for block in net.blocks:
        block.pool, block.attn, block.mlp = Pooling(block.pool), Attention(block.attn), FeedForward(block.mlp)
    return net.requires_grad_(False)


def inpaint(net: E2FGVINet, frames: Tensor, masks: Tensor, stride: int = 5, step: int = 10) -> Tensor:
    """The published loop over a clip (1, T, 3, H, W) in [0, 1]: all on the device, every window from the beginning."""
    holes = dilate(masks.flatten(0, 1) > 0, 4).unflatten(0, masks.shape[:2])
    seen, filled = (2 * frames - 1) * ~holes, [None] * frames.shape[1]
    for _, local, references in windows(frames.shape[1], stride, step):
        made = (net(seen[:, [*local, *references]], len(local)).frames + 1) / 2
        for place, k in enumerate(local):
            frame = torch.where(holes[:, k], made[:, place], frames[:, k])
            filled[k] = frame if filled[k] is None else (filled[k] + frame) / 2
    return torch.stack(filled, dim=1)


class Flow(nn.Module):
    def __init__(self, ours: SPyNet) -> None:
        super().__init__()
        self.net = ours

    def between(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        earlier, later = frames[:, :-1], frames[:, 1:]
        pairs = ((earlier, later), (later, earlier))
        ahead, back = (self.net(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, earlier.shape[:2]) for a, b in pairs)
        return ahead, back


class Alignment(nn.Module):
    def __init__(self, ours: DeformableAlignment) -> None:
        super().__init__()
        self.ours, self.conv_offset = ours, ours.conv_offset
        self.sample = peers("deform_conv2d").get("mmcv")

    def forward(self, x: Tensor, condition: Tensor, flow1: Tensor, flow2: Tensor) -> Tensor:
        out = self.conv_offset(torch.cat([condition, flow1, flow2], dim=1))
        first, second, mask = out.chunk(3, dim=1)
        residue = self.ours.max_residue * torch.tanh(torch.cat([first, second], dim=1))
        tiles = first.shape[1] // 2
        flows = [flow.flip(1).repeat(1, tiles, 1, 1) for flow in (flow1, flow2)]
        given = (x, residue + torch.cat(flows, dim=1), self.ours.weight, self.ours.bias, mask.sigmoid())
        return self.sample(*given) if self.sample else grid_sampled(*given, padding=1)


class Split(nn.Module):
    def __init__(self, ours: SoftSplit) -> None:
        super().__init__()
        self.embedding = ours.embedding

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = ((side - 1) // FOLDING["stride"] + 1 for side in x.shape[2:])
        return self.embedding(functional.unfold(x, **FOLDING).transpose(1, 2)).unflatten(1, (rows, columns))


class Composition(nn.Module):
    def __init__(self, ours: SoftComposition) -> None:
        super().__init__()
        self.embedding = ours.embedding

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return functional.fold(self.embedding(tokens.flatten(1, 2)).transpose(1, 2), size, **FOLDING)


class FeedForward(nn.Module):
    def __init__(self, ours: FusionFeedForward) -> None:
        super().__init__()
        self.conv1, self.conv2 = ours.conv1, ours.conv2

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        patches = self.conv1(x.flatten(1, 2)).transpose(1, 2)
        overlaps = functional.fold(torch.ones_like(patches), size, **FOLDING)
        mixed = functional.unfold(functional.fold(patches, size, **FOLDING) / overlaps, **FOLDING)
        return self.conv2(functional.gelu(mixed.transpose(1, 2))).view_as(x)


class Pooling(nn.Module):
    def __init__(self, ours: WindowPooling) -> None:
        super().__init__()
        self.window, self.mean = ours.windows[0], ours.levels[0]

    def forward(self, x: Tensor) -> list[Tensor]:
        apart = rearrange(x, "n t (r i) (c j) d -> n t r c d (i j)", i=self.window[0], j=self.window[1])
        return [self.mean(apart).squeeze(-1)]


class Attention(nn.Module):
    def __init__(self, ours: FocalAttention) -> None:
        super().__init__()
        self.heads, self.window, self.focal_window = ours.heads, ours.window, ours.focal_window
        self.qkv, self.proj = ours.qkv, ours.proj

    def forward(self, x: Tensor, pooled: list[Tensor], keep: int | None = None) -> Tensor:
        _, frames, height, width, _ = x.shape
        q, *keys = self.qkv(x).chunk(3, dim=-1)
        levels = self.qkv(pooled[0]).chunk(3, dim=-1)[1:]
        parts = [[self.apart(key), self.rolled(key), self.around(level)] for key, level in zip(keys, levels)]
        k, v = (torch.cat([part.flatten(2, 3) for part in each], dim=2) for each in parts)
        q = self.apart(q).flatten(2, 3)
        logits = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        padding = self.around(torch.ones_like(levels[0][:1, :1, ..., : self.heads]))[:, 0, 0, :, 0] == 0
        far = -100.0 * padding.repeat(x.shape[0], frames)[:, None, None]
        logits[..., -far.shape[-1] :] += far
        attended = logits.softmax(-1) @ v
        rows, columns = height // self.window[0], width // self.window[1]
        sizes = {"r": rows, "c": columns, "t": frames, "i": self.window[0], "j": self.window[1]}
        return self.proj(rearrange(attended, "(n r c) h (t i j) d -> n t (r i) (c j) (h d)", **sizes))[:, :keep]

    def apart(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B * windows, heads, T, tokens, C / heads)."""
        sizes = {"i": self.window[0], "j": self.window[1], "h": self.heads}
        return rearrange(x, "n t (r i) (c j) (h d) -> (n r c) h t (i j) d", **sizes)

    def rolled(self, x: Tensor) -> Tensor:
        """What four rolled copies of the map show outside each window."""
        (rows, columns), parts = self.window, []
        down, right = rows // 2, columns // 2
        i, j = torch.arange(rows)[:, None], torch.arange(columns)
        for above in (True, False):
            for left in (True, False):
                shift = (-down if above else down, -right if left else right)
                inside = (i < rows - down if above else i >= down) & (j < columns - right if left else j >= right)
                parts.append(self.apart(x.roll(shift, (2, 3)))[..., ~inside.flatten(), :])
        return torch.cat(parts, dim=3)

    def around(self, x: Tensor) -> Tensor:
        """(B, T, rows, columns, C) -> (B * windows, heads, T, focal tokens, C / heads), zeros outside the map."""
        items, frames = x.shape[:2]
        padding = [side // 2 for side in self.focal_window]
        apart = functional.unfold(rearrange(x, "n t r c d -> (n t) d r c"), self.focal_window, padding=padding)
        sizes = {"n": items, "t": frames, "h": self.heads, "p": self.focal_window[0] * self.focal_window[1]}
        return rearrange(apart, "(n t) (h d p) w -> (n w) h t p d", **sizes)
