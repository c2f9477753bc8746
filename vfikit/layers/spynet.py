"""SPyNet, optical flow by a pyramid of small networks, each correcting the one before (arXiv:1611.00850).

Two images (N, 3, H, W) in [0, 1], any size, give the flow (N, 2, H, W) in pixels, channel 0 to the right, 1 downwards:
``second`` read at x + flow(x) looks like ``first`` at x.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..ops import warp

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB
Pyramid = list[Tensor]


class SPyNet(nn.Module):
    """``forward(first, second)``: flow in pixels. Level 0 is the coarsest, at 1/2**(levels - 1) of the size.

    ``widths`` are the channels between the 7x7 convolutions of a level. Sizes are resized to multiples of
    2**(levels - 1) and the flow back, in its length too.
    """

    def __init__(self, levels: int = 6, widths: Sequence[int] = (32, 64, 32, 16)) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(widths) for _ in range(levels))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
            got = f"first is {tuple(first.shape)}, second {tuple(second.shape)}"
            raise ValueError(f"SPyNet: {got}, expected two (N, 3, H, W) of one shape")
        flow = self.estimate(self.pyramid(first), self.pyramid(second))
        return self.resized(flow, (first.shape[2], first.shape[3]))

    def between(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Flows of a clip (B, T, 3, H, W), each frame's pyramid made once: forward and backward (B, T - 1, 2, H, W).

        forward[:, k] is from frame k to k + 1, backward[:, k] from k + 1 to k.
        """
        items, length, _, *size = frames.shape
        pyramid = [level.unflatten(0, (items, length)) for level in self.pyramid(frames.flatten(0, 1))]
        earlier, later = ([level[:, part] for level in pyramid] for part in (slice(-1), slice(1, None)))
        both = [
            [torch.cat(pair).flatten(0, 1) for pair in zip(*sides)] for sides in ((earlier, later), (later, earlier))
        ]
        flow = self.resized(self.estimate(*both), (size[0], size[1]))
        forward, backward = flow.unflatten(0, (2, items, length - 1))
        return forward, backward

    def pyramid(self, images: Tensor) -> Pyramid:
        """Of (N, 3, H, W) in [0, 1], normalised and resized: from the coarsest to the finest."""
        multiple = 2 ** (len(self.levels) - 1)
        size = [-(-side // multiple) * multiple for side in images.shape[2:]]
        images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        pyramid = [(images - mean) / deviation]
        for _ in range(len(self.levels) - 1):
            pyramid.append(functional.avg_pool2d(pyramid[-1], 2))
        return pyramid[::-1]

    def estimate(self, first: Pyramid, second: Pyramid) -> Tensor:
        """The flow (N, 2, H', W') between two pyramids, at the size of the finest level."""
        exact = torch.promote_types(first[0].dtype, torch.float32)  # pixels need more than half precision
        flow = torch.zeros_like(first[0][:, :2], dtype=exact)
        for level, near, far in zip(self.levels, first, second, strict=True):
            if near is not first[0]:
                size = (near.shape[2], near.shape[3])
                flow = 2 * functional.interpolate(flow, size, mode="bilinear", align_corners=True)
            warped = warp(far, flow, padding_mode="border", align_corners=True)
            flow = flow + level(torch.cat([near, warped, flow.to(near.dtype)], dim=1))
        return flow

    @staticmethod
    def resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
        """A flow at another ``size`` (H, W), in its pixels."""
        scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]])
        return functional.interpolate(flow, size, mode="bilinear", align_corners=False) * scale[:, None, None]


def _level(widths: Sequence[int]) -> nn.Sequential:
    """From both images, the second warped, and the flow so far: what is missing to it."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((8, *widths), (*widths, 2)):
        layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def published_keys(levels: int = 6, convolutions: int = 5) -> list[tuple[str, str]]:
    """Pairs (published name, ours)."""
    return [
        (f"basic_module.{level}.basic_module.{i}.conv.{part}", f"levels.{level}.{2 * i}.{part}")
        for level in range(levels)
        for i in range(convolutions)
        for part in ("weight", "bias")
    ]
