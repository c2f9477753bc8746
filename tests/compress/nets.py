"""Small networks, one for every way in which channels are coupled; each with the sizes of its input."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfikit.ops import AdaCoF

from . import attention_nets, shaped_nets
from .attention_nets import conv


class Chain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.ReLU(), conv(8, 6), nn.LeakyReLU(), nn.AvgPool2d(2), conv(6, 4))


class Additive(nn.Module):
    """An encoder and decoder whose skip is an addition; two heads read the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.up = conv(3, 8), conv(8, 12), conv(12, 8)
        self.heads = nn.ModuleList([conv(8, 2), conv(8, 5)])

    def forward(self, x: Tensor) -> list[Tensor]:
        skip = F.relu(self.first(x))
        low = F.relu(self.down(F.avg_pool2d(skip, 2)))
        up = F.relu(self.up(F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=True)))
        return [head(skip + up) for head in self.heads]


class Concatenating(nn.Module):
    """Parts of a concatenation keep their own channels, the input's three none; a split takes them apart again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both, self.last = conv(3, 5), conv(3, 4), conv(12, 6), conv(6 + 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).relu(), self.b(x).relu()
        joined = torch.cat([a, x, b], dim=1)
        _, _, again = joined.split([a.shape[1], 3, b.shape[1]], dim=1)
        return self.last(torch.cat([self.both(joined).relu(), again * 2], dim=1))


class Residual(nn.Module):
    """A chain of residual blocks with a slope a channel, and one of a single slope."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(3, 8), conv(8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.PReLU(slopes), conv(8, 6), nn.PReLU(), conv(6, 8)) for slopes in (1, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for block in self.blocks:
            y = y + block(y)
        return x + self.last(y)


class BatchNormed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.BatchNorm2d(8), nn.SiLU(), conv(8, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 2))


class GroupNormed(nn.Module):
    """A unit is a whole group; the second norm's groups straddle the parts of a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a, self.b = conv(3, 10), nn.GroupNorm(5, 10), conv(10, 6)
        self.norm, self.last = nn.GroupNorm(4, 16), conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.norm_a(self.a(x)))
        return self.last(F.silu(self.norm(torch.cat([a, self.b(a)], dim=1))))


class Depthwise(nn.Sequential):
    """Pointwise, depthwise with two outputs a channel, pointwise."""

    def __init__(self) -> None:
        super().__init__(conv(3, 6, 1), nn.ReLU(), conv(6, 12, 3, groups=6), nn.ReLU(), conv(12, 4, 1))


class Transposed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.ReLU(), nn.ConvTranspose2d(8, 5, 2, stride=2), nn.ReLU(), conv(5, 3))


class Shuffled(nn.Sequential):
    """Four channels become one of twice the size."""

    def __init__(self) -> None:
        super().__init__(conv(3, 8), nn.ReLU(), conv(8, 20), nn.PixelShuffle(2), nn.ReLU(), conv(5, 3))


class Flattened(nn.Sequential):
    """After the flattening, a channel is 16 columns of the linear layer."""

    def __init__(self) -> None:
        super().__init__(conv(3, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 10), nn.GELU())
        self.append(nn.Linear(10, 4))


class Volume(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 2, 1))


class Sampling(nn.Module):
    """Features sampled twice by maps from heads; the heads' outputs are steering, not channels to cut."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.features = conv(3, 8), conv(8, 5, 1)
        self.heads = nn.ModuleList(nn.Sequential(conv(8, 6), nn.ReLU(), conv(6, 9)) for _ in range(6))
        self.sample, self.last = AdaCoF(3), conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        code = F.relu(self.encode(x))
        maps = [head(code) for head in self.heads]
        planes = torch.cat([x, self.features(code)], dim=1)
        first = self.sample(planes, maps[0].softmax(1), maps[1], maps[2]).split([3, planes.shape[1] - 3], dim=1)
        second = self.sample(planes, maps[3].softmax(1), maps[4], maps[5]).split([3, planes.shape[1] - 3], dim=1)
        return self.last(torch.cat([first[0], second[0], first[1], second[1]], dim=1))


# One way of being coupled each: the class, the sizes of its inputs, how many groups there are.
KINDS = {**attention_nets.KINDS, **shaped_nets.KINDS}
IMAGES = [(2, 3, 12, 16), (1, 3, 8, 8)]
NETS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], int]] = {
    "chain": (Chain, IMAGES, 2),
    "additive skip": (Additive, IMAGES, 2),
    "concatenation": (Concatenating, IMAGES, 3),
    "residual": (Residual, IMAGES, 4),
    "batch norm": (BatchNormed, IMAGES, 2),
    "group norm": (GroupNormed, IMAGES, 3),
    "depthwise": (Depthwise, IMAGES, 1),
    "transposed": (Transposed, IMAGES, 2),
    "pixel shuffle": (Shuffled, IMAGES, 2),
    "flatten": (Flattened, IMAGES, 2),
    "3-D": (Volume, [(1, 3, 4, 6, 6), (2, 3, 3, 5, 4)], 1),
    "sampling": (Sampling, IMAGES, 8),
    **{kind: (net, IMAGES, len(groups)) for kind, (net, groups) in KINDS.items()},
}


def make(kind: str, seed: int = 0) -> tuple[nn.Module, list[tuple[Tensor]]]:
    """The net of a kind in float64, and inputs of two sizes."""
    torch.manual_seed(seed)
    net, sizes, _ = NETS[kind]
    return net().double().eval(), [(torch.rand(size, dtype=torch.float64),) for size in sizes]
