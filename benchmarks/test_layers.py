"""Layers over video beside the same in plain PyTorch, at the widths that are published."""

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import SpaceTimeAttention, SpaceTimeTransformer
from vfikit.layers.video_attention import SpaceTimeTransformerBlock
from vfikit.models.lvdm import AutoencoderConfig, VideoAutoencoder, VideoUNet, VideoUNetConfig
from vfikit.models.lvdm.long_video import decoded

from .paired import Compare, Prepare, measure_memory
from .plain.lvdm import plain


def without_feed_forward() -> nn.Module:
    """The attention layers of a transformer with text: within frames, along time, to the text, along time."""
    block = SpaceTimeTransformerBlock(320, 768, 40, 16)
    block.ff = nn.Identity()
    return block


# what it is called: how to make it, what it sees, how many times faster it is to be (and take half of the memory)
ATTENTION: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float | None]] = {
    "within frames and along time, 256 wide, 16 frames of 32x32": (
        lambda: SpaceTimeAttention(256, 4, 16),
        (1, 256, 16, 32, 32),
        2.0,
    ),
    "within frames and along time, 512 wide, 16 frames of 16x16": (
        lambda: SpaceTimeAttention(512, 4, 16),
        (1, 512, 16, 16, 16),
        None,
    ),
    "attention of a transformer with text, 320 wide, 16 frames of 32x32": (
        without_feed_forward,
        (1, 16, 32 * 32, 320),
        2.0,
    ),
    "whole transformer with text, 320 wide, 16 frames of 32x32": (
        lambda: SpaceTimeTransformer(320, 768, 8, 16),
        (1, 320, 16, 32, 32),
        None,
    ),
}


def randomised(layer: nn.Module) -> nn.Module:
    """Of random weights; what starts at zero would make the comparison empty."""
    for parameter in layer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return layer.eval()


def attention(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The layer and what it sees."""
    make, shape, _ = ATTENTION[name]
    torch.manual_seed(0)
    context = (torch.randn(1, 77, 768),) if "text" in name else ()
    return randomised(make()), (torch.randn(shape), *context)


@pytest.mark.parametrize("name", ATTENTION)
@torch.no_grad()
def test_attention(compare: Compare, name: str) -> None:
    ours, inputs = attention(name)
    baseline, target = plain(ours), ATTENTION[name][2]
    torch.testing.assert_close(ours(*inputs), baseline(*inputs), rtol=1e-4, atol=1e-4)
    compare(
        name,
        lambda: ours(*inputs),
        {"plain PyTorch": lambda: baseline(*inputs)},
        rounds=3,
        targets={"plain PyTorch": target} if target else None,
    )


def prepare(
    name: str, kind: Callable[[nn.Module], nn.Module]
) -> tuple[Callable[[], Iterable[Tensor]], tuple[Tensor, ...]]:
    """For ``measure_memory``: attention as ``kind`` makes it of ours."""
    layer, inputs = attention(name)
    layer = kind(layer)

    def call() -> Iterable[Tensor]:
        with torch.no_grad():
            return [layer(*inputs)]

    return call, inputs


def ours(layer: nn.Module) -> nn.Module:
    return layer


@pytest.mark.parametrize("name", [name for name, (_, _, target) in ATTENTION.items() if target])
def test_attention_memory(memory: Callable[[str, Prepare, float], None], name: str) -> None:
    """At most half of what plain PyTorch takes."""
    theirs = measure_memory(name, partial(prepare, name, plain), 1.0)
    what = f"{name} (plain PyTorch: {theirs.extra_mib:.0f} MiB)"
    memory(what, partial(prepare, name, ours), theirs.extra_mib / 2 / theirs.tensors_mib)


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


def prepare_decoding(latents: int) -> tuple[Callable[[], Iterable[Tensor]], tuple[Tensor, ...]]:
    """For ``measure_memory``: latents of 32x32 decoded by the published autoencoder, 4 frames each, and let go of."""
    torch.manual_seed(0)
    decoder = VideoAutoencoder(AutoencoderConfig()).eval()
    latent = torch.randn(1, 4, latents, 32, 32)

    def call() -> Iterable[Tensor]:
        with torch.no_grad():
            for _ in decoded(decoder.decode, latent.split(1, dim=2), most=4, overlap=2):
                pass
        return []

    return call, (latent,)


def test_decoding_memory(memory: Callable[[str, Prepare, float], None]) -> None:
    """Of 16 latents, 64 frames of 256x256, as of 8, but for a tenth."""
    name = "decoding {} latents of the published autoencoder"
    short = measure_memory(name.format(8), partial(prepare_decoding, 8), 1.0)
    what = f"{name.format(16)} (8: {short.extra_mib:.0f} MiB)"
    memory(what, partial(prepare_decoding, 16), 1.1 * short.extra_mib / (2 * short.tensors_mib))
