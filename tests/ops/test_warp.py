"""warp: positions, borders, gradients, types."""

import pytest
import torch

from vfikit.ops import warp


def test_whole_pixels_move_and_zeros_come_in():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    assert torch.allclose(warp(x, flow), x)
    flow[:, 0], flow[:, 1] = 1, -1
    moved = warp(x, flow)
    assert torch.allclose(moved[..., 1:, :-1], x[..., :-1, 1:])
    assert moved[..., 0, :].abs().max() < 1e-4
    assert moved[..., -1].abs().max() < 1e-4
    assert torch.allclose(warp(x, flow, padding_mode="border")[0, 0, 0], torch.tensor([1.0, 2, 3, 4, 4]))


def test_fractions_mix_neighbours():
    x = torch.tensor([[[[0.0, 4.0]]]])
    flow = torch.zeros(1, 2, 1, 2)
    flow[:, 0] = 0.25
    assert torch.allclose(warp(x, flow), torch.tensor([[[[1.0, 3.0]]]]))


def test_flow_may_have_a_size_of_its_own():
    x = torch.rand(2, 3, 7, 5)
    assert torch.allclose(warp(x, torch.zeros(2, 2, 3, 4)), x[..., :3, :4], atol=1e-6)


def test_gradients():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (2 * torch.rand(1, 2, 5, 6, dtype=torch.float64) - 1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, flow))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_keep_their_positions(dtype):
    x = torch.rand(1, 1, 8, 3840).to(dtype)
    out = warp(x, torch.zeros(1, 2, 8, 3840, dtype=dtype))
    assert out.dtype == dtype
    assert (out.float() - x.float()).abs().max() < 2 * torch.finfo(dtype).eps


def test_rejects():
    with pytest.raises(ValueError, match=r"warp: x is \(1, 2, 5, 6\) and flow \(1, 3, 5, 6\), expected"):
        warp(torch.zeros(1, 2, 5, 6), torch.zeros(1, 3, 5, 6))
