"""Deformable separable convolution in plain PyTorch, exact, in the formulations that were fastest among those tried.

Beyond the border the op counts its pixel twice. So ``doubled`` puts a ring around the image that holds twice the
border, and a position beyond it is moved onto the ring: one bilinear sample a tap is then exact. Float32 coordinates
are absolute here, good for about 1e-4 pixels at 1280x720.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor


def grid_sampled(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """One ``grid_sample`` a tap, in tiles of rows that stay in the cache; not differentiable."""
    taps, height, width = mask.shape[1:]
    rows, columns = (each.to(mask.dtype) for each in _positions(mask, vertical.shape[1]))
    output = input.new_empty(*input.shape[:2], height, width)
    step = max(1, 2**19 // (taps * width))
    for image, *maps, to in zip(doubled(input), vertical, horizontal, offset_x, offset_y, mask, output):
        image = image.expand(taps, -1, -1, -1)  # CPU threads share out the batch only
        for tile in (slice(start, start + step) for start in range(0, height, step)):
            v, h, dx, dy, m = (each[:, tile] for each in maps)
            grid = m.new_empty(*m.shape, 2)
            grid[..., 0] = _coordinate(dy, columns, input.shape[3])
            grid[..., 1] = _coordinate(dx, rows[:, tile], input.shape[2])
            sampled = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
            weight = (v[:, None] * h).flatten(0, 1).mul_(m)
            to[:, tile] = sampled.mul_(weight[:, None]).sum(0)
    return output


def grid_sampled_at_once(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """The same in one call, differentiable. (Each call of its backward zeroes a gradient of a whole image.)"""
    batch, channels = input.shape[:2]
    taps, height, width = mask.shape[1:]
    rows, columns = (each.to(mask.dtype) for each in _positions(mask, vertical.shape[1]))
    across, down = _coordinate(offset_y, columns, input.shape[3]), _coordinate(offset_x, rows, input.shape[2])
    parts = next(n for n in (2, taps, 1) if taps * height % n == 0)  # CPU threads share out the batch only
    image = doubled(input).repeat_interleave(parts, 0) if batch > 1 else doubled(input).expand(parts, -1, -1, -1)
    grid = torch.stack([across, down], dim=-1).view(batch * parts, -1, width, 2)
    sampled = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    sampled = sampled.view(batch, parts, channels, -1).transpose(1, 2).reshape(batch, channels, taps, height, width)
    return (sampled * _weight(vertical, horizontal, mask)[:, None]).sum(2)


def indexed(
    input: Tensor, vertical: Tensor, horizontal: Tensor, offset_x: Tensor, offset_y: Tensor, mask: Tensor
) -> Tensor:
    """The definition by index arithmetic on whole tensors: for ``torch.compile``, which fuses it. Differentiable."""
    rows, columns = _positions(mask, vertical.shape[1])
    flat = input.flatten(2)

    def read(position: Tensor) -> Tensor:  # (N, C, F * F, H, W)
        index = position.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
        return flat.gather(2, index).unflatten(2, position.shape[1:])

    upper, lower, top, bottom = _neighbours(offset_x, rows, input.shape[2])
    left, right, before, after = _neighbours(offset_y, columns, input.shape[3])
    upper, lower = upper * input.shape[3], lower * input.shape[3]
    above = read(upper + left) * before + read(upper + right) * after
    below = read(lower + left) * before + read(lower + right) * after
    return (_weight(vertical, horizontal, mask)[:, None] * (above * top + below * bottom)).sum(2)


def doubled(image: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H + 2, W + 2): a ring of twice the border, four times at the corners."""
    image = functional.pad(image, [1] * 4, mode="replicate")
    rows, columns = (torch.ones(size, device=image.device, dtype=image.dtype) for size in image.shape[2:])
    for each in (rows, columns):
        each[0] = each[-1] = 2
    return image * rows[:, None] * columns


def _weight(vertical: Tensor, horizontal: Tensor, mask: Tensor) -> Tensor:
    return (vertical[:, :, None] * horizontal[:, None]).flatten(1, 2) * mask


def _positions(mask: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Row (F * F, H, 1) and column (F * F, 1, W) of every tap before it is moved."""
    tap = torch.arange(mask.shape[1], device=mask.device)[:, None]
    start = 1 - (kernel - 1) // 2
    rows = torch.arange(mask.shape[2], device=mask.device) + tap // kernel + start
    columns = torch.arange(mask.shape[3], device=mask.device) + tap % kernel + start
    return rows[:, :, None], columns[:, None]


def _coordinate(offset: Tensor, base: Tensor, size: int) -> Tensor:
    """In the ringed image, from -1 to 1; far outside, where ``grid_sample`` reads the ring, for positions beyond."""
    raw = offset + base
    scale, far = 2 / (size + 1), 1e16  # the least distance becomes a large one; comparing and selecting takes longer
    last = torch.nextafter(raw.new_tensor(size - 1), raw.new_tensor(-1))
    before, after = raw.clamp(max=0), (raw - last).clamp_(min=0)
    return torch.add(raw, before, alpha=far).add_(after, alpha=far).mul_(scale).add_(scale - 1)


def _neighbours(offset: Tensor, base: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both pixels on one axis and their factors."""
    whole = offset.floor()
    first, fraction = base + whole.int(), offset - whole
    beyond = (first < 0) | (first >= size - 1)
    factors = [torch.where(beyond, 1, share)[:, None] for share in (1 - fraction, fraction)]
    return first.clamp(0, size - 1), (first + 1).clamp(0, size - 1), factors[0], factors[1]
