"""What the compiled kernels of every op are tested for, in processes of their own where that matters."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vfikit.ops import _cpu

from ..fresh import python

needs_kernels = pytest.mark.skipif(not _cpu.available(), reason=f"no compiled kernels: {_cpu.load()[1]}")
reads_peak_memory = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from /proc"
)


def instruction_set(level: str, op: str, *more: str, **environment: str) -> None:
    """The op's comparison with the reference, where VFIKIT_INSTRUCTION_SET lowers what the dispatcher picks.

    So the baseline (0) and AVX2 (1) are compared here too; ``more`` are lines of code to run after it.
    """
    code = (
        f"from tests.ops.{op}_cases import SHAPES\n"
        f"from tests.ops.test_{op} import test_kernel_against_reference_float32 as check\n"
        "for shape in SHAPES: check(shape, 'cpu')\n"
    )
    done = python(code + "\n".join(more), VFIKIT_INSTRUCTION_SET=level, **environment)
    assert done.returncode == 0, done.stderr


class _Sampled(Dataset[torch.Tensor]):
    def __init__(self, sample: Callable[[], torch.Tensor]) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.sample()


def forked_worker_does_not_hang(
    sample: Callable[[], torch.Tensor], run_threaded: Callable[[], Any], threads: Callable[[int], None]
) -> None:
    """A worker has one thread and must not enter the pool that its parent had."""
    threads(2)
    run_threaded()
    loader = DataLoader(_Sampled(sample), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    expected = sample()
    for output in loader:
        torch.testing.assert_close(output, expected)


MEMORY = """
import torch
torch.set_num_threads(2)
{setup}

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

for t in ((*small, *large) if {backward} else ()):
    t.requires_grad_()
warm = function(*small)
if {backward}:
    torch.autograd.grad(warm, small, torch.ones_like(warm))  # torch imports modules the first time
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
output = function(*large)
results = [output, *(torch.autograd.grad(output, large, grad) if {backward} else ())]
made = sum(t.nbytes for t in results) / 2**20
read = sum(t.nbytes for t in (*large, grad)) / 2**20
print(status("VmHWM") - before - made, made + read)
"""


def extra_memory(setup: str, backward: bool) -> tuple[float, float]:
    """MiB at the peak beyond what ``function(*large)`` reads and makes, and MiB of these.

    The lines ``setup`` make ``function``, tensors ``small`` and ``large`` to call it with, and ``grad`` of its output.
    """
    done = python(MEMORY.format(setup=setup, backward=backward))
    assert done.returncode == 0, done.stderr
    extra, rest = map(float, done.stdout.split())
    return extra, rest
