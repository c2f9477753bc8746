"""Large frames in tiles: each network's own result inside a tile, a blend without seams between two."""

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from vfikit.inference import tiled

from .toys import pair, toy

WIDTH, TILE, OVERLAP = 144, 80, 16  # two tiles, from 0 and from 64, that share 16 columns


@pytest.mark.parametrize("name", ["adacof", "cdfi", "ldmvfi"])
def test_tiles_are_kept_and_blended(name: str) -> None:
    """What one tile alone covers is its own; where two meet, a pixel goes from one's to the other's."""
    net, frames = toy(name), pair(32, WIDTH)
    with torch.no_grad():
        left, right = (net(*(frame[..., part] for frame in frames)) for part in (slice(80), slice(64, None)))
        result = tiled(net, *frames, tile=TILE, overlap=OVERLAP)
    torch.testing.assert_close(result[..., :68], left[..., :68], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[..., 76:], right[..., 12:], rtol=1e-5, atol=1e-5)
    theirs = torch.stack([left[..., 68:76], right[..., 4:12]])
    share = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(result[..., 68:76], torch.lerp(*theirs, share), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["adacof", "cdfi"])
def test_no_seams(name: str) -> None:
    """On smooth frames: where tiles that do not overlap leave a step, overlapping ones leave a tenth of it at most."""
    net = toy(name)
    frames = [functional.interpolate(frame, (64, 160), mode="bicubic").clamp(0, 1) for frame in pair(8, 20)]

    def step(result: Tensor) -> float:
        """Of the error that tiles bring, between the columns where two tiles would meet."""
        return (result - whole).diff(dim=3)[..., 79].abs().mean().item()

    with torch.no_grad():
        whole = net(*frames)
        steps = [step(tiled(net, *frames, tile=80, overlap=overlap)) for overlap in (0, 32)]
    assert steps[1] < 0.1 * steps[0]
