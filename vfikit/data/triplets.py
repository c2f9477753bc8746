"""Triplets of frames: two and the one half-way between, read from files as they are, never augmented."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..files import InputError
from .images import read_image

LARGE = 3840  # pixels of the longer side from which a frame counts as 4K


class Triplet(NamedTuple):
    """Two frames and the one half-way between: each float32 (3, H, W) in [0, 1], or (N, 3, H, W) batched."""

    frame0: Tensor
    target: Tensor
    frame1: Tensor


class Paths(NamedTuple):
    """Where a triplet lies: its name and its three files, in time's order.

    A name ``SEQUENCE#FRAME`` belongs to a sequence that is averaged before the mean over all is taken.
    """

    name: str
    frame0: Path
    target: Path
    frame1: Path
    tiles: tuple[int, int, int] | None = None  # all in one file of five tiles side by side: which tiles
    halved: bool = False  # of 4K frames, the middle half of either side

    def read(self) -> tuple[Tensor, ...]:
        """The three frames, uint8 (3, H, W); InputError names the file that cannot be read."""
        if self.tiles is not None:
            sheet = read_image(self.target)
            if sheet.shape[2] % 5:
                raise InputError(f"{self.target}: is {sheet.shape[2]} pixels wide, expected five tiles of one width")
            tiles = sheet.chunk(5, dim=2)
            return tuple(tiles[i].contiguous() for i in self.tiles)
        frames = tuple(read_image(file) for file in (self.frame0, self.target, self.frame1))
        if any(frame.shape != frames[0].shape for frame in frames):
            files = zip((self.frame0, self.target, self.frame1), frames)
            sizes = ", ".join(f"{file.name} {frame.shape[2]}x{frame.shape[1]}" for file, frame in files)
            raise InputError(f"{self.frame0.parent}: frames are {sizes}, expected one size")
        height, width = frames[0].shape[1:]
        if self.halved and max(height, width) >= LARGE:
            top, left = height // 4, width // 4
            return tuple(f[:, top : top + height // 2, left : left + width // 2].contiguous() for f in frames)
        return frames


class TripletFolder(Dataset[Triplet]):
    """Triplets read from files; decoded frames are kept as bytes in memory up to ``cache_bytes``."""

    def __init__(self, paths: Sequence[Paths], cache_bytes: int = 1 << 30) -> None:
        self.paths = list(paths)
        self._cache: dict[int, tuple[Tensor, ...]] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """What the triplet is called in reports: its folder, or its clip and frame."""
        return self.paths[index].name

    def __getitem__(self, index: int) -> Triplet:
        frames = self._cache.get(index)
        if frames is None:
            frames = self.paths[index].read()
            size = sum(frame.numel() for frame in frames)
            if size <= self._room:
                self._room -= size
                self._cache[index] = frames
        return Triplet(*(frame.to(torch.float32).div_(255) for frame in frames))
