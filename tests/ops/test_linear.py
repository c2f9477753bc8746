"""Linear layers by oneDNN: the same numbers, and when."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.ops import Linear, linear
from vfikit.ops.linear import LEAST_ROWS

CONVOLVED = ("aten::conv2d", "aten::convolution")


def took_convolution(*inputs: Tensor | None) -> bool:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        linear(*inputs)  # type: ignore[arg-type]
    return any(event.key in CONVOLVED for event in profile.key_averages())


@pytest.mark.parametrize("shape", [(600, 24), (3, 200, 24), (2, 20, 20, 24), (1, 24), (24,), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    x, weight, b = torch.randn(shape), torch.randn(40, 24), torch.randn(40) if bias else None
    expected = nn.functional.linear(x, weight, b)
    torch.testing.assert_close(linear(x, weight, b), expected, rtol=1e-5, atol=1e-5)
    apart = torch.stack((x, x), -1)[..., 0]
    torch.testing.assert_close(linear(apart, weight, b), expected, rtol=1e-5, atol=1e-5)
    for dtype in (torch.float64, torch.bfloat16):
        cast = [None if t is None else t.to(dtype) for t in (x, weight, b)]
        assert torch.equal(linear(*cast), nn.functional.linear(*cast))  # type: ignore[arg-type]


def test_module_is_a_linear_layer() -> None:
    ours, plain = Linear(24, 40), nn.Linear(24, 40)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(600, 24, requires_grad=True)
    torch.testing.assert_close(ours(x), plain(x))
    (ours(x).sum() - plain(x).sum()).backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_takes_a_convolution_where_that_is_faster() -> None:
    x, weight, bias = torch.randn(LEAST_ROWS, 24), torch.randn(40, 24), torch.randn(40)
    assert took_convolution(x, weight, bias)
    assert took_convolution(x, weight, None)
    assert not took_convolution(x[1:], weight, bias)
    assert not took_convolution(x, nn.Parameter(weight), bias)
    assert not took_convolution(x.double(), weight.double(), bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not took_convolution(x, weight, bias)
    with torch.no_grad():
        assert took_convolution(x, nn.Parameter(weight), bias)
