"""From features to frames: the decoder, and how it makes no more of a frame than is wanted, nor all of it at once."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ...inference import WHOLE, Box
from ...ops import Conv3x3
from ...ops.fold import turns_pay

SLOPE = 0.2
STAGE = 5  # layers of the first stage; each doubles the size, then convolves twice
BAND, LEAST_ROWS = 2**22, 64  # numbers of a band of the largest map, and rows: those at its edges are made twice


def decoder(features: int, width: int, last: int, corners: bool) -> nn.Sequential:
    """(N, features, h, w) -> (N, 3, 4 h, 4 w), not bounded yet."""

    def act() -> nn.Module:
        return nn.LeakyReLU(SLOPE, inplace=True)

    def double() -> nn.Module:
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners)

    return nn.Sequential(
        *(double(), Conv3x3(features, width), act(), Conv3x3(width, last), act()),
        *(double(), Conv3x3(last, last), act(), nn.Conv2d(last, 3, 3, padding=1)),
    )


def decode(layers: nn.Sequential, x: Tensor, box: Box) -> Tensor:
    """The rows and columns of ``box`` of a decoder's result; where turns pay, the memory of a few rows is enough."""
    if not turns_pay(x):
        return layers(x) if box == WHOLE else decode_within(layers, x, box)
    rows, columns = _sides(x, box)
    last = layers[-1]
    assert isinstance(last, nn.Conv2d)
    most = max(LEAST_ROWS, BAND // (x.shape[0] * last.in_channels * 4 * x.shape[3]))
    starts = range(rows.start, rows.stop, most)
    bands = (slice(start, min(start + most, rows.stop)) for start in starts)
    return torch.cat([decode_within(layers, x, (band, columns)) for band in bands], dim=2)


def decode_within(layers: nn.Sequential, x: Tensor, box: Box) -> Tensor:
    """The rows and columns of ``box`` of a decoder's result; what lies far from them is not made.

    Where columns are not wanted, doubling sees zeros: it depends on the place in the frame, but it is cheap.
    """
    wanted, every = _sides(x, box), list(layers)
    (height, width), start = x.shape[2:], 0  # of the map, whose row ``start`` is the first of x
    before = [_around(slice(side.start // 2, side.stop // 2), 2 * end) for side, end in zip(wanted, (height, width))]
    for (double, *convolve), (rows, columns) in ((every[:STAGE], before), (every[STAGE:], wanted)):
        seen, beside = _around(rows, 2 * height), _around(columns, 2 * width)
        assert isinstance(double, nn.Upsample)
        x = _double(x, start, height, seen, bool(double.align_corners))
        x = nn.Sequential(*convolve)(x[..., beside])[:, :, rows.start - seen.start : rows.stop - seen.start]
        (height, width), start = (2 * height, 2 * width), rows.start
        x = functional.pad(x, (beside.start, width - beside.stop))
    return x[..., wanted[1]]


def _sides(x: Tensor, box: Box) -> Box:
    """``box`` with both ends of its sides."""
    rows, columns = (slice(*side.indices(4 * length)[:2]) for side, length in zip(box, x.shape[2:]))
    return rows, columns


def _around(side: slice, end: int) -> slice:
    """What two convolutions of 3 x 3, or doubling after them, read for a side of a map that is ``end`` long."""
    return slice(max(0, side.start - 2), min(side.stop + 2, end))


def _double(x: Tensor, start: int, height: int, rows: slice, corners: bool) -> Tensor:
    """These rows of a map of ``height`` rows, twice as large; ``x`` has the rows from ``start`` of it."""
    exact = torch.promote_types(x.dtype, torch.float32)
    at = torch.arange(rows.start, rows.stop, device=x.device, dtype=exact)
    at = at * ((height - 1) / (2 * height - 1)) if corners else (at / 2 - 0.25).clamp(min=0)
    above = at.long()
    below = (above + 1).clamp(max=height - 1)
    lines = x.permute(0, 2, 3, 1)  # one run of memory each where channels are last
    upper, lower = (lines.index_select(1, place - start).to(exact) for place in (above, below))
    between = upper.lerp(lower, (at - above)[:, None, None]).to(x.dtype).permute(0, 3, 1, 2)
    return functional.interpolate(between, (len(at), 2 * x.shape[3]), mode="bilinear", align_corners=corners)
