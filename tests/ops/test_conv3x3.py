"""3x3 convolution: its definition against a loop, every backend against it, torch's machinery, when a net takes it."""

import os
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vfikit.ops import Conv3x3, _cpu, conv3x3
from vfikit.ops.conv3x3 import pays

from . import checks
from .adacof_cases import DEVICES
from .conv3x3_cases import SHAPES, Shape, gradient, make, naive

FORWARD = torch.ops.vfikit.conv3x3.default
SMALL = Shape((2, 4, 6, 5), 6, groups=2)
VIDEO = Shape((2, 3, 3, 4, 6), 5)


@pytest.mark.parametrize("shape", [SMALL, SHAPES[2], SHAPES[6]])
def test_reference_against_naive_loop(shape: Shape) -> None:
    inputs = make(shape, torch.float64)
    torch.testing.assert_close(shape.reference(*inputs), naive(shape, *inputs), rtol=1e-11, atol=1e-11)


def test_video_is_a_convolution_of_every_frame() -> None:
    x, weight, bias = make(VIDEO)
    each = torch.stack([VIDEO.op(frame, weight, bias) for frame in x.unbind(2)], dim=2)
    torch.testing.assert_close(VIDEO.op(x, weight, bias), each)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float32(shape: Shape, device: str) -> None:
    checks.float32(shape.op, shape.reference, make(shape, device=device), gradient(shape, device=device))
    x, weight, bias = make(shape, device=device)
    torch.testing.assert_close(shape.op(x, weight), shape.op(x, weight, torch.zeros_like(bias)))


@pytest.mark.parametrize("shape", SHAPES[:8])
def test_kernel_against_reference_float64(shape: Shape) -> None:
    checks.float64(shape.op, shape.reference, make(shape, torch.float64), gradient(shape, torch.float64))


@pytest.mark.parametrize("shape", [SMALL, VIDEO])
def test_gradcheck(shape: Shape) -> None:
    inputs = tuple(t.requires_grad_() for t in make(shape, torch.float64))
    assert torch.autograd.gradcheck(shape.op, inputs)
    assert torch.autograd.gradgradcheck(shape.op, inputs)


@pytest.mark.parametrize("wanted", range(3))
def test_each_gradient_alone(wanted: int) -> None:
    for shape in (SMALL, VIDEO):
        inputs, grad = list(make(shape)), gradient(shape)
        expected = checks.differentiate(shape.op, tuple(inputs), grad)[1 + wanted]
        leaf = inputs[wanted].clone().requires_grad_()
        inputs[wanted] = leaf
        torch.testing.assert_close(torch.autograd.grad(shape.op(*inputs), leaf, grad)[0], expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [SMALL, VIDEO, SHAPES[3], SHAPES[5]])
def test_opcheck(shape: Shape, dtype: torch.dtype, device: str) -> None:
    for with_bias in (True, False):
        x, weight, bias = (t.requires_grad_() for t in make(shape, dtype, device))
        arguments = (x, weight, bias if with_bias else None, list(shape.padding), shape.groups)
        torch.library.opcheck(FORWARD, arguments, atol=2e-2, rtol=2e-2)


class Convolved(nn.Module):
    """With everything as an input, so that one test serves all tensors."""

    def forward(self, *tensors: Tensor) -> Tensor:
        return SMALL.op(*tensors)


@pytest.mark.skipif(not (shutil.which("g++") or os.environ.get("VFIKIT_CI")), reason="inductor needs g++")
@pytest.mark.parametrize("dynamic", [False, True])
def test_fullgraph_compile(dynamic: bool) -> None:
    shapes = [SMALL._replace(input=(2, 4, height, 5)) for height in ((6, 9) if dynamic else (6,))]
    checks.compiles(Convolved(), [(make(shape), gradient(shape)) for shape in shapes], dynamic)


def test_autocast_computes_in_float32() -> None:
    checks.autocast(SMALL.op, make(SMALL), "cpu")


