"""Frames in a row: each one is encoded once, though it stands in two pairs."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...inference import interpolate_at
from .autoencoder import Encoded

if TYPE_CHECKING:
    from .net import LDMVFINet

REMEMBERED = 3  # both ends of a pair, and the middle that halving puts between them


class InSequence:
    """``in_sequence(frame0, frame1, t=0.5)`` is ``net.interpolate``, remembering the last three frames' encodings.

    For a video, pair by pair. Frames are compared by their values, so that copies are known again.
    """

    def __init__(self, net: "LDMVFINet") -> None:
        self.net = net
        self._known: list[tuple[Tensor, Encoded]] = []

    @torch.no_grad()
    def __call__(self, frame0: Tensor, frame1: Tensor, t: float = 0.5, bisections: int = 0) -> Tensor:
        return interpolate_at(type(self.net).__name__, self.middle, frame0, frame1, t, bisections).clamp(0, 1)

    def middle(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        pair = self.net.prepare(frame0, frame1, self.encoded(frame0), self.encoded(frame1))
        return self.net.decode(self.net.sample(pair), pair)

    def encoded(self, frame: Tensor) -> Encoded:
        for index, (known, encoded) in enumerate(self._known):
            if known.shape == frame.shape and known.dtype == frame.dtype and torch.equal(known, frame):
                self._known.append(self._known.pop(index))
                return encoded
        self._known = [*self._known[1 - REMEMBERED :], (frame.clone(), self.net.encode(frame))]
        return self._known[-1][1]
