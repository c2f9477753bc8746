"""The compiled kernels of deformable separable convolution: instruction sets, threads, forks, memory, whole frames."""

from collections.abc import Callable

import pytest
import torch

from vfikit.ops import dsepconv

from . import checks, kernels
from .dsepconv_cases import SHAPES, gradient, make
from .kernels import needs_kernels, reads_peak_memory


@needs_kernels
@pytest.mark.parametrize("chunk", ["64", "128"])  # pixels: what processors with a small and a large L1 take
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str, chunk: str) -> None:
    past_the_caches = "check((1, 3, 241, 701, 5), 'cpu')"  # 51 MB of maps; the first plane alone is aligned
    more = "from tests.ops.test_dsepconv import test_nan_and_infinite_offsets as check, torch"
    kernels.instruction_set(level, "dsepconv", past_the_caches, more, "check(torch.float32, 'cpu')", VFIKIT_CHUNK=chunk)


@needs_kernels
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(threads: Callable[[int], None]) -> None:
    shape = (2, 3, 150, 90, 5)
    checks.any_number_of_threads(dsepconv, make(shape, spread=15.0), gradient(shape), threads)


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    shape = (1, 3, 64, 64, 3)
    kernels.forked_worker_does_not_hang(
        lambda: dsepconv(*make(SHAPES[1])),
        lambda: checks.differentiate(dsepconv, make(shape), gradient(shape)),
        threads,
    )


MEMORY = """
from vfikit.ops import dsepconv as function

def inputs(height, width):
    reach, maps = {kernel} - 1, (*[{kernel}] * 2, *[{kernel} ** 2] * 3)
    tensors = [torch.rand(1, {channels}, height + reach, width + reach)]
    return [*tensors, *(torch.rand(1, m, height, width) for m in maps)]

small, large, grad = inputs(9, 9), inputs({height}, {width}), torch.rand(1, {channels}, {height}, {width})
"""


@needs_kernels
@reads_peak_memory
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
    extra, rest = kernels.extra_memory(MEMORY.format(**sizes), backward)
    assert extra < 0.05 * rest


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
