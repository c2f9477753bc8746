"""How steady videos are: the warping error (arXiv:1808.00449) and flicker."""

import torch
from torch import Tensor


def warping_error(frames: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """E_warp of one video (T, 3, H, W) in [0, 1]: float64 scalar; tables quote it times 100.

    ``forward`` (T-1, 2, H, W) brings frame t to t+1 in pixels (dx, dy), ``backward`` t+1 to t; the published figures
    take both from FlowNet2 on the original frames. Of each pair, frame t+1 is brought back to t, and the squared
    difference is averaged over what is not occluded; then over pairs.
    """
    _check("warping_error", frames, forward, backward)
    seen = ~occlusion(forward, backward)
    brought = _read(frames[1:].double(), forward.double())
    error = (brought - frames[:-1].double()).square().mean(1)
    return ((error * seen).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)).mean()


def occlusion(forward: Tensor, backward: Tensor) -> Tensor:
    """Pixels of frame t that frame t+1 does not show, or on a motion's edge: bool (T-1, H, W), by flows as above."""
    forward, backward = forward.double(), backward.double()
    back = _read(backward, forward)
    length, back_length = forward.square().sum(1), back.square().sum(1)
    apart = (back + forward).square().sum(1) > 0.01 * (length + back_length) + 0.5
    down, right = torch.zeros_like(forward), torch.zeros_like(forward)
    down[:, :, :-1], right[..., :-1] = forward.diff(dim=2), forward.diff(dim=3)
    edge = (down.square() + right.square()).sum(1) > 0.01 * length + 0.002
    return apart | edge


def flicker(made: Tensor, real: Tensor) -> Tensor:
    """How far one video's changes from frame to frame are from another's, both (T, 3, H, W) in [0, 1]: float64 scalar.

    The mean absolute difference of the two differences; 0 for a video that is off by the same picture all the time.
    """
    if made.ndim != 4 or made.shape != real.shape or len(made) < 2:
        shapes = f"made is {tuple(made.shape)}, real {tuple(real.shape)}"
        raise ValueError(f"flicker: {shapes}, expected one shape (T, 3, H, W), T at least 2")
    return (made.double().diff(dim=0) - real.double().diff(dim=0)).abs().mean()


def _check(who: str, frames: Tensor, *flows: Tensor) -> None:
    expected = (frames.shape[0] - 1, 2, *frames.shape[2:])
    for flow in flows:
        if frames.ndim != 4 or tuple(flow.shape) != expected or not len(flow):
            shapes = f"frames are {tuple(frames.shape)}, a flow {tuple(flow.shape)}"
            raise ValueError(f"{who}: {shapes}, expected (T, C, H, W) and (T-1, 2, H, W), T at least 2")


def _read(images: Tensor, flow: Tensor) -> Tensor:
    """Bilinear at pixel + flow, as published: neighbours are clamped to the image one by one, fractions are not."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    left, top = x.floor(), y.floor()
    flat = images.flatten(2)
    result = torch.zeros_like(images)
    for row, row_share in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share in ((left, 1 - (x - left)), (left + 1, x - left)):
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index = index.long().flatten(1)[:, None].expand(-1, images.shape[1], -1)
            result += flat.gather(2, index).view_as(images) * (row_share * share)[:, None]
    return result
