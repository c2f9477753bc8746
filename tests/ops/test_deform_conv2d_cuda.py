"""The CUDA text of deformable convolution as host C++ against the reference, and on a card where one is."""

import pytest
import torch
from torch import Tensor

from vfikit.ops import _cuda, _deform_conv_cuda
from vfikit.ops._deform_conv import deform_conv2d_backward_reference, deform_conv2d_reference

from . import checks
from .cuda_on_host import INSTANCES, NAMES, Host
from .deform_conv2d_cases import SHAPES, Shape, gradient, make, op

OP = "deform_conv2d"
SMALL = Shape(2, 4, 6, 5, 6, moved=2)


def differentiate(shape: Shape, inputs: tuple[Tensor, ...], grad: Tensor, masked: bool = True) -> list[Tensor]:
    """The output and the gradients but the bias's, as the op's CUDA implementation computes them."""
    input, offset, weight, bias, mask = inputs
    given = mask if masked else None
    output = _deform_conv_cuda.forward(input, offset, weight, bias, given, *shape.steps)
    return [output, *_deform_conv_cuda.backward(grad, input, offset, weight, given, shape.steps, True)]


def reference(shape: Shape, inputs: tuple[Tensor, ...], grad: Tensor, masked: bool = True) -> list[Tensor]:
    input, offset, weight, bias, mask = inputs
    given = mask if masked else None
    output = deform_conv2d_reference(input, offset, weight, bias, given, *shape.steps)
    return [output, *deform_conv2d_backward_reference(grad, input, offset, weight, given, *shape.steps)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_against_reference(host: Host, shape: Shape, dtype: torch.dtype) -> None:
    """Half types: the columns too are half, so that tensor cores take them, as rounded as the inputs are.

    The text makes the columns; their product, of hundreds of numbers, is a library's, in an order of its own.
    """
    inputs, grad = make(shape, dtype), gradient(shape, dtype)
    exact = reference(shape, tuple(t.double() for t in inputs), grad.double())
    results = differentiate(shape, inputs, grad)
    assert all(t.dtype == dtype for t in results)
    allowed = 8 if dtype == torch.float32 else 4
    for result, truth in zip(results, exact, strict=True):
        assert (result - truth).abs().max() <= allowed * torch.finfo(dtype).eps * truth.abs().max()
    assert {run.instance for run in host.ran} == {f"{name}<{NAMES[dtype]}>" for name in _cuda.COLUMNS}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("spread", [3.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_against_reference_float64(host: Host, shape: Shape, spread: float, masked: bool) -> None:
    inputs, grad = make(shape, torch.float64, spread=spread), gradient(shape, torch.float64)
    expected = reference(shape, inputs, grad, masked)
    for result, truth in zip(differentiate(shape, inputs, grad, masked), expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-11, atol=1e-11)


def test_text_on_whole_nan_infinite_and_huge_offsets(host: Host) -> None:
    input, offset, weight, bias, mask = make(SMALL)
    offset = offset.round()
    for n, value in enumerate((torch.nan, torch.inf, -torch.inf, 3e38, -3e9, -1.0, 4.0)):
        offset[:, 2 * n, 2, 3] = value
    inputs, grad = (input, offset, weight, bias, mask), gradient(SMALL)
    for result, truth in zip(differentiate(SMALL, inputs, grad), reference(SMALL, inputs, grad), strict=True):
        torch.testing.assert_close(result, truth, rtol=2e-5, atol=2e-5)


def test_any_part_and_any_grid_give_the_same(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer columns at hand, and fewer blocks than work."""
    shape = Shape(2, 6, 5, 23, 29, moved=3)
    inputs, grad = make(shape, torch.float64), gradient(shape, torch.float64)
    full = differentiate(shape, inputs, grad)
    assert [run.grid for run in host.ran] == [(3, 27, 1)] * 4
    host.ran.clear()
    monkeypatch.setattr(_deform_conv_cuda, "MOST", 300 * 54)
    monkeypatch.setattr(_cuda, "MOST_BLOCKS", (1, 2, 1))
    parts = differentiate(shape, inputs, grad)
    assert [run.grid for run in host.ran] == [(1, 2, 1)] * 12
    assert [run.sizes[-2:] for run in host.ran[:3]] == [(0, 300), (300, 300), (600, 67)]
    for a, b in zip(full, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_mixed_types_are_computed_in_the_widest(host: Host) -> None:
    image, *others = make(SMALL)
    inputs, grad = (image.half(), *others), gradient(SMALL).half()
    for result, truth in zip(differentiate(SMALL, inputs, grad), reference(SMALL, inputs, grad), strict=True):
        assert result.dtype == truth.dtype
        torch.testing.assert_close(result, truth)
    assert {run.instance.split("<")[1] for run in host.ran} == {"float>"}


def test_nothing_to_do(host: Host) -> None:
    image, offset, weight, bias, mask = make(SMALL)
    results = differentiate(SMALL, (image[:0], offset[:0], weight, bias, mask[:0]), gradient(SMALL)[:0])
    assert results[0].shape == (0, 6, 5, 6)
    assert results[3].eq(0).all()
    assert not host.ran


def test_deterministic_algorithms_use_the_reference(host: Host) -> None:
    """For the input's gradient alone; the others are always the same."""
    input, offset, weight, _, mask = make(SMALL)
    torch.use_deterministic_algorithms(True)
    try:
        arguments = (gradient(SMALL), input, offset, weight, mask)
        grads = _deform_conv_cuda.backward(*arguments, SMALL.steps, True)
        assert not host.ran
        without = _deform_conv_cuda.backward(*arguments, SMALL.steps, False)
        assert {run.instance for run in host.ran} == {"deform_conv2d_gradients<float>"}
    finally:
        torch.use_deterministic_algorithms(False)
    assert without[0].numel() == 0
    expected = deform_conv2d_backward_reference(*arguments, *SMALL.steps)
    for a, b in zip(grads, expected, strict=True):
        assert torch.equal(a, b)


def test_every_plan_names_a_known_instance() -> None:
    named = set()
    for dtype in NAMES:
        for name in _cuda.COLUMNS:
            runs = _cuda.plan(name, [torch.zeros(1, dtype=dtype)] * 4, (3, 7, 8, 3, 3, 1, *[1] * 9, 56))
            named |= {run.instance for run in runs}
    assert named == set(INSTANCES["deform_conv2d"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_on_a_card(shape: Shape, dtype: torch.dtype) -> None:
    inputs, grad = make(shape, dtype, "cuda"), gradient(shape, dtype, "cuda")
    results = checks.differentiate(op(shape), inputs, grad)
    del results[4]  # the bias's is a plain sum
    exact = reference(shape, tuple(t.double() for t in inputs), grad.double())
    for result, truth in zip(results, exact, strict=True):
        assert (result - truth).abs().max() <= 8 * torch.finfo(dtype).eps * truth.abs().max()
