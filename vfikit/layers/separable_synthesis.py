"""Two frames sampled by predicted deformable separable kernels, and added: a decoder's last step (arXiv:2303.09508)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops import Conv3x3, DSepConv

OFFSETS = ("alpha1", "alpha2", "beta1", "beta2")  # alpha moves vertically, beta horizontally
KERNELS = ("vertical1", "vertical2", "horizontal1", "horizontal2")


class Synthesis(NamedTuple):
    """The frame and what it is the sum of, (N, C, H, W) each, and the maps that sampled it."""

    frame: Tensor
    sampled0: Tensor  # frame0 under ``mask``
    sampled1: Tensor  # frame1 under 1 - ``mask``
    residual: Tensor
    maps: dict[str, Tensor]


class SeparableSynthesis(nn.Module):
    """``forward(features (N, channels, H, W), frame0, frame1)``, frames (N, C, H, W) of the same size -> ``Synthesis``.

        frame = dsepconv(frame0; set 1, mask) + dsepconv(frame1; set 2, 1 - mask) + residual

    Ten heads predict, at full resolution, offsets and kernels of ``taps`` x ``taps`` for both frames, the mask (one
    number a tap, in (0, 1)) and the residual. At the start the frame is the average of the two: heads end near zero,
    and the kernels' biases pick the tap that falls on the pixel itself.
    """

    def __init__(
        self, channels: int, taps: int = 5, frame_channels: int = 3, hidden: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__()
        outputs = dict.fromkeys(OFFSETS, taps**2) | dict.fromkeys(KERNELS, taps)
        outputs |= {"mask": taps**2, "residual": frame_channels}
        self.taps = taps
        self.heads = nn.ModuleDict({name: map_head(channels, hidden, n) for name, n in outputs.items()})
        self.sample = DSepConv(taps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of hidden layers; the last ones small, so that sampling starts at the average."""
        for name, head in self.heads.items():
            layers = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)]
            for layer in layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layers[-1].weight.data.mul_(0.01)
            if name in KERNELS:
                # the grid starts at -(taps - 1) // 2 + 1 in a frame padded by taps // 2
                layers[-1].bias.data[self.taps // 2 + (self.taps - 1) // 2 - 1] = 1  # type: ignore[union-attr]

    def forward(self, features: Tensor, frame0: Tensor, frame1: Tensor) -> Synthesis:
        features = features.contiguous()  # planes, as which the maps are sampled
        maps = {name: head(features) for name, head in self.heads.items()}
        maps["mask"] = maps["mask"].sigmoid()
        sampled0, sampled1 = self.sampled(maps, frame0, frame1, maps["mask"], 1 - maps["mask"])
        return Synthesis(sampled0 + sampled1 + maps["residual"], sampled0, sampled1, maps["residual"], maps)

    def warped(self, maps: dict[str, Tensor], frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor]:
        """Both frames sampled without the mask: each is a guess of the whole frame, which training may ask it to be."""
        every = torch.ones_like(maps["mask"])
        return self.sampled(maps, frame0, frame1, every, every)

    def sampled(
        self, maps: dict[str, Tensor], frame0: Tensor, frame1: Tensor, mask0: Tensor, mask1: Tensor
    ) -> tuple[Tensor, Tensor]:
        sets = ([maps[f"{name}{i}"] for name in ("vertical", "horizontal", "alpha", "beta")] for i in (1, 2))
        return self.sample(frame0, *next(sets), mask0), self.sample(frame1, *next(sets), mask1)


def map_head(channels: int, hidden: tuple[int, int], outputs: int) -> nn.Sequential:
    """Four 3x3 convolutions with ReLU between: both ``hidden`` widths, ``outputs``, ``outputs``."""
    widths = (*hidden, outputs, outputs)
    layers: list[nn.Module] = []
    for i, (wide, width) in enumerate(zip((channels, *widths), widths)):
        layers += [nn.ReLU()] * (i > 0) + [Conv3x3(wide, width)]
    return nn.Sequential(*layers)
