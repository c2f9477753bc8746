"""What an interpolation model minimises: a weighted sum of terms, written ``1*Charb+0.01*g_Spatial+0.005*VGG``."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .adversarial import ADVERSARIES
from .smoothness import charbonnier

SIMPLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Charb": lambda frame, target: charbonnier(frame - target),
    "L1": F.l1_loss,
    "MSE": F.mse_loss,
}
SMOOTHNESS = ("g_Spatial", "g_Occlusion")
TERMS = (*SIMPLE, "Warp", *SMOOTHNESS, "VGG", *ADVERSARIES)


class Losses(NamedTuple):
    """``total`` is what to minimise; ``parts`` holds each term by name, before its weight."""

    total: Tensor
    parts: dict[str, Tensor]


def parse_terms(text: str) -> dict[str, float]:
    """``"1*Charb+0.01*g_Spatial"`` -> ``{"Charb": 1.0, "g_Spatial": 0.01}``; terms are those of ``TERMS``."""
    weights: dict[str, float] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"(?:(?P<weight>[\d.]+(?:[eE]-?\d+)?)\*)?(?P<name>\w+)", part.strip())
        if match is None or match["name"] not in TERMS or match["name"] in weights:
            raise ValueError(
                f"loss {text!r}: got {part.strip()!r}, expected WEIGHT*TERM, each of {', '.join(TERMS)} once"
            )
        weights[match["name"]] = float(match["weight"] or 1)
    return weights


def adversarial_term(weights: dict[str, float]) -> str | None:
    """The one term of ``ADVERSARIES`` among ``weights``, or None; ValueError for several."""
    found = [name for name in weights if name in ADVERSARIES]
    if len(found) > 1:
        raise ValueError(f"loss: got {' and '.join(found)}, expected at most one adversarial term")
    return found[0] if found else None


class Objective(nn.Module):
    """The sum of ``terms``. ``vgg(frame, target)`` serves VGG, ``adversary(frame0, frame, frame1)`` the one term of
    ``ADVERSARIES`` that there may be.
    """

    def __init__(
        self,
        terms: str,
        vgg: nn.Module | None = None,
        adversary: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.weights = parse_terms(terms)
        if "VGG" in self.weights and vgg is None:
            raise ValueError(f"loss {terms!r}: VGG needs VGG-16 weights")
        name = adversarial_term(self.weights)
        if name is not None and adversary is None:
            raise ValueError(f"loss {terms!r}: {name} needs a discriminator")
        self.vgg = vgg
        # in a tuple, so that the discriminator's weights are not among this module's: another optimiser has them
        self._adversary = (adversary,)

    def forward(
        self,
        frame0: Tensor,
        target: Tensor,
        frame1: Tensor,
        frame: Tensor,
        g_spatial: Tensor | None = None,
        g_occlusion: Tensor | None = None,
        warped: tuple[Tensor, Tensor] | None = None,
    ) -> Losses:
        """Frames (N, 3, H, W) in [0, 1], ``frame`` the model's; smoothness terms come computed from the model.

        ``warped``, the two frames as the model sampled them, serves Warp: each alone is to meet the target. Near the
        average of two frames the error is of second order in the motion, so the frame's own loss hardly teaches it.
        A term that the model does not have raises ValueError.
        """
        smoothness = {"g_Spatial": g_spatial, "g_Occlusion": g_occlusion}
        parts: dict[str, Tensor] = {}
        for name in self.weights:
            if name in SIMPLE:
                parts[name] = SIMPLE[name](frame, target)
            elif name == "Warp":
                if warped is None:
                    raise ValueError("loss: the model gives no warped frames; leave Warp out of the terms")
                height, width = target.shape[2:]
                parts[name] = sum_of(charbonnier(w[..., :height, :width] - target) for w in warped)
            elif name in smoothness:
                value = smoothness[name]
                if value is None:
                    raise ValueError(f"loss: the model has no {name}; leave it out of the terms")
                parts[name] = value
            elif name == "VGG":
                assert self.vgg is not None
                parts[name] = self.vgg(frame, target)
            else:
                assert self._adversary[0] is not None
                parts[name] = self._adversary[0](frame0, frame, frame1)
        weighted = [self.weights[name] * part for name, part in parts.items()]
        return Losses(sum_of(weighted), parts)


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    first, *others = tensors
    return sum(others, first)
