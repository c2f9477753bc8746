"""Masks over time: which latents of a clip are given, and which are to be made."""

from collections.abc import Sequence

import torch
from torch import Tensor


def given_mask(like: Tensor, places: Sequence[int]) -> Tensor:
    """(N, 1, T, H, W) of the type of ``like`` (N, C, T, H, W): one at ``places`` in time, which may be negative."""
    mask = torch.zeros_like(like[:, :1])
    mask[:, :, list(places)] = 1
    return mask
