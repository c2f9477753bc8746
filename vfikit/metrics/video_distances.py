"""Distances of two sets of videos by I3D's features: FVD, KVD (arXiv:1812.01717, as LVDM measures), VFID."""

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..layers.i3d import I3D
from .frechet import frechet_distance

BATCH = 32  # made videos a batch of LVDM's evaluation, which drops what fills none


def published_frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """LVDM's, of features (N, D) and (M, D), scalar of their type: ``frechet_distance`` but for its matrix roots.

    They leave singular values below 1e-10 as they are, and in float32, as published, hold three to five digits.
    """
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    root = published_root(covariance_a)
    cross = published_root(root @ covariance_b @ root).trace()
    return (a.mean(0) - b.mean(0)).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross


def published_root(matrix: Tensor) -> Tensor:
    """The root of a symmetric matrix, by its singular values."""
    u, values, v = torch.linalg.svd(matrix)
    return u @ torch.where(values < 1e-10, values, values.sqrt()).diag() @ v


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    """KVD of features (N, D) and (M, D): the unbiased squared MMD with the kernel (x y / D + 1)^3, float64 scalar."""
    a, b = a.double(), b.double()
    within = sum((_kernel(x, x).sum() - _kernel(x, x).diag().sum()) / (len(x) * (len(x) - 1)) for x in (a, b))
    return within - 2 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


class VideoDistance(nn.Module):
    """FVD and KVD of the videos that ``add`` has seen: ``compute()`` returns {"fvd", "kvd"}.

    ``weights`` are I3D's of Kinetics-400 (RGB). ``published``: LVDM's figures, with norms of epsilon 1e-5, its own
    matrix roots, colours truncated to bytes, and of the made videos only whole batches of 32 (fewer are all taken);
    otherwise norms as trained (1e-3), and exact. ``add_real`` takes in further runs of other real videos; the figures
    are then means over runs, beside their deviations "fvd_std" and "kvd_std". Distances of few videos are biased
    upwards; FVD is quoted of 2048, in 16 frames, as a mean over 10 runs.
    """

    def __init__(self, weights: Mapping[str, Tensor], published: bool = True) -> None:
        super().__init__()
        self.published = published
        self.i3d = load_i3d(weights, 1e-5 if published else 1e-3)
        self.reset()

    def reset(self) -> None:
        """Forgets all videos."""
        self._made: list[Tensor] = []
        self._runs: list[list[Tensor]] = [[]]

    @torch.no_grad()
    def features(self, videos: Tensor) -> Tensor:
        """I3D's logits (N, 400) of videos (N, T, 3, H, W) in [0, 1], of any size."""
        return self.i3d(prepared(truncated(videos) if self.published else videos)).cpu()

    def add(self, made: Tensor, real: Tensor) -> None:
        """Takes in videos (N, T, 3, H, W) in [0, 1], of any size; neither number need be the other's."""
        self._made.append(self.features(made))
        self._runs[0].append(self.features(real))

    def add_real(self, real: Tensor, run: int) -> None:
        """Takes in real videos of a run, 0 being that of ``add``."""
        self._runs += [[] for _ in range(run + 1 - len(self._runs))]
        self._runs[run].append(self.features(real))

    @property
    def made(self) -> Tensor:
        """Features of the made videos that count."""
        made = torch.cat(self._made)
        return made[: len(made) - len(made) % BATCH or len(made)] if self.published else made

    def compute(self) -> dict[str, float]:
        """The distances of all made videos to all real ones."""
        frechet = published_frechet_distance if self.published else frechet_distance
        runs = [torch.cat(features) for features in self._runs]
        found = {"fvd": torch.stack([frechet(self.made, real).double() for real in runs])}
        found["kvd"] = torch.stack([kernel_distance(self.made, real) for real in runs])
        means = {name: float(values.mean()) for name, values in found.items()}
        if len(runs) == 1:
            return means
        return means | {f"{name}_std": float(values.std(correction=0)) for name, values in found.items()}


def truncated(videos: Tensor) -> Tensor:
    """Videos in [0, 1] with the colours that LVDM keeps: in [-1, 1], to bytes, what is left over cut off."""
    return ((2 * videos - 1 + 1) * 127.5).clamp(0, 255).trunc() / 255


def prepared(videos: Tensor) -> Tensor:
    """(N, T, 3, H, W) in [0, 1] as I3D was trained to see them: (N, 3, T, 224, 224) in [-1, 1], not anti-aliased."""
    small = functional.interpolate(videos.flatten(0, 1), (224, 224), mode="bilinear", align_corners=False)
    return 2 * small.unflatten(0, videos.shape[:2]).transpose(1, 2) - 1


class VFID(nn.Module):
    """Frechet distance of the mean features of whole videos that ``add`` has seen, as video inpainting quotes it.

    ``published``: videos in [0, 1], and norms that use the statistics of the one video at hand (the published module is
    never put into evaluation mode); otherwise in [-1, 1] and with the trained statistics.
    """

    def __init__(self, weights: Mapping[str, Tensor], published: bool = True) -> None:
        super().__init__()
        self.published = published
        self.i3d = load_i3d(weights, 1e-3)
        if published:
            for module in self.i3d.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.train()
                    module.momentum = 0.0  # the running statistics stay
        self.reset()

    def reset(self) -> None:
        """Forgets all videos."""
        self._seen: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def features(self, video: Tensor) -> Tensor:
        """One video (T, 3, H, W) in [0, 1] at its own size: (1024,)."""
        shown = (video if self.published else 2 * video - 1).transpose(0, 1)
        return self.i3d.features(shown[None]).mean((0, 2, 3, 4))

    def add(self, made: Tensor, real: Tensor) -> None:
        """Takes in one inpainted video (T, 3, H, W) in [0, 1] and what it should be."""
        for seen, video in zip(self._seen, (made, real), strict=True):
            seen.append(self.features(video).cpu())

    def compute(self) -> float:
        """The distance of all inpainted videos to all real ones; two at least."""
        made, real = (torch.stack(features) for features in self._seen)
        return float(frechet_distance(real, made))


def load_i3d(weights: Mapping[str, Tensor], epsilon: float) -> I3D:
    """A frozen I3D; raises ``ValueError`` naming what ``weights`` lack or have in another shape."""
    i3d = I3D(epsilon=epsilon)
    own = i3d.state_dict()
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(f"I3D weights lack {', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}")
    i3d.load_state_dict({name: weights.get(name, own[name]) for name in own})
    return i3d.requires_grad_(False).eval()
