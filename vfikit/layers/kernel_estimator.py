"""The U-Net that predicts from two frames where to sample them, per pixel (arXiv:1907.10244, figure 2)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..ops import Conv3x3

Widths = Sequence[int]


class KernelEstimator(nn.Module):
    """Encoder, decoder with additive skips, and one head a map.

    ``forward(pair (N, in_channels, H, W))`` returns ``{head: (N, outputs, H, W)}``; H and W are multiples of
    ``2 ** len(encoder)``. ``encoder`` and ``decoder`` hold the output widths of each stage's convolutions, the decoder
    from the bottom up and one stage shorter (the first encoder stage has no skip). ``heads`` maps a head's name to
    (hidden widths, outputs, activation), the activation being "softmax" over the outputs, "sigmoid" or "none".

    Hidden layers start with He's variance (arXiv:1502.01852). PyTorch's default, which the published training used,
    loses the input over some thirty layers, and training then rests long at the average of the two frames.
    """

    def __init__(
        self,
        in_channels: int,
        encoder: Sequence[Widths],
        decoder: Sequence[Widths],
        heads: Mapping[str, tuple[Widths, int, str]],
    ):
        super().__init__()
        if len(decoder) != len(encoder) - 1:
            raise ValueError(f"KernelEstimator: {len(decoder)} decoder stages, expected {len(encoder) - 1}")
        skips = [stage[-1] for stage in encoder]
        inputs = [in_channels, *skips[:-1]]
        self.encoder = nn.ModuleList(convolutions(n, stage) for n, stage in zip(inputs, encoder))
        self.pool = nn.AvgPool2d(2)
        inputs = [skips[-1], *skips[:1:-1]]
        self.decoder = nn.ModuleList(convolutions(n, stage) for n, stage in zip(inputs, decoder))
        self.upsample = nn.ModuleList(
            nn.Sequential(upsample(), Conv3x3(stage[-1], skip), nn.ReLU()) for stage, skip in zip(decoder, skips[:0:-1])
        )
        self.heads = nn.ModuleDict({name: head(skips[1], *spec) for name, spec in heads.items()})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation of all convolutions but each head's last."""
        last = {final_convolution(head) for head in self.heads.values()}
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module not in last:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, pair: Tensor) -> dict[str, Tensor]:
        return self.predict(self.encode(pair))

    def encode(self, pair: Tensor) -> list[Tensor]:
        """The output of every encoder stage, finest first: 1, 1/2, 1/4, ... of the input's size."""
        if pair.device.type == "cpu":  # oneDNN's convolutions are about twice as fast in this layout
            pair = pair.contiguous(memory_format=torch.channels_last)
        features = [self.encoder[0](pair)]
        for stage in self.encoder[1:]:
            features.append(stage(self.pool(features[-1])))
        return features

    def predict(self, features: list[Tensor]) -> dict[str, Tensor]:
        """The maps, from the output of ``encode``."""
        x = self.pool(features[-1])
        for stage, up, skip in zip(self.decoder, self.upsample, reversed(features)):
            x = up(stage(x)) + skip
        return {name: head(x) for name, head in self.heads.items()}


def convolutions(in_channels: int, widths: Widths) -> nn.Sequential:
    """3x3 convolutions of the given output widths, each followed by ReLU."""
    layers: list[nn.Module] = []
    for n, width in pairwise((in_channels, *widths)):
        layers += [Conv3x3(n, width), nn.ReLU()]
    return nn.Sequential(*layers)


def final_convolution(head: nn.Module) -> nn.Module:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]


def upsample() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


class TapSoftmax(nn.Module):
    """Softmax over the channels. Where they lie side by side it stays so, which ``nn.Softmax`` would copy to planes."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2)
        return x.softmax(1)


def head(in_channels: int, widths: Widths, outputs: int, activation: str) -> nn.Sequential:
    last: dict[str, list[nn.Module]] = {"softmax": [TapSoftmax()], "sigmoid": [nn.Sigmoid()], "none": []}
    final = Conv3x3(widths[-1], outputs)
    return nn.Sequential(*convolutions(in_channels, widths), upsample(), final, *last[activation])
