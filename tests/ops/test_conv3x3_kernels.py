"""The compiled kernel of the 3x3 convolution: instruction sets, threads, forks, determinism, memory."""

from collections.abc import Callable

import pytest
import torch

from . import checks, kernels
from .conv3x3_cases import Shape, gradient, make
from .kernels import needs_kernels, reads_peak_memory

LARGE, NARROW = Shape((2, 60, 40, 60), 70), Shape((2, 10, 40, 60), 25)


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    kernels.instruction_set(level, "conv3x3")


@needs_kernels
@pytest.mark.parametrize("shape", [LARGE, LARGE._replace(last=True), NARROW])
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(shape: Shape, threads: Callable[[int], None]) -> None:
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(shape.op(*make(shape)))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_deterministic() -> None:
    checks.deterministic(LARGE.op, make(LARGE), gradient(LARGE))


@needs_kernels
@pytest.mark.parametrize("channels", [20, 48])
@pytest.mark.parametrize("last", [False, True])
def test_kernel_reads_nothing_beyond_the_frame(last: bool, channels: int) -> None:
    """A number that is none spoils the outputs around it, and no others: padding is zero, neighbours stay apart."""
    shape = Shape((2, channels, 9, 37), channels - 1, last=last)
    x, weight, bias = make(shape)
    spoilt = x.clone()
    spoilt[0] = torch.nan
    result = shape.op(spoilt, weight, bias)
    assert result[0].isnan().all()
    assert torch.equal(result[1], shape.op(x, weight, bias)[1])


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    small = Shape((1, 4, 6, 5), 6)
    kernels.forked_worker_does_not_hang(lambda: small.op(*make(small)), lambda: LARGE.op(*make(LARGE)), threads)


MEMORY = """
from vfikit.ops import conv3x3

def inputs(height, width):
    return [torch.rand(1, WIDE, height, width), torch.rand(WIDE, WIDE, 3, 3), torch.rand(WIDE)]

def function(input, weight, bias):
    return conv3x3(input, weight, bias)

small, large, grad = inputs(5, 5), inputs(240, 432), torch.rand(1, WIDE, 240, 432)
"""


@needs_kernels
@reads_peak_memory
@pytest.mark.parametrize("channels", [25, 128])
def test_kernel_takes_little_extra_memory(channels: int) -> None:
    """What a block of tiles becomes, or a band of rows, for each thread, and the kernels: a tenth of the tensors."""
    extra, tensors = kernels.extra_memory(MEMORY.replace("WIDE", str(channels)), False)
    assert extra < 0.1 * tensors
