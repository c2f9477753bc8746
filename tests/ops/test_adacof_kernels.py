"""The compiled AdaCoF kernels as a library: symbols, instruction sets, threads, forks, memory, stale builds."""

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from vfikit.ops import _cpu, adacof, backends
from vfikit.ops._backends import WITHOUT_CUDA

from . import checks, kernels
from .adacof_cases import SHAPES, gradient, make
from .kernels import needs_kernels, reads_peak_memory
from .test_adacof import differentiate


@needs_kernels
def test_kernel_symbols_are_those_of_the_ops() -> None:
    """Every op has its four C symbols, and nothing else is exported but OBProxSG's two phases and the hash.

    Of those without CUDA, all but the forward pass in float32 is torch's.
    """
    ops = {row.op for row in backends()} - set(WITHOUT_CUDA)
    expected = {f"vfikit_{op}_{way}_{kind}" for op in ops for way in ("forward", "backward") for kind in ("f32", "f64")}
    expected |= {f"vfikit_obproxsg_{phase}_{kind}" for phase in ("prox", "orthant") for kind in ("f32", "f64")}
    expected |= {"vfikit_source_hash", *(f"vfikit_{op}_forward_f32" for op in WITHOUT_CUDA)}
    library = _cpu.load()[0]
    assert all(hasattr(library, name) for name in expected)
    if shutil.which("nm"):
        lines = subprocess.run(["nm", "-D", "--defined-only", _cpu.LIBRARY], capture_output=True, text=True, check=True)
        assert {line.split()[-1] for line in lines.stdout.splitlines()} == expected


@needs_kernels
def test_subnormal_weights_count_as_zero_inside_alone() -> None:
    """Those of a trained softmax; the state of the thread is as it was afterwards."""
    torch.set_flush_denormal(False)
    frame, maps = torch.rand(1, 3, 12, 12), torch.zeros(1, 25, 8, 8)
    assert torch.equal(adacof(frame, maps + 1e-39, maps, maps), torch.zeros(1, 3, 8, 8))
    assert (torch.tensor(1e-39) * 1.0).item() > 0


@needs_kernels
def test_scratch_space_is_of_one_call_at_a_time(threads: Callable[[int], None]) -> None:
    """Calls leave it to later ones, those of other Python threads and of other sizes, too."""
    threads(1)
    made = [make(shape) for shape in SHAPES]
    calls = [(inputs, shape[-1], adacof(*inputs, shape[-1])) for inputs, shape in zip(made, SHAPES)] * 20
    with ThreadPoolExecutor(4) as pool:
        for (_, _, expected), output in zip(calls, pool.map(lambda call: adacof(*call[0], call[1]), calls)):
            assert torch.equal(output, expected)


def check_maps_in_either_layout(shape: tuple[int, ...]) -> None:
    """The input's gradient is summed in another order."""
    image, *maps = make(shape, spread=15.0)
    last = [t.to(memory_format=torch.channels_last) for t in maps]
    expected, to_input, *to_maps = differentiate(adacof, (image, *maps), shape[-1], gradient(shape))
    for others in (last, [maps[0], *last[1:]]):
        output, other, *others_grads = differentiate(adacof, (image, *others), shape[-1], gradient(shape))
        assert torch.equal(output, expected)
        torch.testing.assert_close(other, to_input, rtol=0, atol=4e-6 * to_input.abs().max().item())
        assert all(torch.equal(a, b) for a, b in zip(others_grads, to_maps, strict=True))
        assert [t.stride() for t in others_grads] == [t.stride() for t in (last if others is last else maps)]


@needs_kernels
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 150, 90, 5, 1)], ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_maps_in_either_layout(shape: tuple[int, ...], count: int, threads: Callable[[int], None]) -> None:
    threads(count)
    check_maps_in_either_layout(shape)


