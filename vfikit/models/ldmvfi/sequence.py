"""Frames in a row: each one is encoded once, though it stands in two pairs and in many gaps when those are halved."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...inference import interpolate_at
from .autoencoder import Encoded

if TYPE_CHECKING:
    from .net import LDMVFINet

Known = tuple[Tensor, Encoded]
REMEMBERED = 7  # both ends of a pair, and those that five halvings leave for later


class InSequence:
    """``in_sequence(frame0, frame1, t=0.5)`` is ``net.interpolate``, remembering the encodings of pairs.

    For a video, pair by pair, or gap by gap where gaps are halved from the first to the last. Frames are compared by
    their values, so that copies are known again.
    """

    def __init__(self, net: "LDMVFINet") -> None:
        self.net = net
        self._known: tuple[Known, ...] = ()  # in the order of time

    @torch.no_grad()
    def __call__(self, frame0: Tensor, frame1: Tensor, t: float = 0.5, bisections: int = 0) -> Tensor:
        dtype = next(self.net.parameters()).dtype
        met: list[tuple[Known, ...]] = []

        def middle(low: Tensor, high: Tensor) -> Tensor:
            low, high = low.to(dtype), high.to(dtype)
            self._known = self._at(low, high)
            met.append(self._known)
            pair = self.net.prepare(low, high, self._known[0][1], self._known[1][1])
            return self.net.decode(self.net.sample(pair), pair).to(frame0.dtype)

        frame = interpolate_at(type(self.net).__name__, middle, frame0, frame1, t, bisections).clamp(0, 1)
        self._known = met[0] if met else self._known  # the pair may come again, with another t
        return frame

    def _at(self, low: Tensor, high: Tensor) -> tuple[Known, ...]:
        """``low``, ``high`` and what is known of later frames; what came before ``low`` is left behind."""
        start = self._place(low, self._known)
        after = (self._new(low), *self._known) if start is None else self._known[start:]
        end = self._place(high, after)
        if end is not None:
            return (after[0], *after[end:])[:REMEMBERED]
        later = () if start is None else after[1:]
        return (after[0], self._new(high), *later)[:REMEMBERED]

    def _new(self, frame: Tensor) -> Known:
        return frame.clone(), self.net.encode(frame)

    @staticmethod
    def _place(frame: Tensor, known: tuple[Known, ...]) -> int | None:
        alike = [(x.shape, x.dtype, x.device) == (frame.shape, frame.dtype, frame.device) for x, _ in known]
        return next((i for i, (x, _) in enumerate(known) if alike[i] and torch.equal(x, frame)), None)
