"""Layers over video: what each is by definition, how it starts, what it refuses."""

import copy
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import (
    GaussianPosterior,
    JointSpaceTimeAttention,
    PaddedConv3d,
    PaddedConvTranspose3d,
    RelativeAttention,
    SpaceTimeAttention,
    SpaceTimeTransformer,
    VideoResBlock,
)

Layer = TypeVar("Layer", bound=nn.Module)


def randomised(layer: Layer, seed: int = 0) -> Layer:
    """Without the zeros that layers start with, in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer.double()


def video(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_padding_continues_the_border() -> None:
    """A kernel of ones over a constant video counts the taps, at the borders too."""
    layer = PaddedConv3d(1, 1, 4, (1, 2, 2))
    nn.init.ones_(layer.weight)
    made = layer(torch.ones(1, 1, 5, 7, 6)) - layer.bias
    assert made.shape == (1, 1, 5, 3, 3)
    torch.testing.assert_close(made, torch.full_like(made, 64))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="without oneDNN there is one way only")
def test_small_videos_take_the_fast_way() -> None:
    """What torch takes for small goes another way, to the same; a difference along each axis would show."""
    layer, x = PaddedConv3d(8, 4, (2, 3, 5), (1, 2, 1)), torch.randn(1, 8, 6, 40, 62)
    with torch.profiler.profile() as profile:
        made = layer(x)
    assert "aten::mkldnn_convolution" in {event.key for event in profile.key_averages()}
    exact = copy.deepcopy(layer).double()  # float64 has one way only
    made.square().sum().backward()
    expected = exact(x.double())
    expected.square().sum().backward()
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=1e-5)
    for name in ("weight", "bias"):
        ours, theirs = layer.get_parameter(name).grad, exact.get_parameter(name).grad
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 1, 1)])
def test_transposed_sizes(stride: tuple[int, int, int]) -> None:
    made = PaddedConvTranspose3d(2, 3, 4, stride)(torch.randn(1, 2, 3, 5, 4))
    assert made.shape == (1, 3, 3 * stride[0], 5 * stride[1], 4 * stride[2])


TABLE, ROWS = "relative_position", "embeddings_table"


def naive(layer: RelativeAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """One pair of times after the other."""
    frames, width = q.shape[2:]
    keys, values = layer.get_parameter(f"{TABLE}_k.{ROWS}"), layer.get_parameter(f"{TABLE}_v.{ROWS}")
    length = len(keys) // 2
    made = torch.zeros_like(q)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            logits = q.new_zeros(frames, frames)
            for i in range(frames):
                for j in range(frames):
                    ahead = min(max(j - i, -length), length) + length
                    back = min(max(i - j, -length), length) + length
                    logits[i, j] = q[n, h, i] @ k[n, h, j] / width**0.5
                    if layer.kind == "published":
                        logits[i, j] += q[n, h, j] @ keys[back] / width**0.25
                    else:
                        logits[i, j] += q[n, h, i] @ keys[ahead] / width**0.5
                    if not mask[i, j]:
                        logits[i, j] = float("-inf")
            weights = logits.softmax(-1)
            for i in range(frames):
                for j in range(frames):
                    ahead = min(max(j - i, -length), length) + length
                    made[n, h, i] += weights[i, j] * (v[n, h, j] + values[ahead])
    return made


@pytest.mark.parametrize("kind", ["published", "regular"])
def test_relative_attention_is_its_definition(kind: str) -> None:
    layer = randomised(RelativeAttention(3, 2, kind))
    q, k, v = video(3, 2, 2, 5, 3).unbind(0)
    mask = torch.ones(5, 5).tril()
    torch.testing.assert_close(layer(q, k, v, mask), naive(layer, q, k, v, mask))


def test_relative_attention_refuses_other_kinds() -> None:
    with pytest.raises(ValueError, match="kind is 'other', expected one of published, regular, none"):
        RelativeAttention(4, 2, "other")


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "published": lambda: SpaceTimeAttention(8, 2, 3, groups=4),
    "regular": lambda: SpaceTimeAttention(8, 2, 3, "regular", groups=4),
    "none": lambda: SpaceTimeAttention(8, 2, 3, "none", groups=4),
    "joint": lambda: JointSpaceTimeAttention(8, 2, groups=4),
    "transformer": lambda: SpaceTimeTransformer(8, 8, 2, 3, groups=4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_attention_starts_as_its_residual(name: str) -> None:
    x = torch.randn(2, 8, 4, 3, 5)
    torch.testing.assert_close(LAYERS[name]()(x), x)


@pytest.mark.parametrize("name", LAYERS)
def test_attention_keeps_items_apart_and_input_whole(name: str) -> None:
    layer, x = randomised(LAYERS[name]()), video(2, 8, 4, 3, 5)
    kept = x.clone()
    made = layer(x)
    torch.testing.assert_close(made, torch.cat([layer(x[:1]), layer(x[1:])]))
    assert torch.equal(x, kept)
    assert (made - x).abs().max() > 0.01


@pytest.mark.parametrize("name", LAYERS)
def test_attention_in_half_precision(name: str) -> None:
    layer, x = randomised(LAYERS[name]()), video(1, 8, 4, 3, 5)
    exact = layer(x)
    torch.testing.assert_close(layer.bfloat16()(x.bfloat16()).double(), exact, rtol=0.1, atol=0.2)


def test_transformer_without_text_attends_within_frames() -> None:
    layer, x = randomised(SpaceTimeTransformer(8, 0, 2, 3, groups=4)), video(1, 8, 4, 3, 5)
    layer.norm = nn.Identity()  # whose statistics are of all frames
    for block in layer.transformer_blocks:
        block.reset_parameters()  # nothing along time
    torch.testing.assert_close(layer(x), torch.cat([layer(x[:, :, i : i + 1]) for i in range(4)], dim=2))


def test_joint_attention_sees_all_frames() -> None:
    layer = randomised(JointSpaceTimeAttention(8, 2, groups=4))
    x = video(1, 8, 4, 3, 5).requires_grad_()
    layer(x)[0, 0, 0, 0, 0].backward()
    assert x.grad is not None
    assert (x.grad.abs().amax((0, 1)) > 0).all()


def test_embedding_a_frame() -> None:
    """Equal embeddings for all frames are one embedding; another for one frame changes that frame most."""
    block = randomised(VideoResBlock(8, 8, 6, groups=4))
    x, emb = video(1, 8, 4, 3, 5), video(1, 6)
    frames = emb[:, None].repeat(1, 4, 1)
    torch.testing.assert_close(block(x, frames), block(x, emb))
    frames[:, 2] += 1
    changed = (block(x, frames) - block(x, emb)).abs().amax((0, 1, 3, 4))
    assert changed[2] > 0.01
    assert changed[[0, 1, 3]].max() < 1e-12


def test_posterior_is_standard_at_zero() -> None:
    posterior = GaussianPosterior.of(torch.zeros(2, 6, 2, 3, 4))
    assert posterior.kl().tolist() == [0, 0]
    noise = torch.randn(2, 3, 2, 3, 4)
    torch.testing.assert_close(posterior.sample(noise), noise)
    assert torch.equal(
        posterior.sample(generator=torch.Generator().manual_seed(3)),
        posterior.sample(generator=torch.Generator().manual_seed(3)),
    )