def test_layouts() -> None:
    inputs, grad = make(SMALL), gradient(SMALL)
    expected = checks.differentiate(SMALL.op, inputs, grad)
    last = tuple(t if t.ndim < 4 else t.to(memory_format=torch.channels_last) for t in inputs)
    apart = tuple(torch.stack((t, t), -1).flatten(-2)[..., ::2] for t in inputs)
    turned = (inputs[0].mT.contiguous().mT, *inputs[1:])
    for others in (last, apart, turned):
        for a, b in zip(checks.differentiate(SMALL.op, others, grad), expected, strict=True):
            torch.testing.assert_close(a, b)
    assert SMALL.op(*last).is_contiguous(memory_format=torch.channels_last)
    assert SMALL.op(*inputs).is_contiguous()
    wide = make(SMALL._replace(input=(2, 8, 6, 5)))[0]
    for part in (wide[:, 2:6], wide.contiguous(memory_format=torch.channels_last)[:, 2:6]):
        torch.testing.assert_close(SMALL.op(part, *inputs[1:]), SMALL.reference(part, *inputs[1:]))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_layout_of_an_empty_batch(device: str) -> None:
    image, weight, bias = make(SMALL, device=device)
    assert SMALL.op(image[:0], weight, bias).shape == (0, *gradient(SMALL).shape[1:])


def test_rejects_bad_input() -> None:
    image, weight, bias = make(SMALL)

    def fails(message: str, *tensors: Tensor, **others: object) -> None:
        with pytest.raises(ValueError, match=f"conv3x3: {message}"):
            conv3x3(*tensors, **({"groups": 2} | others))  # type: ignore[arg-type]

    fails(r"input is \(4, 6, 5\), expected \(N, C, H, W\)", image[0], weight, bias)
    fails(r"weight is \(6, 2, 3, 3\), expected \(O, C / groups, 3, 3\) with groups \(1\)", image, weight, groups=1)
    fails(r"weight is \(6, 2, 3, 2\)", image, weight[..., :2])
    fails(r"weight is \(5, 2, 3, 3\)", image, weight[:5])
    fails(r"bias is \(5,\), expected \(6,\)", image, weight, bias[:5])
    fails(r"bias is torch.float64 on cpu, expected torch.float32 on cpu like input", image, weight, bias.double())
    fails(r"weight is torch.float32 on cpu, expected .* on meta", image.to("meta"), weight)
    fails(r"padding is \[1, 1, 1\]", image, weight, padding=(1, 1, 1))
    fails(r"input is \(2, 4, 2, 5\), too small for padding \[0, 0\]", image[:, :, :2], weight, padding=0)


def test_flops_are_those_of_the_definition() -> None:
    for shape in (SMALL, VIDEO):
        counts = []
        for function in (shape.op, shape.reference):
            with FlopCounterMode(display=False) as counter:
                function(*make(shape))
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1] > 0


def test_module_is_a_convolution() -> None:
    torch.manual_seed(0)
    ours = Conv3x3(64, 96, groups=1)
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 96, 3, padding=1)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(1, 64, 24, 24)
    torch.testing.assert_close(ours(x), plain(x))
    ours.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert not _cpu.available() or pays(x, ours.weight, (1, 1))
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-4, atol=1e-5)
        for change in (lambda: ours.weight.data.mul_(2), lambda: ours.weight.detach().numpy().fill(0.01)):
            change()  # nothing of the weights is remembered
            torch.testing.assert_close(
                ours(x),
                ours._conv_forward(x.double(), ours.weight.double(), None).float() + ours.bias[:, None, None],
                rtol=1e-4,
                atol=1e-5,
            )


def test_module_leaves_the_rest_to_torch() -> None:
    wide, narrow = torch.randn(96, 64, 3, 3), torch.randn(96, 16, 3, 3)
    x = torch.randn(1, 64, 24, 24)
    assert pays(x, wide, (1, 1)) == _cpu.available()
    assert not pays(torch.randn(1, 16, 64, 64), narrow, (1, 1))
    assert not pays(x[..., :4], wide, (1, 1))
    assert not pays(x.double(), wide.double(), (1, 1))
    assert not pays(x.to("meta"), wide, (1, 1))
    assert not pays(x, nn.Parameter(wide), (1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x, wide, (1, 1))


def test_module_takes_few_planes_that_torch_would_fill_up() -> None:
    x, last = torch.randn(1, 20, 64, 64), torch.channels_last
    for outputs in (16, 25):
        assert pays(x, torch.randn(outputs, 20, 3, 3), (1, 1)) == _cpu.available()
    assert not pays(x.contiguous(memory_format=last), torch.randn(25, 20, 3, 3), (1, 1))
    assert not pays(x[:, :, :20], torch.randn(25, 20, 3, 3), (1, 1))
    assert not pays(x[:, :16], torch.randn(32, 16, 3, 3), (1, 1))
    assert not pays(x[:, :12], torch.randn(16, 12, 3, 3), (1, 1))
