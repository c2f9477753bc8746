"""Timing of alternatives in turn, so that whatever slows the machine slows them all; and memory beyond the tensors."""

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Call = Callable[[], object]
Compare = Callable[..., None]  # the fixture of conftest.py, which says its arguments
CUDA_BATCH_MS = 20.0  # a batch of launches takes at least this long between its two events
# A shorter call is made twice, so as not to pay for memory that the one before gave back: fresh pages can double or
# triple a call of 200 ms.
SETTLED_MS = 2500.0


@dataclass(frozen=True)
class Ratio:
    """One line of the summary: ``ratio`` is the median over rounds of other / ours."""

    what: str
    device: str
    ours_ms: float
    other: str
    other_ms: float
    ratio: float
    target: float | None
    rounds: int


@dataclass(frozen=True)
class Memory:
    """Peak memory of a call beyond its inputs and what it returns."""

    what: str
    extra_mib: float
    tensors_mib: float
    target: float  # largest share of the tensors' memory


def clock(device: str) -> Callable[[Call], float]:
    """A function that runs a call and returns its milliseconds: wall clock on a CPU, events on CUDA."""
    return _cuda_ms if device == "cuda" else _wall_ms


def _wall_ms(call: Call) -> float:
    milliseconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        call()
        milliseconds = 1e3 * (time.perf_counter() - start)
        if milliseconds >= SETTLED_MS:
            break
    return milliseconds


def _cuda_ms(call: Call) -> float:
    """Of one call in a batch of launches between two events, long enough that launching does not count."""
    launches = 1
    while True:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(launches):
            call()
        stop.record()
        stop.synchronize()
        elapsed: float = start.elapsed_time(stop)
        if elapsed >= CUDA_BATCH_MS or launches >= 4096:
            return elapsed / launches
        launches *= max(2, min(16, round(CUDA_BATCH_MS / max(elapsed, 1e-3))))


def ratios(
    what: str,
    device: str,
    ours_ms: list[float],
    others_ms: dict[str, list[float]],
    targets: dict[str, float],
) -> list[Ratio]:
    """The summary of times taken in turn, round by round."""
    return [
        Ratio(
            what,
            device,
            statistics.median(ours_ms),
            other,
            statistics.median(times),
            statistics.median(theirs / ours for theirs, ours in zip(times, ours_ms, strict=True)),
            targets.get(other),
            len(times),
        )
        for other, times in others_ms.items()
    ]


Prepare = Callable[[], tuple[Callable[[], Iterable[Tensor]], Iterable[Tensor]]]


def measure_memory(what: str, prepare: Prepare, target: float) -> Memory:
    """Runs the call that ``prepare`` (of a module, so that it can be sent) returns, with its inputs, in a new process.

    Linux only: the peak of the resident memory is reset just before the call. Raises ``OSError`` elsewhere.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        extra, tensors = pool.apply(_peak, (prepare, torch.get_num_threads()))
    return Memory(what, extra / 2**20, tensors / 2**20, target)


def _peak(prepare: Prepare, threads: int) -> tuple[int, int]:
    torch.set_num_threads(threads)
    call, inputs = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
    before = _status("VmRSS")
    outputs = list(call())
    sizes = [sum(t.untyped_storage().nbytes() for t in tensors) for tensors in (inputs, outputs)]
    return _status("VmHWM") - before - sizes[1], sum(sizes)


def _status(field: str) -> int:
    with contextlib.closing(open("/proc/self/status")) as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))
