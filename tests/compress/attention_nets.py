"""Small networks in which channels are cut apart and joined again: heads, groups, halves, shuffles."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


class Around(nn.Module):
    """conv, the layer, a residual sum, conv."""

    def __init__(self, layer: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.first, self.layer, self.last = conv(3, width), layer, conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y + self.layer(y))


class Heads(nn.Module):
    """Four heads of three; q, k and v apart; the number of heads is kept as an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v = (nn.Linear(8, 12, bias=False) for _ in range(3))
        self.out = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (
            layer(tokens(x)).view(n, h * w, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)  # n heads hw d
        return self.out(y.transpose(1, 2).reshape(n, h * w, -1)).transpose(1, 2).view(n, c, h, w)


class HeadsByWidth(nn.Module):
    """Heads follow from the tensors; attention written out, the scale kept."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.norm, self.qkv, self.out = nn.GroupNorm(2, 8), conv(8, 24, 1), conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        q, k, v = (part.reshape(n, -1, self.width, h * w) for part in (q, k, v))
        weight = torch.einsum("bhdi,bhdj->bhij", q * self.width**-0.5, k).softmax(-1)
        return self.out(torch.einsum("bhij,bhdj->bhdi", weight, v).reshape(n, -1, h, w))


class FusedByPart(nn.Module):
    """[Q K V], each by head, in one convolution, taken apart with ``unbind``: where plain tracers hang."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.qkv, self.out = conv(8, 24, 1), conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 3, self.num_heads, -1, h * w).transpose(3, 4).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return self.out(y.reshape(n, -1, h, w))


class FusedByHead(nn.Module):
    """[q k v] of each head, as in latent diffusion's U-Nets."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.out = nn.Conv1d(8, 24, 1), nn.Conv1d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        qkv = self.qkv(x.flatten(2))
        width = qkv.shape[1] // (3 * self.num_heads)
        q, k, v = qkv.reshape(n * self.num_heads, 3 * width, h * w).split(width, dim=1)
        weight = (q.transpose(1, 2) @ k * width**-0.5).softmax(-1)
        y = torch.einsum("bts,bcs->bct", weight, v)
        return self.out(y.reshape(n, -1, h * w)).view(n, -1, h, w)


class LiteralHeads(nn.Module):
    """Four heads, a number in the code: q and k stay; of v and out, the same places of every head may go."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (conv(8, 12, 1) for _ in range(3))
        self.out = conv(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = (layer(x).view(n, 4, -1, h * w).transpose(2, 3) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return self.out(y.reshape(n, -1, h, w))


class CrossHeads(nn.Module):
    """Queries from the image, keys and values from a context that is an input: its width stays."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        key = nn.Linear(3, 6, bias=False)  # a bias would add the same to all that the softmax compares
        self.first, self.last = conv(3, 8), conv(8, 3)
        self.q, self.k, self.v, self.out = nn.Linear(8, 6), key, nn.Linear(3, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        y, context = tokens(self.first(x)), tokens(F.avg_pool2d(x, 2))
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(y), self.k(context), self.v(context))
        )
        y = y + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.last(y.transpose(1, 2).unflatten(2, (h, w)))


class Grouped(nn.Sequential):
    """As many channels must go from either group."""

    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.ReLU(), conv(8, 12, groups=2), nn.ReLU(), conv(12, 3))


class GroupedTransposed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.ReLU(), nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2), nn.ReLU(), conv(6, 3))


class GroupWise(nn.Module):
    """Two features concatenated group by group for a grouped convolution, as in E2FGVI's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(3, 4)
        self.both, self.last = conv(12, 4, groups=2), conv(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        a, b = (layer(x).relu().view(n, 2, -1, h, w) for layer in (self.a, self.b))
        return self.last(self.both(torch.cat([a, b], dim=2).view(n, -1, h, w)).relu())


class ShuffledChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.shuffle, self.b, self.last = conv(3, 8), nn.ChannelShuffle(2), conv(8, 6, groups=2), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.shuffle(self.a(x))).relu()
        n, c, h, w = y.shape
        return self.last(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Halves(nn.Module):
    """Halves that are used apart, and cut by the size of the tensor: as many go from either."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.a, self.b = conv(3, 12), conv(6, 3), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.both(x).chunk(2, dim=1)
        return self.a(a.relu()) + self.b(b.tanh())


class Gated(nn.Module):
    """GLU, GEGLU and a norm's scale and shift: rows c and half + c go with channel c."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.style = conv(3, 8), nn.GroupNorm(4, 8, affine=False), nn.Linear(3, 16)
        self.up, self.down, self.last = nn.Linear(8, 20), nn.Linear(10, 12), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        scale, shift = self.style(x.mean((2, 3)))[:, :, None, None].chunk(2, dim=1)
        y = self.norm(self.first(x)) * (1 + scale) + shift
        a, gate = self.up(tokens(y)).chunk(2, dim=-1)
        y = F.glu(self.down(a * F.gelu(gate)), dim=-1)
        return self.last(y.transpose(1, 2).unflatten(2, (h, w)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.squeeze, self.excite, self.last = conv(3, 8), conv(8, 4, 1), conv(4, 8, 1), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu_()
        y = y * self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
        return self.last(y)


class Slopes(nn.Sequential):
    """PReLU with a slope a channel; an instance norm with scale and shift."""

    def __init__(self) -> None:
        middle = nn.Conv2d(8, 6, 3, padding=1, bias=False)  # the norm would take a bias away
        super().__init__(conv(3, 8), nn.PReLU(8), middle, nn.InstanceNorm2d(6, affine=True), nn.PReLU(), conv(6, 3))


class Folded(nn.Module):
    """Soft split and composition: a channel is nine columns of a linear layer, and nine rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.outer, self.last = conv(3, 4), nn.Linear(36, 10), nn.Linear(10, 45), conv(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(self.first(x), 3, padding=1).transpose(1, 2)
        y = self.outer(self.inner(columns).relu()).transpose(1, 2)
        return self.last(F.fold(y, x.shape[-2:], 3, padding=1))


class SpaceToDepth(nn.Module):
    """Pixel unshuffle and shuffle, the module's and one written with ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.low, self.last = conv(3, 4), conv(16, 24), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.low(F.pixel_unshuffle(self.first(x), 2)).relu()
        n, c, h, w = y.shape
        y = y.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
        return self.last(y)


class Warped(nn.Module):
    """Features moved by a flow from a head, blended with a mask: flow and mask stay, a mask's one channel too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.head, self.features, self.last = conv(3, 8), conv(8, 3), conv(3, 5), conv(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        flow, mask = self.head(self.seen(x).relu()).split([2, 1], dim=1)
        features = self.features(x)
        moved = F.grid_sample(features, flow.permute(0, 2, 3, 1).tanh(), align_corners=False)
        return self.last(torch.lerp(features, moved, mask.sigmoid()))


class InPlaceViews(nn.Module):
    """Shapes changed in place; sums written into a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.linear, self.last = conv(3, 8), nn.Linear(8, 6), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.first(x).flatten(2)
        y.transpose_(1, 2)
        y.unsqueeze_(1)
        y = self.linear(y).squeeze_(1)
        seen = y.view(n, h * w, -1)
        seen += 1
        seen.mul_(y.sigmoid())
        return self.last(y.transpose(1, 2).reshape(n, -1, h, w))


class Stacked(nn.Module):
    """Features stacked along a new axis, and taken from it again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = conv(3, 6), conv(3, 6), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], dim=1).roll(1, dims=3).flip(4)
        one, other = both.unbind(1)
        return self.last(one * other + both.amax(1))


class Scaled(nn.Module):
    """Channels scaled and shifted by bare parameters, a table of places, and a window's bias for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale, self.last = conv(3, 8), nn.Parameter(torch.ones(8, 1, 1)), conv(8, 3)
        self.places, self.columns = nn.Parameter(torch.zeros(1, 8, 4, 4)), nn.Embedding(16, 8)
        self.qkv, self.out, self.bias = nn.Linear(8, 24), nn.Linear(8, 8), nn.Embedding(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 4)
        y = tokens(self.first(x) * self.scale + self.places) + self.columns(torch.arange(16, device=x.device))
        q, k, v = (part.unflatten(2, (-1, 2)).transpose(1, 2) for part in self.qkv(y).chunk(3, dim=2))
        bias = self.bias.weight.view(4, 4, -1).unfold(0, 4, 1).flip(1)  # 1 4 heads 4
        bias = bias.permute(2, 0, 1, 3).flatten(2)  # heads 1 hw
        y = y + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return self.last(y.transpose(1, 2).unflatten(2, (4, 4)))


class Recurrent(nn.Module):
    """A tensor fed back: what goes in and what comes out are the same channels, at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.step, self.last = conv(3, 6), conv(9, 6), conv(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.start(x)
        for _ in range(3):
            state = self.step(torch.cat([x, state], dim=1)).tanh()
        return self.last(state)


class Counted(nn.Module):
    """A block that asserts the number of its channels, as diffusers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.out_channels = 8, 6
        self.conv = conv(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        y = self.conv(x)
        assert y.shape[1] == self.out_channels
        return y


class Counting(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 8), Counted(), conv(6, 3))


def around(layer: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Around(layer())


KINDS: dict[str, tuple[Callable[[], nn.Module], list[list[int]]]] = {  # net, (units, size) of the groups expected
    "heads": (around(Heads), [[8, 1], [4, 3]]),
    "heads by width": (around(HeadsByWidth), [[2, 4], [2, 12]]),
    "qkv by part": (around(FusedByPart), [[8, 1], [2, 12]]),
    "qkv by head": (around(FusedByHead), [[8, 1], [4, 6]]),
    "heads as a number": (around(LiteralHeads), [[8, 1], [3, 4]]),
    "cross attention": (CrossHeads, [[8, 1], [3, 2]]),
    "grouped": (Grouped, [[4, 2], [6, 2]]),
    "grouped transposed": (GroupedTransposed, [[4, 2], [3, 1]]),
    "group-wise concatenation": (GroupWise, [[4, 2], [2, 2], [2, 2]]),
    "channel shuffle": (ShuffledChannels, [[2, 4], [3, 2]]),
    "halves": (Halves, [[6, 2]]),
    "gates": (Gated, [[4, 2], [10, 2], [6, 2]]),
    "squeeze-excite": (SqueezeExcite, [[8, 1], [4, 1]]),
    "slopes": (Slopes, [[8, 1], [6, 1]]),
    "unfold and fold": (Folded, [[4, 1], [10, 1], [5, 9]]),
    "space to depth": (SpaceToDepth, [[4, 1], [6, 4]]),
    "warp": (Warped, [[8, 1], [5, 1]]),
    "views in place": (InPlaceViews, [[8, 1], [6, 1]]),
    "stack": (Stacked, [[6, 1]]),
    "bare parameters and tables": (Scaled, [[8, 1], [4, 6]]),
    "recurrent": (Recurrent, [[6, 1]]),
    "counted": (Counting, [[8, 1], [6, 1]]),
}
