"""Multi-axis attention: windows, the relative bias, attention written out, the batch norm that torch gets wrong."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import MaxAttention, MaxCrossAttention, MBConv, WindowAttention
from vfikit.layers.maxvit import from_windows, to_windows


@pytest.mark.parametrize("grid", [False, True])
def test_windows(grid: bool) -> None:
    x = torch.arange(2 * 6 * 9, dtype=torch.float32).view(2, 6, 9, 1)
    windows = to_windows(x, 3, grid)
    assert windows.shape == (2 * 2 * 3, 9, 1)
    assert torch.equal(from_windows(windows, 6, 9, 3, grid), x)
    first = x[0, ::2, ::3] if grid else x[0, :3, :3]
    assert torch.equal(windows[0], first.reshape(9, 1))


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_bias(window: int) -> None:
    """Against the definition, one number at a time."""
    layer = WindowAttention(4, 2, window)
    bias, table = layer.bias(), layer.rel_pos_bias.weight
    assert bias.shape == (2, window**2, window**2)
    for query in range(0, window**2, max(1, window - 1)):
        for key in range(window**2):
            dy, dx = query // window - key // window, query % window - key % window
            row = (dy + window - 1) * (2 * window - 1) + dx + window - 1
            assert torch.equal(bias[:, query, key], table[row])


def test_attention_written_out() -> None:
    layer = WindowAttention(6, 3, 2).double()
    x, context = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    q, k, v = layer.to_q(x), layer.to_k(context), layer.to_v(context)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        scores = q[..., part] @ k[..., part].transpose(1, 2) * 3**-0.5 + layer.bias()[head]
        heads.append(scores.softmax(-1) @ v[..., part])
    torch.testing.assert_close(layer(x, context), layer.to_out(torch.cat(heads, -1)))


def test_how_far_it_sees() -> None:
    """One pixel reaches its window by blocks and then the whole map by the grid."""
    layer = MaxAttention(4, 2, 2).double()
    x = torch.randn(1, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    layer(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    assert seen[:, :4].all()  # the blocks of the pixels at columns 0 and 3
    assert not seen[:, 4:].any()


def test_errors() -> None:
    with pytest.raises(ValueError, match="MaxAttention: a map of 6 x 8, expected multiples of window 4"):
        MaxAttention(4, 2, 4)(torch.zeros(1, 4, 6, 8))
    with pytest.raises(ValueError, match="6 channels, expected a multiple of head_width 4"):
        WindowAttention(6, 4, 2)
    layer = MaxCrossAttention(4, 6, 2, 2)
    with pytest.raises(ValueError, match=r"context is \(1, 6, 5, 4\), expected a multiple of x \(1, 4, 4, 4\)"):
        layer(torch.zeros(1, 4, 4, 4), torch.zeros(1, 6, 5, 4))
    with pytest.raises(ValueError, match="expected a multiple of x"):
        layer(torch.zeros(1, 4, 4, 4), torch.zeros(2, 6, 4, 4))


def test_a_larger_context_is_averaged() -> None:
    layer = MaxCrossAttention(4, 6, 2, 2).eval()
    x, context = torch.randn(2, 4, 4, 6), torch.randn(2, 6, 12, 18)
    torch.testing.assert_close(layer(x, context), layer(x, nn.functional.avg_pool2d(context, 3)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradient_of_batch_norm(batch: int, training: bool) -> None:
    """A map of one window, where torch 2.13's batch norm takes the gradient's strides for others."""
    torch.manual_seed(0)
    layer = MaxCrossAttention(4, 4, 4, 2).double().train(training)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # so that every call of a gradient check is of one function
            nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(batch, 4, 2, 2, dtype=torch.float64)

    def run(context: Tensor) -> Tensor:
        return layer(x, context).square().sum()

    context = torch.randn(batch, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, context)


def test_strides_that_batch_norm_takes_for_others() -> None:
    """The same gradient, contiguous and as a window partition lays it out: channels-last, an odd batch stride."""
    layer, x = MBConv(3, 4).double().eval(), torch.randn(1, 3, 5, 6, dtype=torch.float64)
    grad = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    odd = torch.empty(200, dtype=torch.float64).as_strided((1, 4, 5, 6), (4, 1, 24, 4)).copy_(grad)
    results = [torch.autograd.grad(layer(x), list(layer.parameters()), g) for g in (grad, odd)]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_mbconv() -> None:
    layer = MBConv(3, 8, downsample=True)
    assert layer(torch.zeros(2, 3, 7, 8)).shape == (2, 8, 4, 4)
    assert layer[6].gate[1].weight.shape == (8, 32)
