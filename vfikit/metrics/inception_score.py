"""Inception score of videos (arXiv:1611.06624): how sure C3D is of each video's class, and how many classes it sees."""

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..layers.c3d import C3D

_MEAN = (90.25, 97.66, 101.41)  # of Sports-1M's pixels, blue first
_RENAMED = {"conv1": "conv1a", "conv2": "conv2a"}  # ports that name the single convolutions so


class InceptionScore(nn.Module):
    """The score of the videos that ``add`` has seen: ``compute()``.

    ``weights`` are C3D's, fine-tuned on UCF-101 where the score is to be a published one: a state dict, names as in
    ``C3D`` or Chainer's (``conv1a/W``). ``mean`` is what is taken from the pixels, 0 to 255, blue first: three values,
    or what goes with the weights, of a shape that spreads over (3, 16, 128, 171). Published are means and deviations
    over several sets of 10,000 videos or 2048.
    """

    mean: Tensor

    def __init__(self, weights: Mapping[str, Tensor], mean: Tensor | None = None) -> None:
        super().__init__()
        self.c3d = load_c3d(weights)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1, 1) if mean is None else mean)
        self.reset()

    def reset(self) -> None:
        """Forgets all videos."""
        self._seen: list[Tensor] = []

    @torch.no_grad()
    def add(self, videos: Tensor) -> None:
        """Takes in videos (N, T, 3, H, W) in [0, 1], of any size; 16 frames of each are seen, evenly chosen."""
        frames = torch.linspace(0, videos.shape[1] - 1, 16).round().long()
        shown = functional.interpolate(videos[:, frames].flatten(0, 1), (128, 171), mode="bilinear", antialias=True)
        pixels = 255 * shown.flip(1).unflatten(0, (-1, 16)).transpose(1, 2)  # (N, 3, 16, 128, 171), blue first
        centre = (pixels - self.mean)[..., 8:120, 29:141]
        self._seen.append(self.c3d(centre).double().log_softmax(1).cpu())

    def compute(self) -> float:
        """From 1, all videos alike to C3D, to its number of classes."""
        return float(inception_score(torch.cat(self._seen)))


def inception_score(logits: Tensor) -> Tensor:
    """exp of the mean divergence of each row's distribution (N, classes) from their average, scalar."""
    each = logits.log_softmax(1)
    average = each.logsumexp(0) - torch.tensor(len(each), dtype=each.dtype, device=each.device).log()
    return (each.exp() * (each - average)).sum(1).mean().exp()


def load_c3d(weights: Mapping[str, Tensor]) -> C3D:
    """A frozen C3D of as many classes as ``weights`` have; raises ``ValueError`` naming what they lack."""
    given = {_standard(name): tensor for name, tensor in weights.items()}
    last = given.get("fc8.weight", torch.empty(101, 4096, device="meta"))
    with torch.device("meta"):
        c3d = C3D(*last.shape)
    wrong = [name for name, own in c3d.state_dict().items() if name not in given or given[name].shape != own.shape]
    if wrong:
        raise ValueError(f"C3D weights lack {', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}")
    c3d.load_state_dict({name: given[name].float() for name in c3d.state_dict()}, assign=True)
    return c3d.requires_grad_(False).eval()


def _standard(name: str) -> str:
    layer, _, part = name.replace("/", ".").rpartition(".")
    layer = layer.removeprefix("module.")
    return f"{_RENAMED.get(layer, layer)}.{ {'W': 'weight', 'b': 'bias'}.get(part, part) }"
