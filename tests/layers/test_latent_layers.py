"""Layers of autoencoders and denoisers: what each is by definition, how it starts, what it refuses."""

import math

import pytest
import torch
from torch import nn

from vfikit.layers import (
    Downsample,
    HeadAttention,
    LinearAttention,
    PixelAttention,
    PositionedCrossAttention,
    ResnetBlock,
    SeparableSynthesis,
    SpatialTransformer,
    TimeResBlock,
    TransposedUpsample,
    Upsample,
    VectorQuantizer,
)
from vfikit.layers.embeddings import position_embedding, timestep_embedding
from vfikit.layers.norms import group_norm


def test_timestep_embedding() -> None:
    t = torch.tensor([0, 3, 999])
    first, second = timestep_embedding(t, 6), timestep_embedding(t, 6, cosine_first=False)
    for row, time in enumerate(t.tolist()):
        for i in range(3):
            angle = time * 10000 ** (-i / 3)
            assert first[row, i].item() == pytest.approx(math.cos(angle), abs=2e-4)
            assert first[row, i + 3].item() == pytest.approx(math.sin(angle), abs=2e-4)
            angle = time * 10000 ** (-i / 2)
            assert second[row, i].item() == pytest.approx(math.sin(angle), abs=2e-4)
    assert timestep_embedding(t, 7)[:, 6].tolist() == [0, 0, 0]
    assert timestep_embedding(t.double(), 6).dtype == torch.float64


def test_position_embedding() -> None:
    places = position_embedding(3, 5, 12)
    assert places.shape == (15, 12)
    y, x = 2, 3
    frequencies = torch.tensor([1.0, 0.01, 0.0001])
    expected = torch.cat([(x * frequencies).sin(), (x * frequencies).cos(), (y * frequencies).sin()])
    torch.testing.assert_close(places[y * 5 + x, :9], expected)
    with pytest.raises(ValueError, match="6 channels, expected a multiple of 4"):
        position_embedding(3, 5, 6)


def test_group_norm() -> None:
    assert group_norm(24, 8).num_groups == 8
    assert group_norm(24, -4).num_groups == 6
    for groups in (7, -5):
        with pytest.raises(ValueError, match="24 channels do not make"):
            group_norm(24, groups)
    norm = group_norm(8, 2)
    x = 100 + torch.randn(2, 8, 5, 5)
    half = norm.half()(x.half())
    assert half.dtype == torch.float16
    exact = nn.functional.group_norm(x.half().float(), 2, eps=1e-6)
    assert (half.float() - exact).abs().max() < 2e-3  # statistics in half would lose all of it


@pytest.mark.parametrize("resample", ["none", "up", "down"])
@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_time_block_starts_as_its_residual(resample: str, scale_shift: bool) -> None:
    layer = TimeResBlock(8, 8, 6, scale_shift=scale_shift, resample=resample, groups=-4)
    x, emb = torch.randn(2, 8, 4, 6), torch.randn(2, 6)
    wanted = {"none": lambda x: x, "up": Upsample(), "down": Downsample()}[resample](x)
    assert torch.equal(layer(x, emb), wanted)
    nn.init.normal_(layer.out_layers[-1].weight)
    assert not torch.equal(layer(x, emb), layer(x, emb + 1))
    layer.reset_parameters()
    assert torch.equal(layer(x, emb), wanted)


def test_resnet_block() -> None:
    layer = ResnetBlock(8, 12, time_channels=6, conv_shortcut=True, groups=4)
    x, emb = torch.randn(2, 8, 4, 6), torch.randn(2, 6)
    assert layer(x, emb).shape == (2, 12, 4, 6)
    assert not torch.equal(layer(x, emb), layer(x, emb + 1))
    with pytest.raises(ValueError, match="no time embedding"):
        layer(x)


