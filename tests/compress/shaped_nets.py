"""Small networks in which channels are cut apart and joined again: groups, halves, gates, shuffles, tables."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_nets import conv, tokens


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


class Interleaved(nn.Module):
    """Scale and shift of a norm's channels in turn: rows 2c and 2c + 1 go with channel c."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.style = conv(3, 8), nn.GroupNorm(4, 8, affine=False), nn.Linear(3, 16)
        self.last = conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.style(x.mean((2, 3))).unflatten(1, (-1, 2))[..., None, None].unbind(2)
        return self.last(self.norm(self.first(x)) * (1 + scale) + shift)


class Signal(nn.Module):
    """Convolutions over one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Conv1d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x.flatten(2))).relu())


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


# The net, and (units, size) of the groups expected.
KINDS: dict[str, tuple[Callable[[], nn.Module], list[list[int]]]] = {
    "grouped": (Grouped, [[4, 2], [6, 2]]),
    "grouped transposed": (GroupedTransposed, [[4, 2], [3, 1]]),
    "group-wise concatenation": (GroupWise, [[4, 2], [2, 2], [2, 2]]),
    "channel shuffle": (ShuffledChannels, [[2, 4], [3, 2]]),
    "halves": (Halves, [[6, 2]]),
    "gates": (Gated, [[4, 2], [10, 2], [6, 2]]),
    "interleaved gates": (Interleaved, [[4, 2]]),
    "one axis": (Signal, [[8, 1]]),
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
