"""The compiled kernels of deformable convolution: instruction sets, threads, forks, memory."""

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset

from . import checks
from .deform_conv2d_cases import SHAPES, Shape, gradient, make, op
from .test_adacof_kernels import threads

__all__ = ["threads"]  # a fixture


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
