"""The compiled kernels of deformable convolution: instruction sets, threads, forks, memory."""

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from . import checks
from .deform_conv2d_cases import SHAPES, Shape, gradient, make, op
from .test_adacof_kernels import needs_kernels, python, threads

__all__ = ["threads"]  # a fixture


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    code = (
        "from tests.ops.deform_conv2d_cases import SHAPES\n"
        "from tests.ops.test_deform_conv2d import test_kernel_against_reference_float32 as check\n"
        "for shape in SHAPES: check(shape, 'cpu')\n"
        "from tests.ops.test_deform_conv2d import test_nan_and_infinite_offsets as check, torch\n"
        "check(torch.float32, 'cpu')\n"
    )
    done = python(code, VFIKIT_INSTRUCTION_SET=level)
    assert done.returncode == 0, done.stderr


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


class Sampled(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return op(SHAPES[1])(*make(SHAPES[1]))


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    """A worker has one thread and must not enter the pool that its parent had."""
    threads(2)
    shape = Shape(1, 8, 8, 64, 64, moved=2)
    checks.differentiate(op(shape), make(shape), gradient(shape))
    loader = DataLoader(Sampled(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    expected = op(SHAPES[1])(*make(SHAPES[1]))
    for output in loader:
        torch.testing.assert_close(output, expected)


MEMORY = """
import torch
from vfikit.ops import deform_conv2d
torch.set_num_threads(2)

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def inputs(height, width):
    sizes = ((1, 128, height, width), (1, 288, height, width), (128, 128, 3, 3), (128,), (1, 144, height, width))
    return [torch.rand(size).requires_grad_({backward}) for size in sizes]

def run(tensors):
    output = deform_conv2d(*tensors[:4], padding=1, mask=tensors[4])
    return [output, *(torch.autograd.grad(output, tensors, grad) if {backward} else ())]

small, large, grad = inputs(5, 5), inputs({height}, {width}), torch.rand(1, 128, 5, 5)
run(small)
grad = torch.rand(1, 128, {height}, {width})
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
results = run(large)
made = sum(t.nbytes for t in results) / 2**20
columns = large[0].nbytes * 9 / 2**20
print((status("VmHWM") - before - made) / columns)
"""


@needs_kernels
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("backward", [False, True])
def test_kernel_takes_little_extra_memory(backward: bool) -> None:
    """Under a tenth of the columns that other implementations write out."""
    done = python(MEMORY.format(height=120, width=216, backward=backward))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1
