"""Deformable convolution: its definition against a loop, every backend against it, torch's machinery."""

import os
import shutil

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vfikit.ops import ModulatedDeformConv2d, deform_conv2d
from vfikit.ops._deform_conv import deform_conv2d_backward_reference

from . import checks
from .adacof_cases import DEVICES
from .deform_conv2d_cases import SHAPES, Shape, gradient, make, naive, op, reference

FORWARD, BACKWARD = torch.ops.vfikit.deform_conv2d.default, torch.ops.vfikit.deform_conv2d_backward.default
SMALL = Shape(2, 4, 6, 5, 6, moved=2)


@pytest.mark.parametrize("spread", [1.0, 9.0])
@pytest.mark.parametrize("shape", [*SHAPES[:4], SHAPES[5]])
def test_reference_against_naive_loop(shape: Shape, spread: float) -> None:
    inputs = make(shape, torch.float64, spread=spread)
    torch.testing.assert_close(reference(shape)(*inputs), naive(shape, *inputs), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [op, reference])
def test_whole_offsets_against_naive_loop(function, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    image, offset, *others = make(SMALL, dtype, spread=3.0)
    inputs = (image, offset.round(), *others)
    exact = naive(SMALL, *(t.double() for t in inputs))
    torch.testing.assert_close(function(SMALL)(*inputs).double(), exact, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("function", [op, reference])
def test_zero_offsets_are_a_convolution(function) -> None:  # type: ignore[no-untyped-def]
    for shape in SHAPES:
        image, offset, weight, bias, mask = make(shape, torch.float64)
        plain = torch.nn.functional.conv2d(image, weight, bias, *shape.steps, groups=shape.groups)
        zero, one = torch.zeros_like(offset), torch.ones_like(mask)
        for result in (function(shape)(image, zero, weight, bias, one), function(shape)(image, zero, weight, bias)):
            torch.testing.assert_close(result, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("function", [op, reference])
@pytest.mark.parametrize(("place", "read", "slope"), [(-1.0, 0.0, 0.0), (-0.5, 1.0, 2.0), (0.0, 2.0, 1.0)])
def test_edge_of_the_definition(function, place: float, read: float, slope: float) -> None:  # type: ignore[no-untyped-def]
    """Nothing is read at -1 exactly, with no gradient; at a whole offset the gradient is the right-hand one."""
    shape = Shape(1, 1, 1, 1, 3, (1, 1), padding=(0, 0))
    image, one = torch.tensor([2.0, 3.0, 7.0]).view(1, 1, 1, 3), torch.ones(1, 1, 1, 3)
    offset = torch.zeros(1, 2, 1, 3)
    offset[0, 1, 0, 0] = place
    offset.requires_grad_()
    output = function(shape)(image, offset, torch.ones(1, 1, 1, 1), None, one)
    assert output[0, 0, 0, 0].item() == read
    (grad,) = torch.autograd.grad(output[0, 0, 0, 0], offset)
    assert grad[0, 1, 0, 0].item() == slope


# Without kernels the op runs the reference's own backward, which adds up in float32 what autograd adds up by tap.
KERNEL = pytest.mark.skipif(os.environ.get("VFIKIT_KERNELS") == "0", reason="kernels are turned off")


@KERNEL
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float32(shape: Shape, device: str) -> None:
    checks.float32(op(shape), reference(shape), make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float64(shape: Shape, device: str) -> None:
    inputs, grad = make(shape, torch.float64, device), gradient(shape, torch.float64, device)
    for masked in (inputs, inputs[:3]):
        results = checks.differentiate(op(shape), masked, grad)
        for result, truth in zip(results, checks.differentiate(reference(shape), masked, grad), strict=True):
            torch.testing.assert_close(result, truth, rtol=1e-11, atol=1e-11)


@KERNEL
@pytest.mark.parametrize("spread", [40.0, 1e6, 1e30])
def test_kernel_with_far_offsets(spread: float) -> None:
    shape = Shape(1, 8, 5, 60, 40, moved=2)
    inputs, grad = make(shape, spread=spread), gradient(shape)
    exact = checks.differentiate(reference(shape), tuple(t.double() for t in inputs), grad.double())
    plain = checks.differentiate(reference(shape), inputs, grad)
    checks.at_most_twice_the_error(checks.differentiate(op(shape), inputs, grad), plain, exact)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_and_infinite_offsets(dtype: torch.dtype, device: str) -> None:
    """They read zero, as any tap outside does, with gradient zero."""
    inputs, grad = make(SMALL, dtype, device), gradient(SMALL, dtype, device)
    outside = [t.clone() for t in inputs]
    for n, value in enumerate((torch.nan, torch.inf, -torch.inf, 3e38, -3e9)):
        inputs[1][0, 2 * n, 2, 3] = value
        outside[1][0, 2 * n, 2, 3] = 99
    results = checks.differentiate(op(SMALL), inputs, grad)
    for expected in (reference(SMALL), op(SMALL)):
        like = inputs if expected is not op else tuple(outside)
        for result, truth in zip(results, checks.differentiate(expected, like, grad), strict=True):
            torch.testing.assert_close(result, truth, rtol=2e-5, atol=2e-5)
    assert results[2][0, :10:2, 2, 3].eq(0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [True, False])
def test_gradcheck(masked: bool, device: str) -> None:
    shape = Shape(1, 4, 2, 3, 2, (1, 2), groups=2, moved=2, padding=(0, 1))
    inputs = tuple(t.requires_grad_() for t in make(shape, torch.float64, device)[: 5 if masked else 3])
    for function in (op(shape), reference(shape)):
        assert torch.autograd.gradcheck(function, inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[:6])
def test_gradients_written_out(shape: Shape) -> None:
    inputs, grad = make(shape, torch.float64), gradient(shape, torch.float64)
    expected = checks.differentiate(reference(shape), inputs, grad)[1:]
    del expected[3]  # the bias's is a plain sum
    without_bias = (*inputs[:3], inputs[4])
    for a, b in zip(deform_conv2d_backward_reference(grad, *without_bias, *shape.steps), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    without = deform_conv2d_backward_reference(grad, *without_bias, *shape.steps, with_input=False)
    assert without[0].numel() == 0
    torch.testing.assert_close(without[1:], expected[1:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("wanted", range(5))
def test_each_gradient_alone(wanted: int) -> None:
    inputs, grad = list(make(SMALL)), gradient(SMALL)
    expected = checks.differentiate(op(SMALL), tuple(inputs), grad)[1 + wanted]
    leaf = inputs[wanted].clone().requires_grad_()
    inputs[wanted] = leaf
    torch.testing.assert_close(torch.autograd.grad(op(SMALL)(*inputs), leaf, grad)[0], expected)


def test_second_gradient_is_refused() -> None:
    inputs = [t.requires_grad_() for t in make(SMALL)]
    (grad,) = torch.autograd.grad(op(SMALL)(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="deform_conv2d_backward"):
        grad.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, masked: bool, device: str) -> None:
    leaves = [t.requires_grad_() for t in make(SMALL, dtype, device)]
    tensors = (*leaves[:3], *(leaves[3:] if masked else (None, None)))
    steps = [list(step) for step in SMALL.steps]
    tolerances = {"atol": 2e-2, "rtol": 2e-2}
    torch.library.opcheck(FORWARD, (*tensors, *steps), **tolerances)
    last = tensors[0].detach().to(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(FORWARD, (last, *tensors[1:], *steps), **tolerances)
    given = [None if t is None else t.detach() for t in (*tensors[:3], tensors[4])]
    for with_input in (False, True):
        arguments = (gradient(SMALL, dtype, device), *given, *steps, with_input)
        torch.library.opcheck(BACKWARD, arguments, **tolerances)


class Sampled(torch.nn.Module):
    """With everything as an input, so that one test serves all tensors."""

    def forward(self, *tensors: Tensor) -> Tensor:
        image, offset, weight, bias, mask = tensors
        return deform_conv2d(image, offset, weight, bias, padding=1, mask=mask)


@pytest.mark.skipif(not (shutil.which("g++") or os.environ.get("VFIKIT_CI")), reason="inductor needs g++")
@pytest.mark.parametrize("dynamic", [False, True])
def test_fullgraph_compile(dynamic: bool) -> None:
    shapes = [SMALL._replace(height=height) for height in ((6, 9) if dynamic else (6,))]
    checks.compiles(Sampled(), [(make(shape), gradient(shape)) for shape in shapes], dynamic)


def test_export_keeps_one_node() -> None:
    sides = {2: torch.export.Dim("height", min=4, max=64), 3: torch.export.Dim("width", min=4, max=64)}
    module = ModulatedDeformConv2d(4, 6, 3, padding=1, deform_groups=2)
    inputs, others = ((x[0], x[1], x[4]) for x in (make(SMALL), make(SMALL._replace(height=8, width=7))))
    program = torch.export.export(module, inputs, dynamic_shapes=(sides,) * 3)
    assert [node.target for node in program.graph.nodes].count(FORWARD) == 1
    torch.testing.assert_close(program.module()(*others), module(*others))


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_computes_in_float32(device: str) -> None:
    checks.autocast(op(SMALL), make(SMALL, device=device), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("types", [("float16", "float16"), ("bfloat16", "float32"), ("float32", "float64")])
def test_types_follow_each_tensor(types: tuple[str, str], device: str) -> None:
    image_type, other_type = (getattr(torch, name) for name in types)
    image, *others = make(SMALL, device=device)
    inputs = (image.to(image_type), *(t.to(other_type) for t in others))
    checks.types_follow(op(SMALL), reference(SMALL), inputs, gradient(SMALL, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(2160, 3), (3, 3840)])
def test_identity_in_half_precision_is_exact(size: tuple[int, int], device: str) -> None:
    """No coordinate is kept in half precision, so a 4K frame comes back as it is."""
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device, torch.float16)
    weight = torch.zeros(3, 3, 3, 3, device=device, dtype=torch.float16)
    weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    for dtype in (torch.float16, torch.float32):
        offset = torch.zeros(1, 18, *size, device=device, dtype=dtype)
        assert torch.equal(deform_conv2d(frame, offset, weight, padding=1), frame)


@pytest.mark.parametrize("device", DEVICES)
def test_layouts(device: str) -> None:
    inputs, grad = make(SMALL, device=device), gradient(SMALL, device=device)
    expected = checks.differentiate(op(SMALL), inputs, grad)
    last = tuple(t if t.ndim < 4 else t.to(memory_format=torch.channels_last) for t in inputs)
    apart = tuple(torch.stack((t, t), -1).flatten(-2)[..., ::2] for t in inputs)
    for others, other_grad in ((last, grad.to(memory_format=torch.channels_last)), (apart, grad.mT.contiguous().mT)):
        for a, b in zip(checks.differentiate(op(SMALL), others, other_grad), expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_layout_of_an_empty_batch(device: str) -> None:
    image, offset, weight, bias, mask = make(SMALL, device=device)
    inputs, grad = (image[:0], offset[:0], weight, bias, mask[:0]), gradient(SMALL, device=device)[:0]
    results = checks.differentiate(op(SMALL), inputs, grad)
    assert [t.shape for t in results] == [grad.shape, *(t.shape for t in inputs)]
    if device != "meta":
        assert results[3].eq(0).all()


def test_rejects_bad_input() -> None:
    image, offset, weight, bias, mask = make(SMALL)

    def fails(message: str, *tensors: Tensor | None, **steps: object) -> None:
        with pytest.raises(ValueError, match=f"deform_conv2d: {message}"):
            deform_conv2d(*tensors[:4], mask=tensors[4], **({"padding": 1} | steps))  # type: ignore[arg-type]

    fails(r"offset is \(2, 36, 5, 6\), expected \(2, 36, 3, 4\)", image, offset, weight, bias, mask, padding=0)
    fails(r"offset is \(2, 35, 5, 6\), expected \(2, 18, 5, 6\)", image, offset[:, 1:], weight, bias, None)
    fails(r"mask is \(2, 9, 5, 6\), expected \(2, 18, 5, 6\)", image, offset, weight, bias, mask[:, :9])
    fails(r"bias is \(5,\), expected \(6,\)", image, offset, weight, bias[:5], mask)
    fails(r"weight is \(6, 3, 3, 3\), expected \(O, C / groups", image, offset, weight[:, :3], bias, mask)
    fails(r"weight is \(5, 2, 3, 3\), expected \(O, C / groups", image, offset, weight[:5, :2], None, mask)
    fails(r"mask is \(18, 5, 6\), expected 4 axes", image, offset, weight, bias, mask[0])
    fails(r"input has 3 channels, expected a multiple of 2", image[:, :3], offset, weight[:, :3], bias, mask)
    fails(r"offset is on meta, expected cpu like input", image, offset.to("meta"), weight, bias, mask)
    fails(r"stride is 0, expected a number or two, at least 1", image, offset, weight, bias, mask, stride=0)
    fails(r"padding is \(1, 1, 1\)", image, offset, weight, bias, mask, padding=(1, 1, 1))
    fails(r"input is \(2, 4, 1, 6\), too small", image[:, :, :1], offset, weight, bias, mask, padding=0)
    huge = torch.empty(1, 1, 2**16, 2**14, device="meta"), torch.empty(1, 2, 2**16, 2**14, device="meta")
    fails(r".* fewer than 2\*\*29 pixels", *huge, torch.empty(1, 1, 1, 1, device="meta"), None, None, padding=0)
    with pytest.raises(ValueError, match=r"in_channels is 4, out_channels 6, .* groups \(4\)"):
        ModulatedDeformConv2d(4, 6, 3, groups=4)


def test_module_is_the_function() -> None:
    image, offset, weight, bias, mask = make(SMALL)
    module = ModulatedDeformConv2d(4, 6, 3, padding=1, deform_groups=2)
    assert module.weight.abs().max() <= 1 / 6
    assert torch.equal(module.state_dict()["bias"], torch.zeros(6))
    module.load_state_dict({"weight": weight, "bias": bias})
    assert torch.equal(module(image, offset, mask), op(SMALL)(image, offset, weight, bias, mask))
    assert torch.equal(module(image, offset), op(SMALL)(image, offset, weight, bias))
    assert list(ModulatedDeformConv2d(4, 6, (1, 3), bias=False).state_dict()) == ["weight"]
    assert "deform_groups=2" in repr(module)


def test_flops_are_counted() -> None:
    inputs = tuple(t.requires_grad_() for t in make(SMALL))
    with FlopCounterMode(display=False) as counter:
        output = op(SMALL)(*inputs)
    forward = 2 * (2 * 5 * 6) * 9 * (4 * 2 + 4 * 4 + 6 * 4)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * forward


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic(device: str) -> None:
    shape = Shape(1, 16, 8, 40, 50, moved=4)
    checks.deterministic(op(shape), make(shape, device=device, spread=6.0), gradient(shape, device=device))
