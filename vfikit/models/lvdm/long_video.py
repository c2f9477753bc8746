"""Videos of any length from models of short clips (LVDM, section 3.3), as streams: memory does not grow with length.

A hierarchy: *key* latents, each clip of them continuing the last; between two neighbouring keys, the latents that are
missing; decoding in windows that overlap. Latents and frames travel in pieces (N, C, t, h, w) of any t.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .conditional import Given

SampleClip = Callable[[Given | None], Tensor]


class Lengths(NamedTuple):
    """Of a long video: its latents, the key latents among them, the clips that continue the first."""

    latents: int
    keys: int
    steps: int


def lengths(frames: int, factor: int = 4, clip: int = 4, between: int = 3) -> Lengths:
    """What a video of ``frames`` takes: ``factor`` frames a latent, ``clip`` keys a sampled clip, ``between`` keys."""
    latents = frames // factor
    keys = -(-(latents + between) // (between + 1))
    return Lengths(latents, keys, max(-(-(keys - clip) // (clip - 1)), 0))


def key_latents(sample: SampleClip, first: Tensor | None = None, mark_all: bool = False) -> Iterator[Tensor]:
    """Key latents without end, (N, C, 1, h, w) each: clip after clip, each given the last latent of the one before.

    ``sample(given)`` makes a clip, ``sample(None)`` a free one. ``first`` is a latent to begin with. The published
    program marks every latent of a clip as given, not only the first: ``mark_all``.
    """
    if first is None:
        clip = sample(None)
        yield from clip.split(1, dim=2)
        first = clip[:, :, -1:]
    else:
        yield first
    while True:
        clip = sample(Given(first, (0,), mark_all=mark_all))
        yield from clip[:, :, 1:].split(1, dim=2)
        first = clip[:, :, -1:]


def between_keys(sample: SampleClip, keys: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every key and the latents that belong before the next, which ``sample(given)`` makes given both."""
    keys = iter(keys)
    last = next(keys, None)
    if last is None:
        return
    for key in keys:
        yield last
        yield sample(Given(torch.cat([last, key], dim=2), (0, -1)))[:, :, 1:-1]
        last = key
    yield last


def published_pairs(keys: Tensor) -> Tensor:
    """The keys that the published program goes between: of t it takes the first pairs, about a third of all."""
    return keys[:, :, : len(range(0, keys.shape[2] - 3, 3)) + 1]


class Window(NamedTuple):
    """Latents from ``start`` to ``end`` that are decoded together, and which of their own frames are kept."""

    start: int
    end: int
    first: int
    last: int


def windows(latents: int, most: int, overlap: int = 0, factor: int = 4) -> list[Window]:
    """Windows of at most ``most`` latents over ``latents``, of which neighbours share ``overlap``.

    Of what two windows share, each decodes its own half; of an odd number the first decodes one more.
    """
    if not 0 <= overlap < most:
        raise ValueError(f"windows: an overlap of {overlap} in windows of {most}, expected 0 to {most - 1}")
    found, start = [], 0
    while True:
        end = min(start + most, latents)
        first = factor * (overlap - overlap // 2) if start else 0
        last = factor * (end - start) - (factor * (overlap // 2) if end < latents else 0)
        found.append(Window(start, end, first, last))
        if end == latents:
            return found
        start += most - overlap


def decoded(
    decode: Callable[[Tensor], Tensor], latents: Iterable[Tensor], most: int, overlap: int = 0, factor: int = 4
) -> Iterator[Tensor]:
    """``latents`` in pieces decoded by ``windows``: frames (N, 3, t, H, W) in pieces. At most two windows are held."""
    ahead: Tensor | None = None
    first = 0
    for piece in latents:
        ahead = piece if ahead is None else torch.cat([ahead, piece], dim=2)
        while ahead.shape[2] > most:
            frames = decode(ahead[:, :, :most])
            yield frames[:, :, first : factor * (most - overlap // 2)]
            ahead, first = ahead[:, :, most - overlap :], factor * (overlap - overlap // 2)
    if ahead is not None:
        yield decode(ahead)[:, :, first:]


def first_frames(pieces: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """``pieces`` until there are ``frames``."""
    for piece in pieces:
        yield piece[:, :, :frames]
        frames -= piece.shape[2]
        if frames <= 0:
            return
