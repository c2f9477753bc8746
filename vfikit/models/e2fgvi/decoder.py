"""From features to frames: the decoder, and how it makes no more of a frame than is wanted."""

from torch import Tensor, nn

from ...inference import Box
from ...ops import Conv3x3

SLOPE = 0.2
STAGE = 5  # layers of the first stage; each doubles the size, then convolves twice


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


def decode_within(layers: nn.Sequential, x: Tensor, box: Box) -> Tensor:
    """The rows and columns of ``box`` of a decoder's result; where it is small, most of the products are saved.

    What upsampling does depends on the place in the frame, but it is cheap: it sees whole maps, whose other parts are
    wrong or zero.
    """
    every = list(layers)
    for (double, *convolve), part in ((every[:STAGE], _before(box)), (every[STAGE:], box)):
        x = double(x)
        rows, columns = (slice(max(0, side.start - 2), side.stop + 2) for side in part)
        made = nn.Sequential(*convolve)(x[..., rows, columns])
        x = x.new_zeros(*made.shape[:2], *x.shape[2:])
        x[..., rows, columns] = made
    return x[..., box[0], box[1]]


def _before(box: Box) -> Box:
    """What the last stage reads of the map before it."""
    rows, columns = (slice(max(0, side.start // 2 - 2), side.stop // 2 + 2) for side in box)
    return rows, columns
