"""What a video inpainting model must beat: holes filled with known pixels of other frames, brought by flows alone."""

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..inference import pad_to_multiple
from ..models.e2fgvi import E2FGVINet
from ..ops import warp

CONSISTENT = 1.0  # pixels that a flow and the one back may differ by


def fill_along_flows(frames: Tensor, masks: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Fills clips (N, T, 3, H, W) where ``masks`` (N, T, 1, H, W) are 1, without a network.

    Flows (N, T - 1, 2, H, W) are in pixels (dx, dy), ``forward`` from frame k to k + 1, ``backward`` from k + 1 to k,
    in the holes too. Each hole's pixel is looked up along them in the nearest earlier and the nearest later frame that
    show it, the nearer counts more. What no frame shows is spread into the hole from its rim.
    """
    known = 1 - masks
    before = _carried(frames, known, forward, backward)
    after = [x.flip(1) for x in _carried(*(x.flip(1) for x in (frames, known, backward, forward)))]
    (earlier, near), (later, far) = before, after  # colours, and one over the number of steps; 0 where there are none
    shares = near + far
    brought = (earlier * near + later * far) / shares.clamp(min=1e-6)
    filled = torch.where(known > 0, frames, brought)
    seen = torch.maximum(known, (shares > 0).to(known))
    return spread(filled.flatten(0, 1), seen.flatten(0, 1)).view_as(frames)


def _carried(frames: Tensor, known: Tensor, ahead: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """What earlier frames show of each: colours (N, T, 3, H, W), and nearness (N, T, 1, H, W), 1 / steps or 0."""
    colours, steps = frames[:, 0], torch.where(known[:, 0] > 0, 0.0, torch.inf)
    found = [(colours, torch.zeros_like(steps))]
    for k in range(1, frames.shape[1]):
        flow, other = back[:, k - 1], ahead[:, k - 1]
        apart = (flow + warp(other, flow, padding_mode="border")).norm(dim=1, keepdim=True)
        seen = (warp((steps < torch.inf).to(frames), flow) > 0.999) & (apart < CONSISTENT)
        steps = torch.where(seen, 1 + warp(steps.nan_to_num(posinf=0.0), flow), torch.inf)
        colours = warp(colours, flow, padding_mode="border")
        found.append((colours, 1 / steps))
        colours = torch.where(known[:, k] > 0, frames[:, k], colours)
        steps = torch.where(known[:, k] > 0, 0.0, steps)
    shown, nearness = zip(*found)
    return torch.stack(shown, dim=1), torch.stack(nearness, dim=1)


def spread(x: Tensor, known: Tensor) -> Tensor:
    """Maps (N, C, H, W), where ``known`` (N, 1, H, W) is 0 filled from ever coarser means of what is known around."""
    if bool(known.all()) or x.shape[2] == x.shape[3] == 1:
        return x
    share = functional.avg_pool2d(known, 2, ceil_mode=True)
    mean = functional.avg_pool2d(x * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = spread(mean, (share > 0).to(known))
    wide = functional.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(known > 0, x, wide)


def found_flows(net: E2FGVINet, frames: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Flows (N, T - 1, 2, H, W) as ``net`` finds them on a clip in [0, 1] with holes; in these, spread from the rim."""
    height, width = frames.shape[3:]
    seen = pad_to_multiple(((2 * frames - 1) * (1 - masks)).flatten(0, 1), 4).unflatten(0, frames.shape[:2])
    both = [flow.to(frames) for flow in net.flows(seen.to(next(net.parameters())))]
    holes = torch.maximum(masks[:, :-1], masks[:, 1:]).flatten(0, 1)
    spreads = []
    for flow in both:
        large = functional.interpolate(4 * flow.flatten(0, 1), scale_factor=4, mode="bilinear", align_corners=False)
        spreads.append(spread(large[..., :height, :width], 1 - holes).unflatten(0, flow.shape[:2]))
    return spreads[0], spreads[1]


def fill_by_network_flows(net: E2FGVINet, frames: Tensor, masks: Tensor) -> Tensor:
    """``fill_along_flows`` with ``found_flows``."""
    return fill_along_flows(frames, masks, *found_flows(net, frames, masks))


def keep_still(frames: Tensor, masks: Tensor) -> Tensor:
    """``fill_along_flows`` as if nothing moved."""
    still = frames.new_zeros(frames.shape[0], frames.shape[1] - 1, 2, *frames.shape[3:])
    return fill_along_flows(frames, masks, still, still)
