"""Holes to train inpainting with: irregular blobs that stand still or wander, as STTN and E2FGVI draw them."""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_SAMPLES = 4  # to a pixel and axis
_CANVAS = (480, 640)  # on which the published program paints its blob, y upwards
_BOX = (80.0, 576.0, 52.8, 422.4)  # left, right, bottom, top of what the axes span there
_PEN = 2.78  # pixels of the outline


class Draws(NamedTuple):
    """Two generators, as the published program draws from Python's and from NumPy's global one by turns."""

    python: random.Random
    numpy: np.random.RandomState

    @classmethod
    def seeded(cls, seed: int) -> "Draws":
        return cls(random.Random(seed), np.random.RandomState(seed % 2**32))


class Motion(NamedTuple):
    """Where a blob's upper left corner is (row, column), and how it moves: pixels a frame, radians."""

    row: int
    column: int
    speed: float
    angle: float

    def next(self, room: tuple[int, int], draw: np.random.RandomState) -> "Motion":
        """A step on, whole pixels; where it leaves rows 0..room[0] or columns 0..room[1], it turns."""
        row, column = (
            self.row + int(self.speed * math.cos(self.angle)),
            self.column + int(self.speed * math.sin(self.angle)),
        )
        speed, angle = self.speed + draw.normal(0, 1.5), self.angle + draw.normal(0, 0.25)
        if not (0 <= row <= room[0] and 0 <= column <= room[1]):
            speed, angle = abs(draw.normal(0, 1.5)), draw.uniform(0, 2 * math.pi)
        return Motion(min(max(row, 0), room[0]), min(max(column, 0), room[1]), speed, angle)


def irregular_masks(length: int, height: int, width: int, draws: Draws) -> Tensor:
    """One irregular hole over ``length`` frames: (T, 1, H, W) of 0 and 1. Half of them stand still.

    The hole's box has between a third of either side and all of it but a pixel; about a fifteenth of a frame is hole.
    Sides must be 4 at least. Drawn in the published order, so that a seed gives the published clip.
    """
    if min(height, width) < 4:
        raise ValueError(f"irregular_masks: frames are {height}x{width}, expected at least 4 pixels a side")
    shape = random_blob(height, width, draws)
    room = (height - shape.shape[0], width - shape.shape[1])
    row, column = draws.python.randint(0, room[0]), draws.python.randint(0, room[1])
    motion = Motion(row, column, draws.numpy.uniform(3, 1), draws.numpy.uniform(0, 2 * math.pi))
    still = draws.python.uniform(0, 1) > 0.5
    masks = torch.zeros(length, 1, height, width)
    for frame in masks[:, 0]:
        frame[motion.row : motion.row + shape.shape[0], motion.column : motion.column + shape.shape[1]] = shape
        motion = motion if still else motion.next(room, draws.numpy)
    return masks


