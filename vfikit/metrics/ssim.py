"""Structural similarity (Wang et al., 2004) in the conventions under which figures are published."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .pixels import check_frames

K1, K2 = 0.01, 0.03


def ssim(prediction: Tensor, target: Tensor, window: str = "uniform") -> Tensor:
    """SSIM of frames (N, C, H, W) in [0, 1], one value an image: float64 (N,), differentiable.

    ``"uniform"``: 7x7 box and sample covariance (49/48), scikit-image's default, which CDFI reports.
    ``"gaussian"``: 11x11 Gaussian of sigma 1.5 and population covariance, as in the paper.
    ``"wide"``: 65x65 box and sample covariance (4225/4224), which video inpainting reports.
    These average the map where the whole window lies in the frame, per channel, then over channels. Raises ValueError
    for frames smaller than the window.
    ``"volume"``: channels as a third axis, 11x11x11 Gaussian, borders repeated, of any size: LDMVFI's figures.
    """
    check_frames("ssim", prediction, target)
    if window not in ("uniform", "wide", "gaussian", "volume"):
        raise ValueError(f"ssim: window is {window!r}, expected 'uniform', 'wide', 'gaussian' or 'volume'")
    if window == "volume":
        return _volume(prediction.double(), target.double())
    taps = _taps(window).to(prediction.device)
    side = len(taps)
    correction = 1.0 if window == "gaussian" else side**2 / (side**2 - 1)
    if min(target.shape[2:]) < side:
        raise ValueError(f"ssim: frames are {tuple(target.shape[2:])}, expected at least {side} pixels a side")
    x, y = prediction.double(), target.double()  # float32 would invent variance in flat regions
    mean_x, mean_y, xx, yy, xy = (_filter(t, taps) for t in (x, y, x * x, y * y, x * y))
    var_x, var_y = correction * (xx - mean_x**2), correction * (yy - mean_y**2)
    covariance = correction * (xy - mean_x * mean_y)
    return _similarity(mean_x, mean_y, var_x, var_y, covariance).mean((1, 2, 3))


def _similarity(mean_x: Tensor, mean_y: Tensor, var_x: Tensor, var_y: Tensor, covariance: Tensor) -> Tensor:
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    return luminance * (2 * covariance + K2**2) / (var_x + var_y + K2**2)


def _volume(x: Tensor, y: Tensor) -> Tensor:
    side = min(11, *x.shape[2:])
    taps = torch.exp(-0.5 * ((torch.arange(side, dtype=x.dtype, device=x.device) - side // 2) / 1.5) ** 2)
    taps = taps / taps.sum()

    def smooth(z: Tensor) -> Tensor:
        z = F.pad(z[:, None], [5] * 6, mode="replicate")
        for shape in ((1, 1, -1, 1, 1), (1, 1, 1, -1, 1), (1, 1, 1, 1, -1)):
            z = F.conv3d(z, taps.view(shape))
        return z

    mean_x, mean_y, xx, yy, xy = (smooth(z) for z in (x, y, x * x, y * y, x * y))
    return _similarity(mean_x, mean_y, xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y).mean((1, 2, 3, 4))


def _taps(window: str) -> Tensor:
    if window != "gaussian":
        side = 7 if window == "uniform" else 65
        return torch.full((side,), 1 / side, dtype=torch.float64)
    taps = torch.exp(-0.5 * (torch.arange(-5.0, 6.0, dtype=torch.float64) / 1.5) ** 2)
    return taps / taps.sum()


def _filter(x: Tensor, taps: Tensor) -> Tensor:
    """Separable, valid positions only."""
    channels = x.shape[1]
    column = taps.expand(channels, 1, -1)
    return F.conv2d(F.conv2d(x, column[:, :, None], groups=channels), column[..., None], groups=channels)
