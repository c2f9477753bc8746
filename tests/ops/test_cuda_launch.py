"""The CUDA launcher without a card: what NVRTC makes of the text, and what either launcher is given."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch.utils import cpp_extension

from vfikit.ops import _cuda

from .cuda_on_host import INSTANCES, need

ARCHITECTURE = "90"


def test_sizes_beyond_the_kernels_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"adacof_forward: sizes are .*expected each below 2\*\*30"):
        _cuda.plan("adacof_forward", (torch.zeros(1),), (2**30, 1, 1, 1, 1, 1, 1, 1))


@pytest.mark.parametrize(("op", "inputs"), [("adacof", 4), ("dsepconv", 6)])
def test_every_plan_names_a_known_instance(op: str, inputs: int) -> None:
    """Those that the text is compiled for here are all there are."""
    named = set()
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for channels in range(1, 70):
            sizes, one = (1, channels, 7, 8, 3, 5, 6, 1), torch.zeros(1, dtype=dtype)
            runs = _cuda.plan(f"{op}_forward", [one] * (inputs + 1), sizes)
            runs += _cuda.plan(f"{op}_backward", [one] * (2 * inputs + 1), sizes)
            named |= {run.instance for run in runs}
    assert named == set(INSTANCES[op])


def test_unknown_kernels_are_rejected() -> None:
    with pytest.raises(ValueError, match="warp_forward: no CUDA kernel of that name, expected <op>_forward"):
        _cuda.plan("warp_forward", (torch.zeros(1),), (1, 1, 1, 1, 1, 1, 1, 1))


def compile_all(nvrtc: Any, op: str, architecture: str) -> dict[str, str]:
    """Every instance and the name of its compiled symbol."""
    program = nvrtc.createProgram(_cuda.source(op), f"{op}.cu", (), ())
    for name in INSTANCES[op]:
        nvrtc.addNameExpression(program, name)
    try:
        nvrtc.compileProgram(program, (f"-arch=sm_{architecture}", *_cuda.OPTIONS))
    except Exception:
        pytest.fail(nvrtc.getProgramLog(program))
    assert not nvrtc.getProgramLog(program).strip("\0 \n")
    code = nvrtc.getCUBIN(program)
    symbols = {name: nvrtc.getLoweredName(program, name) for name in INSTANCES[op]}
    symbols = {name: s.decode() if isinstance(s, bytes) else s for name, s in symbols.items()}
    assert all(symbol.encode() in code for symbol in symbols.values())
    return symbols


def nvrtc() -> Any:
    """CuPy's, which needs no card; the library itself comes with ``cuda-toolkit[nvrtc]``."""
    try:
        from cupy.cuda import nvrtc as library

        library.getVersion()
    except Exception as error:  # CuPy or the library; each has errors of its own
        need(f"CuPy's NVRTC ({error})", present=False)
    return library


@pytest.mark.parametrize("op", INSTANCES)
def test_text_compiles_for_a_card(op: str) -> None:
    symbols = compile_all(nvrtc(), op, ARCHITECTURE)
    assert len(set(symbols.values())) == len(INSTANCES[op])


def test_text_compiles_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second launcher's private calls, but for loading the result into a card."""
    version = nvrtc().getVersion()
    loaded: list[tuple[bytes, list[str]]] = []

    def load(code: bytes, names: list[str]) -> dict[str, Any]:
        loaded.append((code, names))
        return {name: lambda **call: calls.append(call) for name in names}

    calls: list[dict[str, Any]] = []
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libnvrtc.so" in line]
    monkeypatch.setattr(torch.cuda._utils, "_get_gpu_rtc_library", lambda: ctypes.CDLL(mapped[0]))
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)  # as where nothing but torch is installed
    monkeypatch.setattr(torch.version, "cuda", f"{version[0]}.{version[1]}")
    monkeypatch.setattr(torch.cuda._utils, "_cuda_load_module", load)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    card = SimpleNamespace(major=int(ARCHITECTURE[0]), minor=int(ARCHITECTURE[1]))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    (launch,) = _cuda.plan("adacof_forward", (torch.zeros(1),) * 5, (1, 3, 7, 8, 3, 5, 6, 1))
    _cuda._from_torch("adacof", launch.instance)(launch)
    assert "adacof_forward" in loaded[0][1][0]
    assert calls == [{"grid": (1, 1, 1), "block": (32, 8, 1), "args": [*launch.tensors, *launch.sizes]}]


def test_cupy_gets_pointers_sizes_and_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Entered:
        def __init__(self, *what: Any):
            self.what = what

        def __enter__(self) -> None:
            seen.append(self.what)

        def __exit__(self, *error: Any) -> None:
            seen.append("left")

    class Module:
        def __init__(self, **how: Any):
            assert how["code"] == _cuda.source("adacof")
            assert how["name_expressions"] == ("adacof_forward<float, 3>",)

        def get_function(self, name: str) -> Any:
            return lambda *call: seen.append((name, *call))

    cuda = SimpleNamespace(Device=Entered, ExternalStream=Entered)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawModule=Module, cuda=cuda))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234 + device))
    (launch,) = _cuda.plan("adacof_forward", tuple(torch.zeros(5, 1)), (2, 3, 7, 80, 3, 5, 78, 1))
    run = _cuda._from_cupy("adacof", launch.instance, 1)
    seen.clear()
    run(launch)
    assert seen[:2] == [(1,), (1235, 1)]
    name, grid, block, arguments = seen[2]
    assert (name, grid, block) == ("adacof_forward<float, 3>", (3, 1, 2), (32, 8, 1))
    assert arguments[:5] == tuple(t.data_ptr() for t in launch.tensors)
    assert arguments[5:] == launch.sizes
    assert all(type(size) is numpy.int32 for size in arguments[5:])


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As if a card had just been met."""
    monkeypatch.delenv("VFIKIT_KERNELS", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for cached in (_cuda.find, _cuda.available):
        cached.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for cached in (_cuda.find, _cuda.available):
        cached.cache_clear()


def broken() -> str:
    raise OSError("libnvrtc is\nmissing")


def test_cupy_comes_first_and_torch_second(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(_cuda, "_start_cupy", lambda: "by CuPy")
    fresh.setattr(_cuda, "_start_torch", lambda: "by torch")
    assert _cuda.find() == ("cupy", "by CuPy")
    _cuda.find.cache_clear()
    fresh.setattr(_cuda, "_start_cupy", broken)
    assert _cuda.find() == ("torch", "by torch")


def test_without_a_launcher_it_says_so_once(fresh: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    fresh.setattr(_cuda, "_start_cupy", broken)
    fresh.setattr(_cuda, "_start_torch", broken)
    with pytest.warns(RuntimeWarning, match="CUDA kernels are not in use: libnvrtc is missing; libnvrtc is missing"):
        assert not _cuda.available()
    recwarn.clear()
    assert not _cuda.available()
    assert not recwarn.list
    _cuda.available.cache_clear()
    fresh.setenv("VFIKIT_KERNELS", "require")
    with pytest.raises(ImportError, match="pip install 'vfikit"):
        _cuda.available()


def test_kernels_can_be_turned_off(fresh: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    fresh.setenv("VFIKIT_KERNELS", "0")
    assert _cuda.find() == (None, "VFIKIT_KERNELS=0")
    assert not _cuda.available()
    assert not recwarn.list
