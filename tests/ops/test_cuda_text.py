"""AdaCoF's CUDA text without a card: its arithmetic as host C++ against the reference."""

import pytest
import torch
from torch import Tensor

from vfikit.ops import _cuda
from vfikit.ops.adacof import _cuda_backward, _cuda_forward, adacof_backward_reference, adacof_reference

from .adacof_cases import gradient, make
from .checks import at_most_twice_the_error
from .cuda_on_host import NAMES, Host

OP = "adacof"
SHAPES = [  # N, C, H, W, F, dilation: each block of channels, several tiles, prime sides
    (2, 1, 5, 7, 1, 1),
    (2, 3, 11, 37, 3, 1),
    (1, 4, 9, 33, 5, 1),
    (1, 3, 5, 6, 11, 2),
    (1, 2, 3, 4, 2, 3),
    (1, 7, 6, 5, 3, 2),
    (1, 63, 5, 6, 5, 1),
]


def differentiate(inputs: tuple[Tensor, ...], dilation: int, grad: Tensor) -> list[Tensor]:
    """The output and the four gradients, as the op's CUDA implementation computes them."""
    return [_cuda_forward(*inputs, dilation), *_cuda_backward(grad, *inputs, dilation, True)]


def reference(inputs: tuple[Tensor, ...], dilation: int, grad: Tensor) -> list[Tensor]:
    return [adacof_reference(*inputs, dilation), *adacof_backward_reference(grad, *inputs, dilation)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_against_reference(host: Host, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs, grad = make(shape, dtype), gradient(shape, dtype)
    exact = reference(tuple(t.double() for t in inputs), shape[-1], grad.double())
    results = differentiate(inputs, shape[-1], grad)
    assert all(t.dtype == dtype for t in results)
    at_most_twice_the_error(results, reference(inputs, shape[-1], grad), exact, dtype)
    assert [run.instance.split("<")[1].split(",")[0] for run in host.ran] == [NAMES[dtype]] * 3


@pytest.mark.parametrize("shape", SHAPES)
def test_text_against_reference_float64(host: Host, shape: tuple[int, ...]) -> None:
    inputs, grad = make(shape, torch.float64), gradient(shape, torch.float64)
    exact = reference(inputs, shape[-1], grad)
    for result, truth in zip(differentiate(inputs, shape[-1], grad), exact):
        torch.testing.assert_close(result, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_text_with_nan_infinite_and_huge_offsets(host: Host, dtype: torch.dtype) -> None:
    shape = (1, 3, 9, 20, 3, 1)
    inputs, grad = make(shape, dtype), gradient(shape, dtype)
    rows, columns = inputs[2:]
    rows[0, 4, 2, 3] = columns[0, 1, 8, 19] = torch.nan
    rows[0, 2, 5], columns[0, 3, :, 4] = torch.inf, -torch.inf
    rows[0, 5, 6], rows[0, 6, 7], columns[0, 7, 1], columns[0, 8, 3] = 3e9, -3e9, 1e30, -1e30
    for result, truth in zip(differentiate(inputs, 1, grad), reference(inputs, 1, grad)):
        assert torch.equal(result.isnan(), truth.isnan())
        torch.testing.assert_close(result, truth, rtol=2e-5, atol=2e-5, equal_nan=True)


def test_text_truncates_towards_zero(host: Host) -> None:
    """On integers, negative ones too, and halves: no rounding hides a floor there."""
    shape = (1, 3, 8, 9, 3, 1)
    image, weight, *offsets = make(shape)
    for step in (1, 0.5):
        inputs = (image, weight, *((t / step).round() * step for t in offsets))
        torch.testing.assert_close(_cuda_forward(*inputs, 1), adacof_reference(*inputs, 1), rtol=2e-5, atol=2e-5)


def test_any_grid_gives_the_same(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer blocks than work: the kernels stride over tiles, channels or taps, and the batch."""
    shape = (3, 21, 19, 70, 3, 1)
    inputs, grad = make(shape), gradient(shape)
    full = differentiate(inputs, 1, grad)
    monkeypatch.setattr(_cuda, "MOST_BLOCKS", (2, 1, 2))
    few = differentiate(inputs, 1, grad)
    assert [run.grid for run in host.ran] == [(9, 2, 3), (9, 3, 3), (9, 2, 3)] + 3 * [(2, 1, 2)]
    for a, b in zip(full[:1] + full[2:], few[:1] + few[2:]):
        assert torch.equal(a, b)
    torch.testing.assert_close(full[1], few[1], rtol=1e-5, atol=1e-5)  # summed in another order


def test_identity_in_half_precision_is_exact(host: Host) -> None:
    image = torch.rand(1, 1, 40, 3840).half()
    zero = torch.zeros_like(image)
    assert torch.equal(_cuda_forward(image, torch.ones_like(image), zero, zero, 1), image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_round_as_torch_does(host: Host, dtype: torch.dtype) -> None:
    """Every finite number, times weights that reach subnormals, ties and infinity."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()][None, None, None]
    zero = torch.zeros_like(numbers)
    for factor in (1.0, 0.4999, 3.3e-4, 777.0):
        weight = torch.full_like(numbers, factor)
        expected = (numbers.float() * weight.float()).to(dtype)
        assert torch.equal(_cuda_forward(numbers, weight, zero, zero, 1), expected)


def test_mixed_types_are_computed_in_the_widest(host: Host) -> None:
    shape = (1, 3, 4, 5, 3, 1)
    image, *maps = make(shape)
    inputs = (image.half(), *maps)
    results, expected = (f(inputs, 1, gradient(shape).half()) for f in (differentiate, reference))
    for result, truth in zip(results, expected):
        assert result.dtype == truth.dtype
        torch.testing.assert_close(result, truth)
    assert {run.instance.split("<")[1] for run in host.ran} == {"float, 3>"}


def test_nothing_to_do(host: Host) -> None:
    shape = (0, 3, 4, 5, 3, 1)
    assert differentiate(make(shape), 1, gradient(shape))[0].shape == (0, 3, 4, 5)
    assert not host.ran


def test_deterministic_algorithms_use_the_reference(host: Host) -> None:
    """For the input's gradient alone; those of the maps are always the same."""
    shape = (1, 3, 4, 5, 3, 1)
    inputs, grad = make(shape), gradient(shape)
    torch.use_deterministic_algorithms(True)
    try:
        grads = _cuda_backward(grad, *inputs, 1, True)
        assert not host.ran
        _cuda_backward(grad, *inputs, 1, False)
        assert [run.instance for run in host.ran] == ["adacof_backward_maps<float, 3>"]
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(grads, adacof_backward_reference(grad, *inputs, 1)):
        assert torch.equal(a, b)
