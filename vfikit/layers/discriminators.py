"""Discriminators: networks that judge frames."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class ConvDiscriminator(nn.Module):
    """Convolutions with batch norm (unless ``norm`` is False), then two linear layers: (N, C, H, W) -> logits (N, 1).

    Widths stand for 3x3 convolutions, every second one of stride 2. The linear layers see ``grid`` x ``grid`` cells:
    frames of 2 ** (len(widths) // 2) * grid pixels a side fall on it exactly, others are pooled or repeated onto it,
    so that any crop works.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], grid: int, hidden: int, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (wide, width) in enumerate(zip((in_channels, *widths), widths)):
            layers.append(nn.Conv2d(wide, width, 3, stride=1 + i % 2, padding=1, bias=not norm))
            layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)] if norm else [nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.judge = nn.Sequential(nn.Linear(widths[-1] * grid * grid, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        # contiguous: torch 2.13's CPU batch_norm backward is wrong for some channels-last strides
        return self.judge(self.pool(self.features(x.contiguous())).flatten(1))


class PatchDiscriminator(nn.Module):
    """PatchGAN (arXiv:1611.07004): (N, C, H, W) -> logits (N, 1, H', W'), one for each overlapping patch.

    ``layers`` convolutions of stride 2 and two of stride 1, all 4x4; widths double up to eight times ``width``. Batch
    norm but at both ends.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        main: list[nn.Module] = [self._conv(in_channels, width, stride=2), nn.LeakyReLU(0.2)]
        for i, (wide, narrow) in enumerate(pairwise(widths), start=1):
            conv = self._conv(wide, narrow, stride=2 if i < layers else 1, bias=False)
            main += [conv, self._norm(narrow), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*main, self._conv(widths[-1], 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Convolutions from N(0, 0.02), norms from N(1, 0.02), as published GANs start."""
        for module in self.main:
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x.contiguous())

    def _conv(self, wide: int, narrow: int, stride: int = 1, bias: bool = True) -> nn.Module:
        return nn.Conv2d(wide, narrow, 4, stride=stride, padding=1, bias=bias)

    def _norm(self, width: int) -> nn.Module:
        return nn.BatchNorm2d(width)


class VideoPatchDiscriminator(PatchDiscriminator):
    """The same over patches of videos: (N, C, T, H, W) -> logits (N, 1, T, H', W').

    Convolutions see three frames, and stride in space alone; ``contiguous`` as above.
    """

    def _conv(self, wide: int, narrow: int, stride: int = 1, bias: bool = True) -> nn.Module:
        return nn.Conv3d(wide, narrow, (3, 4, 4), stride=(1, stride, stride), padding=1, bias=bias)

    def _norm(self, width: int) -> nn.Module:
        return nn.BatchNorm3d(width)
