"""What every network shares that makes the frame half-way between two."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..inference import interpolate_at
from ..losses.smoothness import kernel_smoothness, map_smoothness
from .pretrained import Pretrained


class Terms(NamedTuple):
    """What training and distillation read off one forward pass; all but ``frame`` are of the padded size (H', W')."""

    frame: Tensor  # (N, 3, H, W)
    warped0: Tensor  # (N, 3, H', W'), frame0 sampled
    warped1: Tensor
    maps: dict[str, Tensor]  # by name: (N, F*F, H', W') or (N, 1, H', W')
    occlusion_term: bool = True  # False where the published training has no smoothness of the occlusion

    @property
    def g_spatial(self) -> Tensor:
        """Smoothness of weight * offset, as published: before the crop."""
        return kernel_smoothness(self.maps)

    @property
    def g_occlusion(self) -> Tensor | None:
        """Smoothness of the occlusion map."""
        return map_smoothness(self.maps["occlusion"]) if self.occlusion_term else None


class MiddleInterpolator(Pretrained):
    """A network that knows only the middle: ``forward(frame0, frame1)`` gives the frame at t = 0.5, unclamped."""

    @torch.no_grad()
    def interpolate(self, frame0: Tensor, frame1: Tensor, t: float = 0.5, bisections: int = 0) -> Tensor:
        """The frame at time ``t`` between two of (N, 3, H, W) in [0, 1], any size and type; clamped to [0, 1].

        Only t = 0.5 is known. Another t raises ``ValueError``, unless ``bisections`` allows halving the interval that
        often; see ``vfikit.inference.interpolate_at``.
        """
        dtype = next(self.parameters()).dtype

        def middle(frame0: Tensor, frame1: Tensor) -> Tensor:
            return self(frame0.to(dtype), frame1.to(dtype)).to(frame0.dtype)

        return interpolate_at(type(self).__name__, middle, frame0, frame1, t, bisections).clamp(0, 1)

    def in_sequence(self) -> Callable[..., Tensor]:
        """``interpolate`` for pair after pair of one video; may remember what it made of the last frames."""
        return self.interpolate

    def terms(self, frame0: Tensor, frame1: Tensor) -> Terms:
        raise TypeError(f"{type(self).__name__} has no training terms")
