"""The CUDA text of deformable separable convolution as host C++ against the reference, and on a card where one is."""

import pytest
import torch
from torch import Tensor

from vfikit.ops import _cuda, dsepconv
from vfikit.ops.dsepconv import _cuda_backward, _cuda_forward, dsepconv_backward_reference, dsepconv_reference

from . import checks
from .cuda_on_host import NAMES, Host
from .dsepconv_cases import SHAPES, gradient, make

OP = "dsepconv"
HOST_SHAPES = [  # N, C, H, W, F: each block of channels, several tiles, prime sides, more columns than registers
    (2, 1, 5, 7, 1),
    (2, 3, 11, 37, 3),
    (1, 4, 9, 33, 5),
    (1, 3, 5, 6, 11),
    (1, 2, 3, 4, 2),
    (1, 7, 6, 5, 3),
    (1, 63, 5, 6, 5),
]


def differentiate(inputs: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    """The output and the six gradients, as the op's CUDA implementation computes them."""
    return [_cuda_forward(*inputs), *_cuda_backward(grad, *inputs, with_input=True)]


def reference(inputs: tuple[Tensor, ...], grad: Tensor) -> list[Tensor]:
    return [dsepconv_reference(*inputs), *dsepconv_backward_reference(grad, *inputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", HOST_SHAPES)
def test_text_against_reference(host: Host, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs, grad = make(shape, dtype), gradient(shape, dtype)
    exact = reference(tuple(t.double() for t in inputs), grad.double())
    results = differentiate(inputs, grad)
    assert all(t.dtype == dtype for t in results)
    checks.at_most_twice_the_error(results, reference(inputs, grad), exact, dtype)
    assert [run.instance.split("<")[1].split(",")[0] for run in host.ran] == [NAMES[dtype]] * 3


@pytest.mark.parametrize("spread", [3.0, 30.0])
@pytest.mark.parametrize("shape", HOST_SHAPES)
def test_text_against_reference_float64(host: Host, shape: tuple[int, ...], spread: float) -> None:
    inputs, grad = make(shape, torch.float64, spread=spread), gradient(shape, torch.float64)
    for result, truth in zip(differentiate(inputs, grad), reference(inputs, grad), strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_text_with_nan_infinite_and_huge_offsets(host: Host, dtype: torch.dtype) -> None:
    shape = (1, 3, 9, 20, 3)
    inputs, grad = make(shape, dtype), gradient(shape, dtype)
    rows, columns = inputs[3:5]
    rows[0, 4, 2, 3] = columns[0, 1, 8, 19] = torch.nan
    rows[0, 2, 5], columns[0, 3, :, 4] = torch.inf, -torch.inf
    rows[0, 5, 6], rows[0, 6, 7], columns[0, 7, 1], columns[0, 8, 3] = 3e9, -3e9, 1e30, -1e30
    for result, truth in zip(differentiate(inputs, grad), reference(inputs, grad), strict=True):
        assert torch.equal(result.isnan(), truth.isnan())
        torch.testing.assert_close(result, truth, rtol=2e-5, atol=2e-5, equal_nan=True)


def test_text_on_whole_offsets(host: Host) -> None:
    """Where the cell changes, and the border begins to count twice."""
    image, vertical, horizontal, offset_x, offset_y, mask = make((1, 3, 8, 9, 3))
    inputs = (image, vertical, horizontal, offset_x.round(), offset_y.round(), mask)
    for result, truth in zip(differentiate(inputs, gradient((1, 3, 8, 9))), reference(inputs, gradient((1, 3, 8, 9)))):
        torch.testing.assert_close(result, truth, rtol=2e-5, atol=2e-5)


def test_any_grid_gives_the_same(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer blocks than work: the kernels stride over tiles, channels, and the batch."""
    shape = (3, 21, 19, 70, 3)
    inputs, grad = make(shape), gradient(shape)
    full = differentiate(inputs, grad)
    monkeypatch.setattr(_cuda, "MOST_BLOCKS", (2, 1, 2))
    few = differentiate(inputs, grad)
    assert [run.grid for run in host.ran] == [(9, 2, 3), (9, 1, 3), (9, 2, 3)] + 3 * [(2, 1, 2)]
    for a, b in zip(full[:1] + full[2:], few[:1] + few[2:], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(full[1], few[1], rtol=1e-5, atol=1e-5)  # summed in another order


def test_mixed_types_are_computed_in_the_widest(host: Host) -> None:
    shape = (1, 3, 4, 5, 3)
    image, *maps = make(shape)
    inputs, grad = (image.half(), *maps), gradient(shape).half()
    for result, truth in zip(differentiate(inputs, grad), reference(inputs, grad), strict=True):
        assert result.dtype == truth.dtype
        torch.testing.assert_close(result, truth)
    assert {run.instance.split("<")[1] for run in host.ran} == {"float, 3>"}


def test_nothing_to_do(host: Host) -> None:
    shape = (0, 3, 4, 5, 3)
    assert differentiate(make(shape), gradient(shape))[0].shape == (0, 3, 4, 5)
    assert not host.ran


def test_deterministic_algorithms_use_the_reference(host: Host) -> None:
    """For the input's gradient alone; those of the maps are always the same."""
    shape = (1, 3, 4, 5, 3)
    inputs, grad = make(shape), gradient(shape)
    torch.use_deterministic_algorithms(True)
    try:
        grads = _cuda_backward(grad, *inputs, with_input=True)
        assert not host.ran
        _cuda_backward(grad, *inputs, with_input=False)
        assert [run.instance for run in host.ran] == ["dsepconv_backward_maps<float, 3>"]
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(grads, dsepconv_backward_reference(grad, *inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_on_a_card(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """At most twice the error of the reference in the same type; a little more where both are nearly exact."""
    inputs, grad = make(shape, dtype, "cuda"), gradient(shape, dtype, "cuda")
    results, truth = checks.differentiate(dsepconv, inputs, grad), reference(inputs, grad)
    if dtype is torch.float64:
        for result, expected in zip(results, truth, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
        return
    exact = reference(tuple(t.double() for t in inputs), grad.double())
    checks.at_most_twice_the_error(results, truth, exact, dtype)
