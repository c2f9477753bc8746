"""FloLPIPS with random weights: what must hold for any."""

import functools

import torch
from torch import Tensor

from vfikit.layers import PWCNet
from vfikit.metrics import LPIPS, FloLPIPS


@functools.cache
def alex() -> dict[str, Tensor]:
    """Random weights under the names of ``lpips.LPIPS(net="alex")``."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    layers = zip(("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10"), shapes, strict=True)
    state = {}
    for number, (name, (outputs, inputs, side)) in enumerate(layers):
        state[f"net.{name}.weight"] = 0.05 * torch.randn(outputs, inputs, side, side, generator=generator)
        state[f"net.{name}.bias"] = torch.zeros(outputs)
        state[f"lin{number}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    return state


def metric() -> FloLPIPS:
    torch.manual_seed(0)
    return FloLPIPS(LPIPS(alex(), "alex"), PWCNet(stretched=True).eval())


def test_equal_frames_and_equal_flows():
    score = metric()
    a, b, previous, following = torch.rand(4, 2, 3, 64, 72)
    assert torch.equal(score(a, a, previous, following), torch.zeros(2))
    uniform = score.weighted(a, b, torch.zeros(2, 2, 64, 72))
    assert torch.allclose(uniform, score.lpips(b, a))


def test_what_moved_wrongly_counts():
    score = metric()
    target = torch.rand(1, 3, 96, 96)
    output = target.clone()
    output[..., :32, :32] = torch.rand(1, 3, 32, 32)
    there, elsewhere = torch.zeros(2, 1, 2, 96, 96)
    there[..., :32, :32], elsewhere[..., -32:, -32:] = 3.0, 3.0
    assert score.weighted(target, output, there) > 3 * score.weighted(target, output, elsewhere)


def test_video_gives_one_score_a_pair():
    assert metric().video(torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)).shape == (2,)
