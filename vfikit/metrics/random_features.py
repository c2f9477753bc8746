"""Distances of sets of videos by a network of fixed random weights: no weights to download, and no published score.

Random convolutions tell what moves and what is sharp from what does not and is not, and so serve to watch a training;
their figures compare with nothing else, hence the name ``frechet_random``.
"""

import math

import torch
from torch import Tensor, nn

from .frechet import frechet_distance


class RandomFeatures(nn.Module):
    """Videos (N, T, 3, H, W) in [0, 1], at least 4 frames of 16 x 16 -> (N, features), the same in every process.

    Three 3-D convolutions of fixed weights with stride, over frames and their changes; the mean and the deviation over
    places of every level's maps.
    """

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        widths = [6, width, 2 * width, 4 * width]
        strides = [(1, 2, 2), (1, 2, 2), (2, 2, 2)]
        self.levels = nn.ModuleList()
        for wide, narrow, stride in zip(widths, widths[1:], strides):
            level = nn.Conv3d(wide, narrow, 3, stride, padding=1, bias=False)
            level.weight.data.normal_(0, math.sqrt(2 / level.weight[0].numel()), generator=generator)
            self.levels.append(level)
        self.requires_grad_(False)

    def forward(self, videos: Tensor) -> Tensor:
        x = (2 * videos - 1).transpose(1, 2)
        changes = torch.diff(x, dim=2, prepend=x[:, :, :1])
        x = torch.cat([x, 4 * changes], dim=1)
        found = []
        for level in self.levels:
            x = level(x).relu()
            found += [x.mean((2, 3, 4)), x.std((2, 3, 4))]
        return torch.cat(found, dim=1)


@torch.no_grad()
def frechet_random(a: Tensor, b: Tensor) -> Tensor:
    """Fréchet distance of two sets of videos, (N, T, 3, H, W) in [0, 1] with N at least 2, by ``RandomFeatures``."""
    net = RandomFeatures().to(a.device)
    features = [torch.cat([net(video[None].float()) for video in videos]) for videos in (a, b)]
    return frechet_distance(features[0], features[1])
