"""Flow and what follows it: SPyNet's pairs, offsets that flow guides, the order of flows."""

import pytest
import torch
from torch import Tensor

from vfikit.layers import SPyNet
from vfikit.layers.propagation import BidirectionalPropagation, DeformableAlignment
from vfikit.ops import warp


def test_flows_between_frames_are_those_of_pairs() -> None:
    torch.manual_seed(0)
    net, frames = SPyNet(3, (4, 4)), torch.rand(2, 4, 3, 13, 18)
    ahead, back = net.between(frames)
    assert ahead.shape == back.shape == (2, 3, 2, 13, 18)
    for k in range(3):
        assert torch.allclose(ahead[:, k], net(frames[:, k], frames[:, k + 1]), atol=1e-5)
        assert torch.allclose(back[:, k], net(frames[:, k + 1], frames[:, k]), atol=1e-5)
    with pytest.raises(ValueError, match=r"SPyNet: first is \(1, 3, 8, 8\), second \(1, 3, 8, 9\)"):
        net(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))


def test_an_untrained_alignment_follows_the_flow() -> None:
    """Offsets begin as the flows: whole pixels move the map, and all masks are one half."""
    torch.manual_seed(0)
    layer = DeformableAlignment(4, 2).double()
    layer.start_as_warp()
    x = torch.randn(1, 8, 9, 10, dtype=torch.float64)
    flow = torch.zeros(1, 2, 9, 10, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 2, -1
    out = layer(x, torch.randn(1, 12, 9, 10, dtype=torch.float64), flow, torch.zeros_like(flow))
    assert torch.allclose(out, warp(x[:, :4], flow), atol=1e-12)


def straight(channels: int, own_flows: bool) -> BidirectionalPropagation:
    layer = BidirectionalPropagation(channels, 2, own_flows=own_flows).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return layer


def run(own_flows: bool, frames: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
    torch.manual_seed(0)
    return straight(4, own_flows)(frames, ahead, back)


def test_the_order_of_flows() -> None:
    """With two frames there is one flow; with more, the backward branch differs, the rest being the same."""
    generator = torch.Generator().manual_seed(0)
    frames, ahead, back = (
        torch.randn(1, n, c, 6, 7, generator=generator, dtype=torch.float64) for n, c in ((4, 4), (3, 2), (3, 2))
    )
    assert torch.equal(
        run(True, frames[:, :2], ahead[:, :1], back[:, :1]), run(False, frames[:, :2], ahead[:, :1], back[:, :1])
    )
    assert not torch.allclose(run(True, frames, ahead, back), run(False, frames, ahead, back))
    assert torch.equal(run(True, frames, ahead, back), run(False, frames, ahead.flip(1), back))
    alike = ahead[:, :1].expand(-1, 3, -1, -1, -1)
    assert torch.equal(run(True, frames, alike, back), run(False, frames, alike, back))


def test_gradients_reach_flows() -> None:
    torch.manual_seed(0)
    layer = straight(4, False)
    inputs = [torch.randn(1, n, c, 5, 6, dtype=torch.float64, requires_grad=True) for n, c in ((3, 4), (2, 2), (2, 2))]
    gradients = torch.autograd.grad(layer(*inputs).square().sum(), (*inputs, *layer.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