@needs_kernels
def test_channels_last_maps_are_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy to planes, which takes as long as the sampling."""
    launched = []
    monkeypatch.setattr(_cpu, "launch", lambda name, tensors, sizes: launched.append((name, tensors, sizes)))
    image, *maps = make(SHAPES[1])
    maps = [t.to(memory_format=torch.channels_last).requires_grad_() for t in maps]
    adacof(image, *maps).sum().backward()
    for (name, tensors, sizes), way in zip(launched, ("forward", "backward"), strict=True):
        assert (name, sizes[-1]) == (f"adacof_{way}", True)
        assert {t.data_ptr() for t in maps} <= {t.data_ptr() for t in tensors if t is not None}


@needs_kernels
@pytest.mark.parametrize("chunk", ["64", "128"])  # pixels: what processors with a small and a large L1 take
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str, chunk: str) -> None:
    either = "from tests.ops.test_adacof_kernels import check_maps_in_either_layout as either"
    past_the_caches = "check((1, 3, 241, 701, 5, 1), 'cpu')"  # 51 MB of maps; the first plane alone is aligned
    kernels.instruction_set(
        level, "adacof", either, "for shape in SHAPES: either(shape)", past_the_caches, VFIKIT_CHUNK=chunk
    )


@needs_kernels
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(threads: Callable[[int], None]) -> None:
    shape = (2, 3, 150, 90, 5, 1)
    checks.any_number_of_threads(adacof, make(shape, spread=15.0), gradient(shape), threads)


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    shape = (1, 3, 64, 64, 3, 1)
    kernels.forked_worker_does_not_hang(
        lambda: adacof(*make(SHAPES[1]))[0], lambda: differentiate(adacof, make(shape), 1, gradient(shape)), threads
    )


MEMORY = """
from vfikit.ops import adacof
kernel, dilation, height, width = {shape}
reach = (kernel - 1) * dilation

def inputs(height, width):
    maps = (torch.rand(1, kernel**2, height, width).to(memory_format=torch.{layout}) for _ in range(3))
    return [torch.rand(1, {channels}, height + reach, width + reach), *maps]

def function(*tensors):
    return adacof(*tensors, dilation)

small, large, grad = inputs(9, 9), inputs(height, width), torch.rand(1, {channels}, height, width)
"""


@needs_kernels
@reads_peak_memory
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((5, 1, 540, 960), 3), ((5, 1, 540, 960), 16), ((11, 2, 270, 480), 3), ((11, 2, 160, 240), 63)],
)
def test_kernel_takes_little_extra_memory(shape: tuple[int, ...], channels: int, layout: str, backward: bool) -> None:
    """Under 5 % of inputs, outputs and gradients, and never a copy of the maps."""
    extra, rest = kernels.extra_memory(MEMORY.format(shape=shape, channels=channels, layout=layout), backward)
    assert extra < 0.05 * rest


def test_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stale build must not pass for the new one: it warns, and the reference runs."""
    if not _cpu.LIBRARY.exists():
        pytest.skip("no compiled kernels")
    monkeypatch.delenv("VFIKIT_KERNELS", raising=False)
    shutil.copytree(_cpu.SOURCES, tmp_path / "csrc")
    (tmp_path / "csrc" / "abi.h").write_text("// changed\n")
    monkeypatch.setattr(_cpu, "SOURCES", tmp_path / "csrc")
    with pytest.warns(RuntimeWarning, match="was built from other sources.*The slower torch reference runs"):
        library, why = _cpu.load.__wrapped__()
    assert library is None
    assert why.endswith("was built from other sources")


def test_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_cpu, "LIBRARY", tmp_path / "_kernels.so")
    monkeypatch.delenv("VFIKIT_KERNELS", raising=False)
    with pytest.warns(RuntimeWarning, match=r"_kernels.so was not built; rebuild with"):
        assert _cpu.load.__wrapped__()[0] is None
    monkeypatch.setenv("VFIKIT_KERNELS", "0")
    assert _cpu.load.__wrapped__() == (None, "VFIKIT_KERNELS=0")
    monkeypatch.setenv("VFIKIT_KERNELS", "require")
    with pytest.raises(ImportError, match=r"_kernels.so was not built"):
        _cpu.load.__wrapped__()
    (tmp_path / "_kernels.so").write_text("not a library")
    with pytest.raises(ImportError, match=r"_kernels.so does not load"):
        _cpu.load.__wrapped__()
