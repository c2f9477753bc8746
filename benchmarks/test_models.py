"""Whole networks beside the same ones in plain PyTorch, from two frames to one."""

import pytest
import torch
from torch import Tensor

from vfikit.diffusion import Sampling
from vfikit.models import build
from vfikit.models.ldmvfi import LDMVFINet

from .paired import Compare
from .plain import ldmvfi as plain_ldmvfi
from .plain.interpolators import plain

SIZE = (256, 448)  # of Vimeo-90K's triplets


@pytest.mark.parametrize(
    ("name", "preset", "rounds"), [("adacof", "published", 3), ("adacof", "small", 5), ("cdfi", "published", 2)]
)
def test_interpolation(compare: Compare, name: str, preset: str, rounds: int) -> None:
    torch.manual_seed(0)
    net = build(name, preset).eval()
    frames = torch.rand(2, 1, 3, *SIZE)
    baseline = plain(net)
    with torch.no_grad():
        error = (net(*frames) - baseline(*frames)).abs()
        assert (error > 1e-4).float().mean() < 1e-3  # the odd pixel whose offset falls beside a negative integer
        compare(
            f"{name} {preset} 448x256",
            lambda: net(*frames),
            {"plain PyTorch": lambda: baseline(*frames)},
            rounds=rounds,
        )


def latent_diffusion(preset: str) -> LDMVFINet:
    """LDMVFI of random weights; layers that start at zero would make the comparison empty."""
    torch.manual_seed(0)
    net = build("ldmvfi", preset).eval()
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01)
    return net


@pytest.mark.parametrize(("preset", "rounds"), [("published", 5), ("small", 10)])
@torch.no_grad()
def test_denoiser(compare: Compare, preset: str, rounds: int) -> None:
    """One evaluation of the U-Net, for a frame of 256x256."""
    net = latent_diffusion(preset)
    baseline = plain_ldmvfi.plain(net.denoiser)
    side = 256 // net.config.autoencoder.factor
    x, t = torch.randn(1, net.config.denoiser.in_channels, side, side), torch.tensor([500])
    torch.testing.assert_close(net.denoiser(x, t), baseline(x, t), rtol=1e-3, atol=1e-3)
    compare(
        f"ldmvfi {preset}, one U-Net evaluation, 256x256",
        lambda: net.denoiser(x, t),
        {"plain PyTorch": lambda: baseline(x, t)},
        rounds=rounds,
    )


@pytest.mark.parametrize(("preset", "rounds"), [("published", 3), ("small", 5)])
@torch.no_grad()
def test_latent_interpolation(compare: Compare, preset: str, rounds: int) -> None:
    """From two frames to one, four steps of denoising: the least that gives the decoder's part its due."""
    net, steps = latent_diffusion(preset), 4
    baseline = plain_ldmvfi.plain(net)
    assert isinstance(baseline, LDMVFINet)
    frames = torch.rand(2, 1, 3, 256, 256)
    side = 256 // net.config.autoencoder.factor
    noises = torch.randn(steps + 1, 1, net.config.autoencoder.code_width, side, side)

    def ours() -> Tensor:
        pair = net.prepare(*frames)
        generator = torch.Generator().manual_seed(0)
        return net.decode(net.sample(pair, generator=generator, sampling=Sampling(steps=steps, eta=1.0)), pair)

    compare(
        f"ldmvfi {preset}, 256x256, {steps} steps",
        ours,
        {"plain PyTorch": lambda: plain_ldmvfi.middle(baseline, *frames, steps, noises[0], noises[1:])},
        rounds=rounds,
    )
