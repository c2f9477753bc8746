"""What stands between a network and a user's frames: checks, padding, bisection in time, tiles, holes."""

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

Interpolate = Callable[[Tensor, Tensor], Tensor]
Box = tuple[slice, slice]
WHOLE: Box = (slice(None), slice(None))


def check_pair(who: str, frame0: Tensor, frame1: Tensor) -> None:
    """Raises ``ValueError`` unless both are floating-point (N, 3, H, W) of one shape, H and W at least 1."""
    for name, frame in (("frame0", frame0), ("frame1", frame1)):
        _check_tensor(who, name, frame, "(N, 3, H, W)")
    if frame0.ndim != 4 or frame0.shape[1] != 3 or 0 in frame0.shape[2:]:
        raise ValueError(f"{who}: frame0 is {tuple(frame0.shape)}, expected (N, 3, H, W)")
    if frame1.shape != frame0.shape:
        raise ValueError(f"{who}: frame1 is {tuple(frame1.shape)}, expected {tuple(frame0.shape)} like frame0")
    if not frame0.is_floating_point() or frame1.dtype != frame0.dtype:
        raise ValueError(
            f"{who}: frames are {frame0.dtype} and {frame1.dtype}, expected one floating-point type, in [0, 1]"
        )


def check_video(who: str, name: str, video: Tensor) -> None:
    """Raises ``ValueError`` unless it is a floating-point (N, T, 3, H, W), none of them 0, in about [0, 1]."""
    _check_tensor(who, name, video, "(N, T, 3, H, W)")
    if video.ndim != 5 or video.shape[2] != 3 or 0 in video.shape or not video.is_floating_point():
        got = f"{tuple(video.shape)} of {video.dtype}"
        raise ValueError(f"{who}: {name} are {got}, expected (N, T, 3, H, W), floating point, in [0, 1]")
    check_values(who, name, video)


def check_values(who: str, name: str, frames: Tensor) -> None:
    """Raises ``ValueError`` unless they are in [0, 1], but for what resampling overshoots: no 0 to 255, no NaN."""
    if frames.is_meta or frames.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (value.item() for value in frames.aminmax())
    if not (low >= -0.5 and high <= 1.5):
        raise ValueError(f"{who}: {name} have values from {low:.3g} to {high:.3g}, expected [0, 1]")


def check_counts(who: str, **counts: int | None) -> None:
    """Raises ``ValueError`` for a number that is not whole or less than one; None stands for a default."""
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{who}: {name} is {count!r}, expected a whole number, 1 or more")


