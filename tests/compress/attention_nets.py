"""Small networks with attention: heads kept as a number, by their width, in the code; q, k and v apart or fused."""

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


class LinearHeads(nn.Module):
    """Keys are compared over places, before the queries see them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        key = nn.Linear(8, 6, bias=False)  # a bias would add the same at every place
        self.q, self.k, self.v, self.out = nn.Linear(8, 6), key, nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(tokens(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        context = k.softmax(-2).transpose(-1, -2) @ v  # n heads d d
        y = self.out((q.softmax(-1) @ context).transpose(1, 2).flatten(2))
        return y.transpose(1, 2).unflatten(2, x.shape[-2:])


class TorchHeads(nn.Module):
    """torch's own attention: its heads together are as wide as the stream, and go with its channels."""

    def __init__(self, width: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = tokens(x)
        made = self.attention(y, y, value=y, need_weights=False)[0]
        return made.transpose(1, 2).unflatten(2, x.shape[2:])


class TorchCrossHeads(nn.Module):
    """Keys and values of another width; one more of each is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other, self.last = conv(3, 8), conv(3, 6), conv(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, add_bias_kv=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, context = tokens(self.first(x)), tokens(self.other(F.avg_pool2d(x, 2)))
        made = self.attention(y, context, context)[0]
        return self.last(made.transpose(1, 2).unflatten(2, x.shape[2:]))


def around(layer: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Around(layer())


# The net, and (units, size) of the groups expected.
KINDS: dict[str, tuple[Callable[[], nn.Module], list[list[int]]]] = {
    "heads": (around(Heads), [[8, 1], [4, 3]]),
    "heads by width": (around(HeadsByWidth), [[2, 4], [2, 12]]),
    "qkv by part": (around(FusedByPart), [[8, 1], [2, 12]]),
    "qkv by head": (around(FusedByHead), [[8, 1], [4, 6]]),
    "heads as a number": (around(LiteralHeads), [[8, 1], [3, 4]]),
    "linear attention": (around(LinearHeads), [[8, 1], [3, 2]]),
    "cross attention": (CrossHeads, [[8, 1], [3, 2]]),
    "torch's attention": (around(TorchHeads), [[4, 2]]),
    "torch's cross attention": (TorchCrossHeads, [[2, 4], [6, 1], [8, 1]]),
}
