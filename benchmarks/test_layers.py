"""Layers over video beside the same in plain PyTorch, at the widths that are published."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import SpaceTimeAttention, SpaceTimeTransformer
from vfikit.models.lvdm import VideoUNet, VideoUNetConfig

from .paired import Compare
from .plain.lvdm import plain

ATTENTION: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float | None]] = {
    "within frames and along time, 256 wide": (lambda: SpaceTimeAttention(256, 4, 16), (1, 256, 16, 32, 32), 2.0),
    "within frames and along time, 512 wide": (lambda: SpaceTimeAttention(512, 4, 16), (1, 512, 16, 16, 16), None),
    "transformer with text, 320 wide": (lambda: SpaceTimeTransformer(320, 768, 8, 16), (1, 320, 16, 32, 32), 2.0),
}


def randomised(layer: nn.Module) -> nn.Module:
    """Of random weights; what starts at zero would make the comparison empty."""
    for parameter in layer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return layer.eval()


@pytest.mark.parametrize("name", ATTENTION)
@torch.no_grad()
def test_attention(compare: Compare, name: str) -> None:
    make, shape, target = ATTENTION[name]
    torch.manual_seed(0)
    ours = randomised(make())
    baseline, x = plain(ours), torch.randn(shape)
    context: tuple[Tensor, ...] = (torch.randn(1, 77, 768),) if "text" in name else ()
    torch.testing.assert_close(ours(x, *context), baseline(x, *context), rtol=1e-4, atol=1e-4)
    compare(
        f"{name}, {shape[2]} frames of {shape[3]}x{shape[4]}",
        lambda: ours(x, *context),
        {"plain PyTorch": lambda: baseline(x, *context)},
        rounds=3,
        targets={"plain PyTorch": target} if target else None,
    )


@torch.no_grad()
def test_unet_step(compare: Compare) -> None:
    """The published U-Net for short clips."""
    torch.manual_seed(0)
    ours = randomised(VideoUNet(VideoUNetConfig()))
    baseline, x, t = plain(ours), torch.randn(1, 4, 4, 32, 32), torch.tensor([500])
    torch.testing.assert_close(ours(x, t), baseline(x, t), rtol=1e-3, atol=1e-3)
    compare(
        "lvdm published, one U-Net evaluation, 16 frames of 256x256",
        lambda: ours(x, t),
        {"plain PyTorch": lambda: baseline(x, t)},
        rounds=2,
        targets={"plain PyTorch": 1.2},
    )
