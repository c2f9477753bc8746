"""The compiled kernel of attention: instruction sets, threads, forks, determinism, memory."""

from collections.abc import Callable

import pytest
import torch

from vfikit.ops import attention

from . import checks, kernels
from .attention_cases import Shape, gradient, make
from .kernels import needs_kernels, reads_peak_memory

LARGE = Shape(2, 3, 300, 250, 40)


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    kernels.instruction_set(level, "attention")


@needs_kernels
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(threads: Callable[[int], None]) -> None:
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(attention(*make(LARGE)))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_deterministic() -> None:
    checks.deterministic(attention, make(LARGE), gradient(LARGE))


@needs_kernels
def test_kernel_keeps_what_is_no_number_where_it_is() -> None:
    """A query that is none spoils its own row, a key all rows of its head, a value one column of it."""
    clean = attention(*make(LARGE))
    for which, rows, columns in ((0, slice(7, 8), slice(None)), (1, slice(None), slice(None)), (2, slice(None), 5)):
        inputs = [t.clone() for t in make(LARGE)]
        inputs[which][1, 2, 7, 5] = torch.nan
        result, expected = attention(*inputs), torch.zeros_like(clean, dtype=torch.bool)
        expected[1, 2, rows, columns] = True
        assert torch.equal(result.isnan(), expected)
        assert torch.equal(result[~expected], clean[~expected])


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    small = Shape(2, 3, 5, 7, 4)
    kernels.forked_worker_does_not_hang(lambda: attention(*make(small)), lambda: attention(*make(LARGE)), threads)


MEMORY = """
from vfikit.ops import attention as function

def inputs(length):
    return [torch.rand(1, 8, length, 64) for _ in range(3)]

small, large, grad = inputs(5), inputs(4096), torch.rand(1, 8, 4096, 64)
"""


@needs_kernels
@reads_peak_memory
def test_kernel_takes_little_extra_memory() -> None:
    """A few tiles and a block of keys for each thread: no logits."""
    extra, tensors = kernels.extra_memory(MEMORY, False)
    assert extra < 0.1 * tensors
