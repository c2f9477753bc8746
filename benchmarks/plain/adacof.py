"""AdaCoF sampling in plain PyTorch, exact, in the formulations that were fastest among those tried.

No ``grid_sample`` extrapolates, which a negative fraction asks for. So ``triples`` gives every pair of neighbours
(a, b) three pixels of its own, 2a - b, a, b: a fraction f in (-1, 1) is then the coordinate 1 + f within its triple,
and one bilinear sample a tap is exact. Float32 coordinates are absolute here, good for about 1e-4 pixels at 1280x720.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from vfikit.ops import _cuda

CUDA_TEXT = str(Path(__file__).with_suffix(""))  # an op's text for the launcher


def a_thread_a_number(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1) -> Tensor:
    """On CUDA, a thread for each number of the output, as published: ``adacof.cu``."""
    output = input.new_empty(*input.shape[:2], *weight.shape[2:])
    sizes = (*input.shape, math.isqrt(weight.shape[1]), *weight.shape[2:], dilation)
    grid = (-(-output.numel() // math.prod(_cuda.BLOCK)), 1, 1)
    instance = f"a_thread_a_number<{'double' if input.dtype == torch.float64 else 'float'}>"
    _cuda._run(CUDA_TEXT, _cuda.Launch(instance, grid, (input, weight, offset_i, offset_j, output), sizes))
    return output


def grid_sampled(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1) -> Tensor:
    """One ``grid_sample`` a tap, in tiles of rows that stay in the cache; not differentiable. Best for few channels."""
    taps, height, width = weight.shape[1:]
    rows, columns = (each.to(weight.dtype) for each in _positions(weight, dilation))
    output = input.new_empty(*input.shape[:2], height, width)
    step = max(1, 2**19 // (taps * width))
    for image, *maps, to in zip(triples(input), weight, offset_i, offset_j, output):
        image = image.expand(taps, -1, -1, -1)  # CPU threads share out the batch only
        for tile in (slice(start, start + step) for start in range(0, height, step)):
            w, di, dj = (each[:, tile] for each in maps)
            grid = w.new_empty(*w.shape, 2)
            for axis, offset, base, size in ((0, dj, columns, input.shape[3]), (1, di, rows[:, tile], input.shape[2])):
                fraction = offset.frac()
                whole = (offset - fraction).add_(base).clamp_(-1, size - 1)
                scale = 2 / (3 * size + 2)
                torch.add(whole.mul_(3).add_(fraction).mul_(scale), 4 * scale - 1, out=grid[..., axis])
            sampled = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
            to[:, tile] = sampled.mul_(w[:, None]).sum(0)
    return output


def grid_sampled_at_once(
    input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1
) -> Tensor:
    """The same in one call, differentiable. (Each call of its backward zeroes a gradient of a whole image.)"""
    batch, channels = input.shape[:2]
    taps, height, width = weight.shape[1:]
    rows, columns = (each.to(weight.dtype) for each in _positions(weight, dilation))
    grid = torch.stack(
        [_coordinate(offset_j, columns, input.shape[3]), _coordinate(offset_i, rows, input.shape[2])], dim=-1
    )
    parts = next(n for n in (2, taps, 1) if taps * height % n == 0)  # CPU threads share out the batch only
    image = triples(input).repeat_interleave(parts, 0) if batch > 1 else triples(input).expand(parts, -1, -1, -1)
    sampled = functional.grid_sample(
        image, grid.view(batch * parts, -1, width, 2), padding_mode="border", align_corners=True
    )
    sampled = sampled.view(batch, parts, channels, -1).transpose(1, 2).reshape(batch, channels, taps, height, width)
    return (sampled * weight[:, None]).sum(2)


def embedded(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1) -> Tensor:
    """An ``embedding_bag`` of 4 pixels a tap, in tiles of rows; not differentiable. Best for many channels."""
    channels, frame_height, frame_width = input.shape[1:]
    taps, height, width = weight.shape[1:]
    rows, columns = (each.int() for each in _positions(weight, dilation))
    output = input.new_empty(*input.shape[:2], height, width)
    pitch = frame_width + 2
    padded = functional.pad(input, [1] * 4, mode="replicate")
    step = max(1, 2**16 // (taps * width))
    for image, *maps, to in zip(padded, weight, offset_i, offset_j, output):
        pixels = image.permute(1, 2, 0).reshape(-1, channels)
        for tile in (slice(start, start + step) for start in range(0, height, step)):
            w, di, dj = (each[:, tile] for each in maps)
            fy, fx = di.frac(), dj.frac()
            y = (di - fy).int().add_(rows[:, tile]).clamp_(-1, frame_height - 1)
            x = (dj - fx).int().add_(columns).clamp_(-1, frame_width - 1)
            first = y.mul_(pitch).add_(x).add_(pitch + 1).flatten(1).t()
            index = torch.stack([first, first + 1, first + pitch, first + pitch + 1], -1).flatten(1)
            lower = w * fy
            upper = w - lower
            right = upper * fx, lower * fx
            shares = torch.stack([upper - right[0], right[0], lower - right[1], right[1]], -1)  # (taps, rows, width, 4)
            shares = shares.flatten(1, 2).transpose(0, 1).flatten(1)
            sums = functional.embedding_bag(index, pixels, mode="sum", per_sample_weights=shares)
            to[:, tile] = sums.t().unflatten(1, w.shape[1:])
    return output


def indexed(input: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor, dilation: int = 1) -> Tensor:
    """The definition by index arithmetic on whole tensors: for ``torch.compile``, which fuses it. Differentiable."""
    frame_height, frame_width = input.shape[2:]
    rows, columns = _positions(weight, dilation)
    whole_i, whole_j = offset_i.trunc(), offset_j.trunc()  # .frac() and 32-bit positions compile to slower code
    y, x = rows + whole_i.int(), columns + whole_j.int()
    upper, lower = (side.clamp(0, frame_height - 1) * frame_width for side in (y, y + 1))
    left, right = (side.clamp(0, frame_width - 1) for side in (x, x + 1))
    flat = input.flatten(2)

    def read(position: Tensor) -> Tensor:  # (N, C, F * F, H, W)
        index = position.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
        return flat.gather(2, index).unflatten(2, position.shape[1:])

    fy, fx = (offset_i - whole_i)[:, None], (offset_j - whole_j)[:, None]
    top = read(upper + left) * (1 - fx) + read(upper + right) * fx
    bottom = read(lower + left) * (1 - fx) + read(lower + right) * fx
    return (weight[:, None] * (top * (1 - fy) + bottom * fy)).sum(2)


class PlainAdaCoF(nn.Module):
    """Stands in for ``vfikit.ops.AdaCoF`` without gradients, by whichever formulation is the faster."""

    def __init__(self, kernel_size: int, dilation: int = 1, padded: bool = False) -> None:
        super().__init__()
        self.padding, self.dilation, self.padded = (kernel_size - 1) * dilation // 2, dilation, padded

    def forward(self, frame: Tensor, weight: Tensor, offset_i: Tensor, offset_j: Tensor) -> Tensor:
        if not self.padded:
            frame = functional.pad(frame, [self.padding] * 4, mode="replicate")
        sample = grid_sampled if frame.shape[1] <= 16 else embedded
        return sample(frame, weight.contiguous(), offset_i.contiguous(), offset_j.contiguous(), self.dilation)


def triples(image: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 3H + 3, 3W + 3): 2a - b, a, b of each pair of neighbours, the border repeated."""
    image = functional.pad(image, [1] * 4, mode="replicate")
    a, b = image[..., :-1], image[..., 1:]
    image = torch.stack([2 * a - b, a, b], -1).flatten(3)
    a, b = image[:, :, :-1], image[:, :, 1:]
    return torch.stack([2 * a - b, a, b], 3).flatten(2, 3)


def _positions(weight: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Row (F * F, H, 1) and column (F * F, 1, W) of every tap before it is moved."""
    tap = torch.arange(weight.shape[1], device=weight.device)[:, None]
    kernel = math.isqrt(weight.shape[1])
    rows = torch.arange(weight.shape[2], device=weight.device) + tap // kernel * dilation
    columns = torch.arange(weight.shape[3], device=weight.device) + tap % kernel * dilation
    return rows[:, :, None], columns[:, None]


def _coordinate(offset: Tensor, base: Tensor, size: int) -> Tensor:
    """In the triples of ``size`` + 1 pairs, from -1 to 1."""
    fraction = offset.frac()
    whole = (offset - fraction).detach().add_(base).clamp_(-1, size - 1)
    scale = 2 / (3 * size + 2)
    return torch.add(whole.mul_(3 * scale).add_(4 * scale - 1), fraction, alpha=scale)
