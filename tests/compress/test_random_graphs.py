"""Any small graph of layers we know: what is removed unread is not missed, and groups pass the permutation test."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vfikit.compress import check_groups, couple, resize, slice_channels, widths

from .attention_nets import TorchHeads
from .nets import conv

STEPS = ("conv", "add", "cat", "norm", "slopes", "depthwise", "pool", "take", "groups", "grouped", "heads", "gate")
STEPS += ("shuffle", "swap", "excite", "unfold", "attention", "rms")
INEXACT = {"rms"}  # whose statistics change with what is removed


class Heads(nn.Module):
    """Self-attention over places; the number of heads is kept, or follows from their width."""

    def __init__(self, size: int, heads: int, width: int, counted: bool) -> None:
        super().__init__()
        self.width = width
        if counted:
            self.heads = heads
        self.qkv, self.out = conv(size, 3 * heads * width, 1), conv(heads * width, size, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        parts = self.qkv(x).view(n, 3, *((self.heads, -1) if hasattr(self, "heads") else (-1, self.width)), h * w)
        q, k, v = parts.transpose(3, 4).unbind(1)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(2, 3).reshape(n, -1, h, w))


class RMS(nn.Module):
    """Every pixel's channels normalised."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Swap(nn.Module):
    """Halves changed over, by the size of the tensor."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2:
            return x
        a, b = x.chunk(2, dim=1)
        return torch.cat([b, a], dim=1)


class Graph(nn.Module):
    """Each step makes a new feature from earlier ones; all features end in one head."""

    def __init__(self, steps: list[tuple[str, int, int]], width: int) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.first = conv(3, width)
        sizes = [width]
        self.layers = nn.ModuleList()
        for kind, a, b in steps:
            a, b = a % len(sizes), b % len(sizes)
            layer: nn.Module = nn.Identity()
            size = sizes[a]
            if kind == "conv":
                size = 2 + b
                layer = conv(sizes[a], size)
            elif kind == "add":
                layer = conv(sizes[a], sizes[b])
                size = sizes[b]
            elif kind == "cat":
                size = sizes[a] + sizes[b]
            elif kind == "norm":
                layer = nn.BatchNorm2d(size)
            elif kind == "slopes":
                layer = nn.PReLU()
            elif kind == "depthwise":
                layer = conv(size, size, 3, size)
            elif kind == "groups":
                layer = nn.GroupNorm(max(n for n in range(1, 4) if size % n == 0), size)
            elif kind == "grouped":
                groups = 2 if size % 2 == 0 else 1
                layer, size = conv(size, groups * (1 + b), 3, groups), groups * (1 + b)
            elif kind == "heads":
                layer = Heads(size, 1 + b, 2, bool(b % 2))
            elif kind == "attention":
                layer = TorchHeads(size, max(n for n in (1, 2, 3) if size % n == 0))
            elif kind == "rms":
                layer = RMS(size)
            elif kind == "gate":
                layer, size = nn.Sequential(conv(size, 4 + 2 * b), nn.GLU(1)), 2 + b
            elif kind == "shuffle":
                layer, size = nn.Sequential(conv(size, 8), nn.PixelShuffle(2), nn.AvgPool2d(2)), 2
            elif kind == "swap":
                layer = Swap()
            elif kind == "excite":
                layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(size, 1 + b, 1), nn.SiLU(), conv(1 + b, size, 1))
            elif kind == "unfold":
                layer, size = nn.Sequential(nn.Unfold(3, padding=1), nn.Unflatten(2, (5, 6))), 9 * size
            self.layers.append(layer)
            sizes.append(size)
        self.head = conv(sum(sizes), 2)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.first(x)]
        for (kind, a, b), layer in zip(self.steps, self.layers):
            one, other = features[a % len(features)], features[b % len(features)]
            if kind == "add":
                features.append((layer(one) + other).sigmoid())
            elif kind == "cat":
                features.append(torch.cat([one, other], dim=1))
            elif kind == "pool":
                features.append(nn.functional.avg_pool2d(one, 3, 1, 1))
            elif kind == "excite":
                features.append(one * layer(one).sigmoid())
            elif kind == "take":
                features.append(one.transpose(2, 3).transpose(3, 2).clone())
            else:
                features.append(layer(one))
        return self.head(torch.cat(features, dim=1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6),
    width=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_any_graph(steps, width, seed):
    torch.manual_seed(seed)
    net = Graph(steps, width).double().eval()
    x = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    groups = couple(net, (x,)).groups
    assume(groups)
    assert check_groups(net, groups, [(x,)]) < 1e-9
    keep = {group: sorted(torch.randperm(group.units)[: (group.units + 1) // 2].tolist()) for group in groups}
    tensors = dict(net.named_parameters())
    with torch.no_grad():
        for group, units in keep.items():
            gone = set(range(group.units)) - set(units)
            for member in (m for m in group.members if m.role == "in"):
                dead = torch.tensor([i for unit in gone for i in member.indices[unit]], dtype=torch.long)
                tensors[member.tensor].data.index_fill_(member.axis, dead, 0.0)
        small = slice_channels(net, keep)
        if not INEXACT & {kind for kind, *_ in steps}:
            torch.testing.assert_close(small(x), net(x), rtol=1e-11, atol=1e-11)
        again = resize(Graph(steps, width), widths(small)).double().eval()
        again.load_state_dict(small.state_dict())
        assert torch.equal(again(x), small(x))