def random_blob(height: int, width: int, draws: Draws) -> Tensor:
    """A blob of 6 to 8 lobes, stretched to a random box and cut to what is left of it: (h, w) of 0 and 1."""
    box_height = draws.python.randint(height // 3, height - 1)
    box_width = draws.python.randint(width // 3, width - 1)
    edges, ratio = draws.python.randint(6, 8), draws.python.randint(6, 8) / 10
    count = 3 * edges + 1
    radii = 2 * ratio * draws.numpy.rand(count) + 1 - ratio
    angles = np.linspace(0, 2 * math.pi, count)
    controls = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    controls[-1] = controls[0]
    black = _stretched(_painted(controls), box_height, box_width)
    rows, columns = (np.flatnonzero(black.any(axis)) for axis in (1, 0))
    if len(rows) < 2 or len(columns) < 2:  # a sliver that no pixel is wholly inside of
        return torch.ones(1, 1)
    return torch.from_numpy(black[rows[0] : rows[-1], columns[0] : columns[-1]]).float()


def _painted(controls: np.ndarray) -> np.ndarray:
    """The canvas (480, 640), 0 where it is black and 255 where it is white, of a closed path of cubic Bezier curves."""
    low, high = 1.1 * controls.min(), 1.1 * controls.max()
    left, right, bottom, top = _BOX
    scale, start = np.array([right - left, top - bottom]) / (high - low), np.array([left, bottom])
    path = _flattened((controls - low) * scale + start)
    path[:, 1] = _CANVAS[0] - path[:, 1]
    first, last = np.floor(path.min(0)).astype(int) - 2, np.ceil(path.max(0)).astype(int) + 2
    columns, rows = last - first  # the part of the canvas that is not all white
    path -= first
    covered = _covered([path], _stroke(path), rows, columns)
    canvas = np.full(_CANVAS, 255.0)
    parts = range(_SAMPLES)  # summed one axis after the other: the mean over both takes longer
    lines = np.stack([covered[k::_SAMPLES] for k in parts]).sum(0, np.uint8)
    cover = np.stack([lines[:, k::_SAMPLES] for k in parts]).sum(0, np.uint8) / _SAMPLES**2
    canvas[first[1] : last[1], first[0] : last[0]] = np.round(255 * (1 - cover))
    return canvas


def _flattened(controls: np.ndarray, parts: int = 12) -> np.ndarray:
    """Points along the curves, each between every third control point."""
    t = np.linspace(0, 1, parts, endpoint=False)[:, None]
    shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    curves = [sum(s * controls[i + k] for k, s in enumerate(shares)) for i in range(0, len(controls) - 1, 3)]
    return np.concatenate([*curves, controls[-1:]])


def _stroke(path: np.ndarray) -> list[np.ndarray]:
    """The outline as quadrangles that turn one way: each piece of the path, a little longer, as wide as the pen."""
    ahead = np.diff(path, axis=0)
    length = np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    along, across = ahead / length * _PEN / 4, np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / length * _PEN / 2
    first, second = path[:-1] - along, path[1:] + along
    corners = [first + across, second + across, second - across, first - across, first + across]
    return list(np.stack(corners, axis=1)[:, ::-1])


def _covered(area: list[np.ndarray], outline: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Which samples of ``height`` x ``width`` pixels closed polygons (x, y) go round, those of either list."""
    rows, columns = _SAMPLES * height, _SAMPLES * width
    polygons = [_SAMPLES * polygon - 0.5 for polygon in (*area, *outline)]
    # both are counted in one number, which is 0 where neither list's polygons turn around a sample
    turn = np.repeat([1 << 16] * len(area) + [1] * len(outline), [len(polygon) - 1 for polygon in polygons])
    starts, ends = (np.concatenate([p[part] for p in polygons]) for part in (slice(-1), slice(1, None)))
    first, last = (np.ceil(y).astype(int).clip(0, rows) for y in np.sort([starts[:, 1], ends[:, 1]], axis=0))
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)  # an entry for every row that an edge crosses
    ys = np.arange(len(edge)) + (first - count.cumsum() + count)[edge]
    (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
    xs = np.ceil(x0 + (ys - y0) * (x1 - x0) / (y1 - y0)).astype(int).clip(0, columns)
    turns = np.zeros((rows, columns + 1), np.int32)
    np.add.at(turns.reshape(-1), ys * (columns + 1) + xs, np.where(y1 > y0, turn[edge], -turn[edge]).astype(np.int32))
    return turns.cumsum(1, np.int32)[:, :columns] != 0


def _stretched(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which pixels are black of the canvas at another size: two taps an axis, half-pixel centres, no anti-aliasing."""

    def taps(size: int, full: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = np.clip((np.arange(size) + 0.5) * full / size - 0.5, 0, full - 1)
        first = place.astype(int)
        return first, np.minimum(first + 1, full - 1), place - first

    y0, y1, fy = taps(height, canvas.shape[0])
    x0, x1, fx = taps(width, canvas.shape[1])
    rows = canvas[y0] * (1 - fy[:, None]) + canvas[y1] * fy[:, None]
    return np.round(rows[:, x0] * (1 - fx) + rows[:, x1] * fx) == 0
