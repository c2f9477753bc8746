"""Which frames are made when, and what they are conditioned on (arXiv:2304.08818, sections 3.2 to 3.4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from ...diffusion import Schedule

KEY_FPS = 1.875  # of the key frames of a long video; 7.5 and 30 after interpolation
BETWEEN = 4  # frames apart are two key frames once the frames between are made


class Window(NamedTuple):
    """Frames ``start`` to ``end`` (exclusive) are made in one go, the first ``context`` of them known before."""

    start: int
    end: int
    context: int


def windows(num_frames: int, length: int, context: int = 2, first: int = 1) -> list[Window]:
    """The windows that cover ``num_frames``: the first knows ``first`` frames, every other ``context``.

    The last may overrun and is to be cut.
    """
    if not 1 <= context < length:
        raise ValueError(f"windows: {context} known frames of {length}, expected at least 1 and fewer than all")
    found = [Window(0, length, first)]
    while found[-1].end < num_frames:
        start = found[-1].end - context
        found.append(Window(start, start + length, context))
    return found


def interpolated(num_frames: int) -> int:
    """How many frames there are once three stand between every two."""
    return BETWEEN * (num_frames - 1) + 1


def pairs(num_frames: int) -> list[tuple[int, int]]:
    """Of every two neighbours among ``num_frames``, the places in the interpolated video."""
    return [(BETWEEN * i, BETWEEN * (i + 1)) for i in range(num_frames - 1)]


def known_mask(num_frames: int, known: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """(T,), 1 at the frames ``known``: those that begin a window, or the two ends of an interval."""
    mask = torch.zeros(num_frames, device=device)
    mask[list(known)] = 1
    return mask


def condition(latents: Tensor, mask: Tensor) -> Tensor:
    """What the temporal layers see of latents (B, T, C, H, W): (B, T, C + 1, H, W), zeros where nothing is known.

    ``mask`` is (T,) or (B, T), 1 at the frames that are known; it is the last plane.
    """
    videos, frames, _, height, width = latents.shape
    plane = mask.to(latents).expand(videos, frames)[:, :, None, None, None].expand(-1, -1, 1, height, width)
    return torch.cat([plane * latents, plane], dim=2)


def noisy_low_resolution(schedule: Schedule, low: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """The upsampler's condition: videos (B, T, C, H, W) with noise of ``level`` (B,), the same for all their frames."""
    return schedule.add_noise(low, noise, level)


def upsampler_input(noisy: Tensor, low: Tensor) -> Tensor:
    """A noisy video (B, T, C, H, W) and, frame by frame beside it, the low-resolution one, enlarged where smaller."""
    if low.shape[-2:] != noisy.shape[-2:]:
        size = noisy.shape[-2:]
        flat = functional.interpolate(low.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
        low = flat.unflatten(0, low.shape[:2])
    return torch.cat([noisy, low], dim=2)
