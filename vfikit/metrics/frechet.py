"""Frechet distance of two sets of features (arXiv:1706.08500), and FID: that of Inception's features of images."""

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..layers.inception import InceptionV3


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """Between normal distributions fitted to features (N, D) and (M, D), at least two each: float64 scalar.

    Covariances have N - 1 below. The trace of the root of their product is the sum of the singular values of A B^T, A
    and B the centred features: exact where there are fewer features than dimensions, when matrix roots fail.
    """
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != a.shape[-1]:
            raise ValueError(
                f"frechet_distance: {name} is {tuple(features.shape)}, expected (N, D), N at least 2, one D"
            )
    apart = (a.double().mean(0) - b.double().mean(0)).square().sum()
    roots = [_root(features.double()) for features in (a, b)]
    spread = sum(root.square().sum() for root in roots)
    return apart + spread - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()


def _root(features: Tensor) -> Tensor:
    """R (at most D, D) with R^T R the covariance of (N, D)."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


class FID(nn.Module):
    """FID of the images that ``add`` has seen: ``compute()``. ``weights`` are those of ``InceptionV3``.

    Distances of few images (a thousand, say) are biased upwards: compare them at equal numbers only.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inception = InceptionV3()
        own = self.inception.state_dict()
        wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
        if wrong:
            raise ValueError(f"Inception weights lack {', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}")
        self.inception.load_state_dict({name: weights.get(name, own[name]) for name in own})
        self.requires_grad_(False).eval()
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._seen: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes in images (N, 3, H, W) in [0, 1], of any size, and those that they should be."""
        for seen, images in zip(self._seen, (prediction, target), strict=True):
            images = functional.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
            seen.append(self.inception(2 * images - 1).cpu())

    def compute(self) -> float:
        """The distance of all predictions to all targets."""
        predictions, targets = (torch.cat(features) for features in self._seen)
        return float(frechet_distance(predictions, targets))
