"""Errors of single pixels: PSNR in the published conventions, and Middlebury's interpolation error."""

import torch
from torch import Tensor


def quantise(frame: Tensor) -> Tensor:
    """What a frame in [0, 1] becomes in an 8-bit file: clamp(255 x + 0.5, 0, 255) truncated, divided by 255."""
    return (frame.to(torch.promote_types(frame.dtype, torch.float32)) * 255 + 0.5).clamp(0, 255).floor() / 255


def psnr(prediction: Tensor, target: Tensor, epsilon: float = 0.0) -> Tensor:
    """Peak signal-to-noise ratio in dB of frames (N, C, H, W) in [0, 1], one value an image: float64 (N,).

    One mean squared error over all pixels and channels; identical frames give infinity. CDFI measures the frame
    after ``quantise``, AdaCoF the raw, unclamped one: pass what you mean. LDMVFI adds ``epsilon`` 1e-8 to the error,
    a ceiling of 80 dB.
    """
    check_frames("psnr", prediction, target)
    return -10 * ((prediction.double() - target.double()).square().mean((1, 2, 3)) + epsilon).log10()


def check_frames(who: str, prediction: Tensor, target: Tensor) -> None:
    """Raises ValueError unless both are (N, C, H, W) of one shape."""
    if prediction.ndim != 4 or prediction.shape != target.shape:
        shapes = f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"{who}: {shapes}, expected one shape (N, C, H, W)")


def interpolation_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Middlebury's IE (Baker et al., 2011), in levels of 0..255, one value an image: float64 (N,).

    The root of the mean over pixels of the squared length of the RGB difference: sqrt(3) times the error per channel.
    """
    check_frames("interpolation_error", prediction, target)
    return _levels(prediction, target).square().sum(1).mean((1, 2)).sqrt()


def normalized_interpolation_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Middlebury's NE: as IE, each channel's squared error divided by its squared gradient in the target, plus 1.

    Gradients are central differences in levels a pixel, one-sided at the borders. float64 (N,).
    """
    check_frames("normalized_interpolation_error", prediction, target)
    down, right = torch.gradient(255 * target.double(), dim=(2, 3))
    relative = _levels(prediction, target).square() / (down.square() + right.square() + 1)
    return relative.sum(1).mean((1, 2)).sqrt()


def _levels(prediction: Tensor, target: Tensor) -> Tensor:
    return 255 * (prediction.double() - target.double())
