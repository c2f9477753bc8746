"""SSIM against scikit-image, the published tool."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vfikit.metrics import ssim

OPTIONS = {
    "uniform": {},
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
}


def pair(n: int = 3, h: int = 23, w: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(n, 3, h, w, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 3, h, w, generator=generator, dtype=torch.float64)
    return target + torch.tensor([0.01, 0.1, 0.5])[:, None, None, None] * noise, target


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_is_scikit_images(window: str) -> None:
    prediction, target = pair()
    expected = [
        structural_similarity(t.numpy(), p.numpy(), channel_axis=0, data_range=1.0, **OPTIONS[window])
        for p, t in zip(prediction, target)
    ]
    np.testing.assert_allclose(ssim(prediction, target, window).numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(ssim(prediction.float(), target.float(), window).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_flat_frames_in_float32(window: str) -> None:
    """Where variances vanish, float32 must not invent any."""
    frame = torch.full((1, 3, 16, 16), 0.9)
    torch.testing.assert_close(ssim(frame, frame, window), torch.ones(1, dtype=torch.float64))
    close = float(ssim(frame, frame + 1e-3, window))
    assert close == pytest.approx(float(ssim(frame.double(), frame.double() + 1e-3, window)), abs=1e-6)


def test_differentiable() -> None:
    prediction, target = (x[:1] for x in pair(3, 9, 8))
    assert torch.autograd.gradcheck(ssim, (prediction.requires_grad_(), target))


def test_rejects() -> None:
    prediction, target = pair()
    with pytest.raises(ValueError, match="expected 'uniform', 'wide', 'gaussian' or 'volume'"):
        ssim(prediction, target, "box")
    with pytest.raises(ValueError, match="at least 11 pixels a side"):
        ssim(prediction[..., :10], target[..., :10], "gaussian")
    with pytest.raises(ValueError, match="expected one shape"):
        ssim(prediction, target[:, :1])
