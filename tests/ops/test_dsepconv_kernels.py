"""The compiled kernels of deformable separable convolution: instruction sets, threads, forks, memory, whole frames."""

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vfikit.ops import dsepconv

from . import checks
from .dsepconv_cases import SHAPES, gradient, make
from .test_adacof_kernels import needs_kernels, python, threads

__all__ = ["threads"]  # a fixture


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    code = (
        "from tests.ops.dsepconv_cases import SHAPES\n"
        "from tests.ops.test_dsepconv import test_kernel_against_reference_float32 as check\n"
        "for shape in SHAPES: check(shape, 'cpu')\n"
        "from tests.ops.test_dsepconv import test_nan_and_infinite_offsets as check, torch\n"
        "check(torch.float32, 'cpu')\n"
    )
    done = python(code, VFIKIT_INSTRUCTION_SET=level)
    assert done.returncode == 0, done.stderr


@needs_kernels
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(threads: Callable[[int], None]) -> None:
    shape = (2, 3, 150, 90, 5)
    checks.any_number_of_threads(dsepconv, make(shape, spread=15.0), gradient(shape), threads)


class Sampled(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return dsepconv(*make(SHAPES[1]))


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    """A worker has one thread and must not enter the pool that its parent had."""
    threads(2)
    shape = (1, 3, 64, 64, 3)
    checks.differentiate(dsepconv, make(shape), gradient(shape))
    loader = DataLoader(Sampled(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    expected = dsepconv(*make(SHAPES[1]))
    for output in loader:
        torch.testing.assert_close(output, expected)


MEMORY = """
import torch
from vfikit.ops import dsepconv
torch.set_num_threads(2)

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def inputs(height, width):
    reach, maps = {kernel} - 1, (*[{kernel}] * 2, *[{kernel} ** 2] * 3)
    tensors = [torch.rand(1, {channels}, height + reach, width + reach)]
    return [t.requires_grad_({backward}) for t in (*tensors, *(torch.rand(1, m, height, width) for m in maps))]

small, large = inputs(9, 9), inputs({height}, {width})
grad = torch.rand(1, {channels}, {height}, {width})
dsepconv(*small).sum().backward() if {backward} else dsepconv(*small)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
output = dsepconv(*large)
results = [output, *(torch.autograd.grad(output, large, grad) if {backward} else ())]
made = sum(t.nbytes for t in results) / 2**20
read = sum(t.nbytes for t in (*large, grad)) / 2**20
print((status("VmHWM") - before - made) / (made + read))
"""


@needs_kernels
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"kernel": 5, "height": 540, "width": 960, "channels": 3},
        {"kernel": 11, "height": 160, "width": 240, "channels": 63},
    ],
)
def test_kernel_takes_little_extra_memory(sizes: dict[str, int], backward: bool) -> None:
    """Under 5 % of inputs, outputs and gradients, and never a copy of the maps."""
    done = python(MEMORY.format(**sizes, backward=backward))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_identity_at_4k_in_half_precision_is_exact(dtype: torch.dtype) -> None:
    frame = torch.rand(1, 3, 2160, 3840, generator=torch.Generator().manual_seed(0)).to(dtype)
    one = torch.ones(1, 1, 2160, 3840, dtype=dtype)
    result = dsepconv(frame, one, one, -one, -one, one)
    assert torch.equal(result[:, :, :-1, :-1], frame[:, :, :-1, :-1])


@pytest.mark.parametrize("spread", [0.4, 4.0])
def test_whole_pixels_move_a_frame(spread: float) -> None:
    """A constant whole offset shifts the frame; there is no interpolation to blur it."""
    frame = torch.rand(1, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1, 1, 30, 41)
    down, right = int(5 * spread), int(7 * spread)
    moved = dsepconv(frame, one, one, one * (down - 1), one * (right - 1), one)
    assert torch.equal(moved[:, :, : 29 - down, : 40 - right], frame[:, :, down:-1, right:-1])
    assert torch.equal(
        moved[:, :, 29 - down :, 40 - right :], 4 * frame[:, :, -1:, -1:].expand(1, 3, down + 1, right + 1)
    )
