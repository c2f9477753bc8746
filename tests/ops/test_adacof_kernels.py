"""The compiled AdaCoF kernels as a library: symbols, instruction sets, threads, forks, memory, stale builds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vfikit.ops import _cpu, adacof, backends

from . import checks
from .adacof_cases import SHAPES, gradient, make
from .test_adacof import differentiate

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(not _cpu.available(), reason=f"no compiled kernels: {_cpu.load()[1]}")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=300)


@needs_kernels
def test_kernel_symbols_are_those_of_the_ops() -> None:
    """Every op has its four C symbols, and nothing else is exported but the hash."""
    ops = {row.op for row in backends()}
    expected = {
        f"vfikit_{op}_{way}_{kind}" for op in ops for way in ("forward", "backward") for kind in ("f32", "f64")
    } | {"vfikit_source_hash"}
    library = _cpu.load()[0]
    assert all(hasattr(library, name) for name in expected)
    if shutil.which("nm"):
        lines = subprocess.run(["nm", "-D", "--defined-only", _cpu.LIBRARY], capture_output=True, text=True, check=True)
        assert {line.split()[-1] for line in lines.stdout.splitlines()} == expected


@needs_kernels
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_kernel_of_every_instruction_set(level: str) -> None:
    """VFIKIT_INSTRUCTION_SET lowers what the dispatcher picks: the baseline and AVX2 are compared here too."""
    code = (
        "from tests.ops.adacof_cases import SHAPES\n"
        "from tests.ops.test_adacof import test_kernel_against_reference_float32 as check\n"
        "for shape in SHAPES: check(shape, 'cpu')\n"
    )
    done = python(code, VFIKIT_INSTRUCTION_SET=level)
    assert done.returncode == 0, done.stderr


@needs_kernels
def test_kernel_gives_the_same_numbers_on_any_number_of_threads(threads: Callable[[int], None]) -> None:
    shape = (2, 3, 150, 90, 5, 1)
    checks.any_number_of_threads(adacof, make(shape, spread=15.0), gradient(shape), threads)


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Sampled(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return adacof(*make(SHAPES[1]))[0]


def test_forked_worker_does_not_hang(threads: Callable[[int], None]) -> None:
    """A worker has one thread and must not enter the pool that its parent had."""
    threads(2)
    shape = (1, 3, 64, 64, 3, 1)
    differentiate(adacof, make(shape), 1, gradient(shape))
    loader = DataLoader(Sampled(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    expected = adacof(*make(SHAPES[1]))[0]
    for output in loader:
        torch.testing.assert_close(output, expected)


MEMORY = """
import torch
from vfikit.ops import adacof
torch.set_num_threads(2)

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

shape, channels, backward = {shape}, {channels}, {backward}
kernel, dilation, height, width = shape
reach = (kernel - 1) * dilation
image = torch.rand(1, channels, height + reach, width + reach)
maps = [torch.rand(1, kernel**2, height, width) for _ in range(3)]
inputs = [image, *maps]
grad = torch.rand(1, channels, height, width)
small = [torch.rand(1, channels, 9 + reach, 9 + reach), *(torch.rand(1, kernel**2, 9, 9) for _ in range(3))]
for t in (small + inputs if backward else ()):
    t.requires_grad_()
adacof(*small, dilation).sum().backward() if backward else adacof(*small, dilation)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
output = adacof(*inputs, dilation)
results = [output, *(torch.autograd.grad(output, inputs, grad) if backward else ())]
made = sum(t.nbytes for t in results) / 2**20
read = sum(t.nbytes for t in (*inputs, grad)) / 2**20
extra = status("VmHWM") - before - made
print(extra / (made + read))
"""


@needs_kernels
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("shape", "channels"), [((5, 1, 540, 960), 3), ((11, 2, 270, 480), 3), ((11, 2, 160, 240), 63)]
)
def test_kernel_takes_little_extra_memory(shape: tuple[int, ...], channels: int, backward: bool) -> None:
    """Under 5 % of inputs, outputs and gradients, and never a copy of the maps."""
    done = python(MEMORY.format(shape=shape, channels=channels, backward=backward))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.05


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
