"""FloLPIPS (arXiv:2207.08119): LPIPS whose distances count most where the motion went wrong."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..layers.pwcnet import PWCNet, to_pixels
from .lpips import LPIPS
from .pixels import check_frames


class FloLPIPS(nn.Module):
    """From an LPIPS with AlexNet and a PWC-Net that warps as the metric's published form (``PWCNet(stretched=True)``).

    All frames are (N, 3, H, W) in [0, 1]. Where both flows are equal everywhere all places count alike: the score is
    then the sum of the layers' means, 0 for equal frames (the published form divides zero by zero there).
    """

    def __init__(self, lpips: LPIPS, flow: PWCNet) -> None:
        super().__init__()
        self.lpips, self.flow = lpips, flow

    @torch.no_grad()
    def forward(self, output: Tensor, target: Tensor, previous: Tensor, following: Tensor) -> Tensor:
        """The score of interpolated frames between ``previous`` and ``following``, mean of both directions: (N,)."""
        check_frames("flolpips", output, target)
        pyramids = [self.flow.pyramid(x) for x in (target, output, following, previous)]
        scores = []
        for to in pyramids[2:]:
            flows = [to_pixels(self.flow.raw_flow(x, to), target.shape[2:]) for x in pyramids[:2]]
            scores.append(self.weighted(target, output, flows[0] - flows[1]))
        return (scores[0] + scores[1]) / 2

    @torch.no_grad()
    def video(self, output: Tensor, target: Tensor) -> Tensor:
        """Scores of two videos (T, 3, H, W), one for each pair of neighbouring frames: (T - 1,)."""
        check_frames("flolpips", output, target)
        theirs, ours = (self.flow.pyramid(x) for x in (target, output))
        steps = [
            to_pixels(self.flow.raw_flow([x[:-1] for x in p], [x[1:] for x in p]), target.shape[2:])
            for p in (theirs, ours)
        ]
        return self.weighted(target[:-1], output[:-1], steps[0] - steps[1])

    def weighted(self, target: Tensor, output: Tensor, flow_difference: Tensor) -> Tensor:
        """LPIPS's distances weighted by the length of ``flow_difference`` (N, 2, H, W) in pixels: (N,)."""
        return torch.stack(self.terms(target, output, flow_difference)).sum(0)

    def terms(self, target: Tensor, output: Tensor, flow_difference: Tensor) -> list[Tensor]:
        """The summands of ``weighted``, one a layer of AlexNet."""
        found = []
        for distance in self.lpips.maps(target, output):  # (N, h, w)
            flow = functional.interpolate(flow_difference, distance.shape[1:], mode="bilinear", align_corners=False)
            weight = flow.square().sum(1).sqrt()  # resized first, its length after
            total = weight.sum((1, 2), keepdim=True)
            weight = torch.where(total > 0, weight / total, 1 / distance[0].numel())
            found.append((distance * weight).sum((1, 2)))
        return found