def test_sizes() -> None:
    x = torch.randn(1, 4, 7, 9)
    assert Downsample(4, 6)(x).shape == (1, 6, 4, 5)
    assert Downsample(4, asymmetric=True)(x).shape == (1, 4, 3, 4)
    assert Downsample()(x).shape == (1, 4, 3, 4)
    assert Upsample(4, 6)(x).shape == (1, 6, 14, 18)
    assert torch.equal(Upsample()(x)[..., ::2, 1::2], x)
    assert TransposedUpsample(4, 6)(x).shape == (1, 6, 17, 21)


def test_attention_starts_as_its_residual() -> None:
    x = torch.randn(2, 8, 4, 6)
    assert torch.equal(HeadAttention(8, 4, groups=2)(x), x)
    assert torch.equal(SpatialTransformer(8, 5, 4, groups=2)(x, torch.randn(2, 5, 3, 3)), x)


def test_attention_ignores_the_order_of_pixels() -> None:
    """But for what knows of places, a permutation of pixels goes through."""
    x = torch.randn(2, 8, 4, 6)
    order = torch.randperm(24)

    def shuffled(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2)[..., order].view_as(x)

    plain: list[nn.Module] = [PixelAttention(8, 2), LinearAttention(8), HeadAttention(8, 4, 2)]
    for layer in plain:
        torch.testing.assert_close(layer(shuffled(x)), shuffled(layer(x)), rtol=1e-4, atol=1e-5)
    placed = PositionedCrossAttention(8, 4)
    assert (placed(shuffled(x)) - shuffled(placed(x))).abs().max() > 1e-3


def test_heads_must_fit() -> None:
    for layer in (HeadAttention, PositionedCrossAttention):
        with pytest.raises(ValueError, match="8 channels, expected a multiple of head_width 3"):
            layer(8, 3)


def test_codes() -> None:
    layer = VectorQuantizer(3, 2)
    layer.embedding.weight.data.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
    z = torch.tensor([[0.9, 0.2], [0.9, 0.1]]).view(1, 2, 1, 2).requires_grad_()
    found = layer(z)
    assert found.indices.tolist() == [1, 0]  # of equal codes the first
    torch.testing.assert_close(found.latent, torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 2, 1, 2))
    (grad,) = torch.autograd.grad(found.latent.sum(), z)
    assert torch.equal(grad, torch.ones_like(z))  # straight through
    difference = (found.latent - z).detach().square().mean()
    torch.testing.assert_close(found.loss.detach(), 1.25 * difference)
    usage = layer.usage(torch.tensor([[0, 1], [1, 0]]))
    assert usage.used == pytest.approx(2 / 3)
    assert usage.perplexity == pytest.approx(2)
    with pytest.raises(ValueError, match=r"z is \(1, 3, 2, 2\), expected \(N, 2, H, W\)"):
        layer(torch.zeros(1, 3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):  # codes are told apart in float32
        layer.embedding.weight.data.copy_(torch.tensor([[1.0, 1.0], [1.001, 1.0], [0.0, 0.0]]))
        assert layer.nearest(torch.tensor([1.0011, 1.0]).view(1, 2, 1, 1)).tolist() == [1]


@pytest.mark.parametrize("taps", [3, 5])
def test_synthesis_starts_at_the_average(taps: int) -> None:
    layer = SeparableSynthesis(6, taps, hidden=(5, 4))
    frame0, frame1 = torch.rand(2, 1, 3, 12, 17)
    still = layer(torch.zeros(1, 6, 12, 17), frame0, frame1)
    torch.testing.assert_close(still.frame, (frame0 + frame1) / 2)
    made = layer(torch.randn(1, 6, 12, 17), frame0, frame1)
    torch.testing.assert_close(made.frame, made.sampled0 + made.sampled1 + made.residual)
    assert {name: m.shape[1] for name, m in made.maps.items()} == {
        **dict.fromkeys(("alpha1", "alpha2", "beta1", "beta2", "mask"), taps**2),
        **dict.fromkeys(("vertical1", "vertical2", "horizontal1", "horizontal2"), taps),
        "residual": 3,
    }
    assert ((made.maps["mask"] > 0) & (made.maps["mask"] < 1)).all()
