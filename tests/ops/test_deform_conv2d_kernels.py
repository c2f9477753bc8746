"""The compiled kernels of deformable convolution: instruction sets, threads, forks, memory."""

from collections.abc import Callable

import pytest
import torch

from . import checks, kernels
from .deform_conv2d_cases import SHAPES, Shape, gradient, make, op
from .kernels import needs_kernels, reads_peak_memory


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    more = "from tests.ops.test_deform_conv2d import test_nan_and_infinite_offsets as check, torch"
    kernels.instruction_set(level, "deform_conv2d", more, "check(torch.float32, 'cpu')")


@needs_kernels
@pytest.mark.parametrize("moved", [1, 8])
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(moved: int, threads: Callable[[int], None]) -> None:
    """Slices of one offset group too, whose gradients meet."""
    shape = Shape(2, 40, 20, 30, 33, moved=moved)
    checks.any_number_of_threads(op(shape), make(shape, spread=5.0), gradient(shape), threads)


@needs_kernels
def test_kernel_reads_nothing_beyond_the_frame() -> None:
    """No number of the frame, not even one that is none, reaches a tap outside or a neighbour on the ring."""
    shape = Shape(1, 3, 2, 4, 5, padding=(2, 2))
    image, offset, weight, bias, mask = make(shape)
    outside = torch.zeros_like(offset)
    outside[:, ::2] = 9
    full = torch.full_like(image, torch.nan)
    results = checks.differentiate(op(shape), (full, outside, weight, bias, mask), gradient(shape))
    assert torch.equal(results[0], bias[:, None, None].expand_as(results[0]))
    assert all(t.eq(0).all() for t in (results[1], results[2], results[3], results[5]))


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    shape = Shape(1, 8, 8, 64, 64, moved=2)
    kernels.forked_worker_does_not_hang(
        lambda: op(SHAPES[1])(*make(SHAPES[1])),
        lambda: checks.differentiate(op(shape), make(shape), gradient(shape)),
        threads,
    )


MEMORY = """
from vfikit.ops import deform_conv2d

def inputs(height, width):
    sizes = ((1, 128, height, width), (1, 288, height, width), (128, 128, 3, 3), (128,), (1, 144, height, width))
    return [torch.rand(size) for size in sizes]

def function(input, offset, weight, bias, mask):
    return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)

small, large, grad = inputs(5, 5), inputs(120, 216), torch.rand(1, 128, 120, 216)
"""


@needs_kernels
@reads_peak_memory
@pytest.mark.parametrize("backward", [False, True])
def test_kernel_takes_little_extra_memory(backward: bool) -> None:
    """Under a tenth of the columns that other implementations write out."""
    columns = 9 * 128 * 120 * 216 * 4 / 2**20
    assert kernels.extra_memory(MEMORY, backward)[0] < 0.1 * columns
