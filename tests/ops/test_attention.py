"""Attention: its definition against a loop, every backend against it, torch's machinery, when nets take a kernel."""

import os
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vfikit.ops import Attention, _cpu, attention
from vfikit.ops.attention import pays

from . import checks
from .adacof_cases import DEVICES
from .attention_cases import SHAPES, Shape, gradient, make, naive

FORWARD = torch.ops.vfikit.attention.default
SMALL = Shape(2, 3, 5, 7, 4)
LARGE = Shape(1, 2, 256, 256, 64)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_reference_against_naive_loop(shape: Shape) -> None:
    inputs = make(shape, torch.float64)
    torch.testing.assert_close(shape.reference(*inputs), naive(*inputs), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float32(shape: Shape, device: str) -> None:
    checks.float32(shape.op, shape.reference, make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("shape", SHAPES[:5])
def test_kernel_against_reference_float64(shape: Shape) -> None:
    checks.float64(shape.op, shape.reference, make(shape, torch.float64), gradient(shape, torch.float64))


@pytest.mark.parametrize("size", [1e-3, 30, 1e4])
def test_kernel_with_logits_of_any_size(size: float) -> None:
    """Nearly equal weights, and weights that only one key has, however large its logit."""
    q, k, v = make(SHAPES[3])
    exact = attention(size * q.double(), k.double(), v.double())
    torch.testing.assert_close(attention(size * q, k, v).double(), exact, rtol=1e-3 if size > 100 else 2e-5, atol=1e-5)


def test_gradcheck() -> None:
    inputs = tuple(t.requires_grad_() for t in make(SMALL, torch.float64))
    assert torch.autograd.gradcheck(attention, inputs)
    assert torch.autograd.gradgradcheck(attention, inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [SMALL, SHAPES[3]])
def test_opcheck(shape: Shape, dtype: torch.dtype, device: str) -> None:
    torch.library.opcheck(FORWARD, tuple(t.requires_grad_() for t in make(shape, dtype, device)), atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(not (shutil.which("g++") or os.environ.get("VFIKIT_CI")), reason="inductor needs g++")
@pytest.mark.parametrize("dynamic", [False, True])
def test_fullgraph_compile(dynamic: bool) -> None:
    class Op(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v)

    shapes = [SMALL._replace(queries=count, keys=count + 1) for count in ((5, 9) if dynamic else (5,))]
    checks.compiles(Op(), [(make(shape), gradient(shape)) for shape in shapes], dynamic)


def test_autocast_computes_in_float32() -> None:
    checks.autocast(attention, make(SMALL), "cpu")


def test_layouts() -> None:
    """Of any strides; the result's heads lie side by side."""
    inputs, grad = make(SHAPES[3]), gradient(SHAPES[3])
    expected = checks.differentiate(attention, inputs, grad)
    apart = tuple(torch.stack((t, t), -1).flatten(-2)[..., ::2] for t in inputs)
    turned = tuple(t.mT.contiguous().mT for t in inputs)
    for others in (tuple(t.contiguous() for t in inputs), apart, turned):
        for a, b in zip(checks.differentiate(attention, others, grad), expected, strict=True):
            torch.testing.assert_close(a, b)
    q, k, v = make(SMALL)
    assert attention(q, k, v).transpose(1, 2).is_contiguous()
    one = k[:1, :1].expand_as(k)
    torch.testing.assert_close(attention(q, one, v), attention(q, one.contiguous(), v))


def test_rejects_bad_input() -> None:
    q, k, v = make(SMALL)

    def fails(message: str, *tensors: Tensor) -> None:
        with pytest.raises(ValueError, match=f"attention: {message}"):
            attention(*tensors)

    fails(r"q is \(3, 5, 4\), expected \(N, heads, L, width\)", q[0], k, v)
    fails(r"k is \(2, 3, 7, 3\), expected \(2, 3, 7, 4\) for q \(2, 3, 5, 4\)", q, k[..., :3], v)
    fails(r"k is \(2, 3, 0, 4\), expected \(2, 3, M > 0, 4\)", q, k[:, :, :0], v[:, :, :0])
    fails(r"v is \(2, 3, 6, 4\), expected \(2, 3, 7, 4\)", q, k, v[:, :, :6])
    fails(r"v is \(2, 1, 7, 4\)", q, k, v[:, :1])
    fails(r"k is torch.float64 on cpu, expected torch.float32 on cpu like q", q, k.double(), v)


def test_flops_are_those_of_two_products() -> None:
    q, k, v = make(LARGE)
    with FlopCounterMode(display=False) as counter:
        attention(q, k, v)
    assert counter.get_total_flops() == 2 * 2 * 2 * 256 * 256 * 64


def test_module_takes_the_kernel_where_it_pays() -> None:
    q, k, v = make(LARGE)
    assert pays(q, k, v) == _cpu.available()
    expected = attention(q.double(), k.double(), v.double()).float()
    torch.testing.assert_close(Attention()(q, k, v), expected, rtol=1e-4, atol=1e-5)
    assert Attention()(q, k, v).transpose(1, 2).is_contiguous() or not _cpu.available()
    for t in (q, k, v):
        t.requires_grad_()
    assert not pays(q, k, v)
    with torch.no_grad():
        assert pays(q, k, v) == _cpu.available()
        assert not pays(q[:, :, :16], k, v)
        assert not pays(q, k[:, :, :16], v[:, :, :16])
        assert not pays(*(t.repeat(1, 1, 1, 3) for t in (q, k, v)))
        assert not pays(q.double(), k.double(), v.double())
        assert not pays(q.to("meta"), k.to("meta"), v.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not pays(q, k, v)


def test_empty_batch() -> None:
    q, k, v = make(SMALL)
    assert attention(q[:0], k[:0], v[:0]).shape == (0, *q.shape[1:])
    assert attention(q[:, :, :0], k, v).shape == (2, 3, 0, 4)
