"""Metrics that are networks: computed as far as their weights are given, never with others."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..layers import PWCNet
from ..metrics import FID, LPIPS, FloLPIPS

# What of (prediction, target, frame0, frame1), and the weights that it needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "lpips_unscaled": ("lpips",),
    "lpips_scaled": ("lpips",),
    "lpips_alex": ("lpips_alex",),
    "flolpips": ("lpips_alex", "pwcnet"),
    "fid": ("inception",),
}
WEIGHTS = ("lpips", "lpips_alex", "pwcnet", "inception")
State = Mapping[str, Tensor]


class Judges:
    """``weights`` by name of ``WEIGHTS``: state dicts of ``lpips.LPIPS`` on squeeze and alex, of PWC-Net (its terms are
    non-commercial) and of FID's Inception.

    ``single`` holds what is computed of each image, ``fid`` what is of all of them together (None without weights).
    """

    def __init__(self, weights: Mapping[str, State] | None = None, device: str | torch.device = "cpu") -> None:
        weights = weights or {}
        self.names = [name for name, needs in NEEDS.items() if all(need in weights for need in needs)]
        self.single: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {}
        self.fid = FID(weights["inception"]).to(device) if "inception" in weights else None
        if "lpips" in weights:
            squeeze = LPIPS(weights["lpips"]).to(device)
            self.single["lpips_unscaled"] = lambda frame, target, *_: squeeze(frame, target, scaled=False)
            self.single["lpips_scaled"] = lambda frame, target, *_: squeeze(frame, target)
        if "lpips_alex" in weights:
            alex = LPIPS(weights["lpips_alex"], "alex").to(device)
            self.single["lpips_alex"] = lambda frame, target, *_: alex(frame, target)
            if "pwcnet" in weights:
                flow = PWCNet(stretched=True).eval()
                flow.load_published(weights["pwcnet"])
                self.single["flolpips"] = FloLPIPS(alex, flow).to(device)