def _check_tensor(who: str, name: str, value: object, expected: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{who}: {name} is of type {type(value).__name__}, expected a tensor {expected}")


def pad_to_multiple(frame: Tensor, multiple: int) -> Tensor:
    """Pads (N, C, H, W) at the bottom and right, by reflection, until ``multiple`` divides height and width.

    A side shorter than the padding is reflected back and forth; a side of one pixel is repeated.
    """
    return _reflect(_reflect(frame, 2, multiple), 3, multiple)


def _reflect(frame: Tensor, dim: int, multiple: int) -> Tensor:
    size = frame.shape[dim]
    extra = (multiple - size % multiple) % multiple  # torch.compile has no Python remainder of a negative size
    if extra == 0:
        return frame
    if extra < size:
        return functional.pad(frame, (0, extra, 0, 0) if dim == 3 else (0, 0, 0, extra), mode="reflect")
    period = max(2 * (size - 1), 1)
    index = torch.arange(size + extra, device=frame.device) % period
    return frame.index_select(dim, torch.where(index < size, index, period - index))


def interpolate_at(
    who: str, middle: Interpolate, frame0: Tensor, frame1: Tensor, t: float, bisections: int = 0
) -> Tensor:
    """The frame at time ``t`` from a network that knows only the middle.

    ``t`` = 0.5 is one call. Any other t in [0, 1] raises ``ValueError`` unless ``bisections`` allows halving the
    interval that often: the result then stands at the nearest multiple of 2 ** -bisections, at most
    2 ** -(bisections + 1) away from ``t``. Frames are to be in [0, 1].
    """
    check_pair(who, frame0, frame1)
    for frame in (frame0, frame1):
        check_values(who, "frames", frame)
    t = float(t)
    if not 0 <= t <= 1:
        raise ValueError(f"{who}: t is {t}, expected a time in [0, 1]")
    steps = 2 ** max(bisections, 1)
    place = round(t * steps)
    if bisections < 1 and t != 0.5:
        raise ValueError(f"{who}: t is {t}, expected 0.5: this network knows only the middle (or allow bisections)")
    if place == 0:
        return frame0
    if place == steps:
        return frame1
    while True:
        frame = middle(frame0, frame1)
        steps //= 2
        if place == steps:
            return frame
        if place < steps:
            frame1 = frame
        else:
            frame0, place = frame, place - steps


def tiled(function: Callable[..., Tensor], *frames: Tensor, tile: int, overlap: int = 64) -> Tensor:
    """``function`` over overlapping tiles of ``frames`` (N, C, H, W), blended into one (N, C', H, W).

    The function needs a tile's memory only. Tiles are ``tile`` pixels a side (or the frame's own side, where that is
    shorter). In an overlap the outer quarters, where a tile lacks context, are left out and the middle half goes
    linearly from one tile to the next: no seams. A function that sees less than ``overlap // 4`` pixels far gives the
    same as on the whole frame.
    """
    if not 0 <= overlap <= tile // 2:
        raise ValueError(f"tiled: overlap is {overlap}, expected 0 to half of tile {tile}")
    height, width = frames[0].shape[2:]
    rows, columns = _tile_weights(height, tile, overlap), _tile_weights(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        return function(*frames)
    total: Tensor | None = None
    for top, vertical in rows:
        for left, horizontal in columns:
            area = (..., slice(top, top + len(vertical)), slice(left, left + len(horizontal)))
            part = function(*(frame[area] for frame in frames))
            if total is None:
                total = part.new_zeros(*part.shape[:2], height, width, dtype=torch.float32)
            total[area] += part.float() * torch.outer(vertical, horizontal).to(part.device)
    assert total is not None
    return total.to(frames[0].dtype)


def _tile_weights(size: int, tile: int, overlap: int) -> list[tuple[int, Tensor]]:
    """Along one side: (where a tile starts, its weights); the weights of all tiles sum to one at every pixel."""
    if size <= tile:
        return [(0, torch.ones(size))]
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    margin = overlap // 4
    ramp = ((torch.arange(overlap) - margin + 0.5) / max(overlap - 2 * margin, 1)).clamp(0, 1)
    weights = []
    for index, start in enumerate(starts):
        weight = torch.ones(tile)
        if index > 0:
            weight[:overlap] = ramp
        if index < len(starts) - 1:
            weight[tile - overlap :] *= ramp.flip(0)
        weights.append((start, weight))
    total = torch.zeros(size)
    for start, weight in weights:
        total[start : start + tile] += weight
    return [(start, weight / total[start : start + tile]) for start, weight in weights]


def surroundings(holes: Tensor, margin: int) -> Box:
    """Rows and columns that hold every hole of (.., H, W), with ``margin`` pixels more; all where there is none."""
    sides = []
    for axis in (-2, -1):
        across = holes.flatten(0, -3).any(0).any(-1 if axis == -2 else -2).nonzero().flatten().tolist()
        if not across:
            return WHOLE
        sides.append(slice(max(0, across[0] - margin), min(holes.shape[axis], across[-1] + margin + 1)))
    return sides[0], sides[1]


def dilate(holes: Tensor, pixels: int) -> Tensor:
    """Holes (N, 1, H, W), grown to all that lies within so many steps up, down and sideways."""
    grown = holes.float()
    for _ in range(min(pixels, sum(holes.shape[2:]))):
        beside = functional.max_pool2d(grown, (1, 3), 1, (0, 1))
        grown = torch.maximum(functional.max_pool2d(grown, (3, 1), 1, (1, 0)), beside)
    return grown > 0
