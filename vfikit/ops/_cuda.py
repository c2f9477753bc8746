"""Compiles ``cuda/<op>.cu`` for the running card at first use and launches it on torch's current stream.

CuPy (``pip install vfikit[cuda]``) is the first launcher. Without it torch's own NVRTC compiles the same text, through
private names of torch: this file is the only one that knows them.
"""

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SOURCES = Path(__file__).with_name("cuda")
OPTIONS = ("--std=c++17",)
BLOCK = (32, 8, 1)  # pixels of one thread block; a warp is 32 neighbours of one row
MOST_BLOCKS = (2**20, 65535, 65535)  # the kernels stride over more
# Backward: how many maps there are, and whether a thread owns a row of their taps or all of them.
BACKWARD = {"adacof_backward": (3, "row"), "dsepconv_backward": (5, "all")}
# Sizes: channels, height, width, kernel's height and width, offset groups ..., the pixels at hand.
COLUMNS = ("deform_conv2d_columns", "deform_conv2d_gradients")
_TYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "f16", torch.bfloat16: "bf16"}


class Launch(NamedTuple):
    """One kernel run: a template instance of ``cuda/<op>.cu`` on ``grid``; its arguments are the tensors, then the
    sizes as 32-bit integers."""

    instance: str
    grid: tuple[int, int, int]
    tensors: tuple[Tensor, ...]
    sizes: tuple[int, ...]


def plan(name: str, tensors: Sequence[Tensor | None], sizes: Sequence[int]) -> list[Launch]:
    """The kernel runs that ``launch`` makes, in order."""
    if max(sizes) >= 2**30:
        raise ValueError(f"{name}: sizes are {tuple(sizes)}, expected each below 2**30 on CUDA")
    first = tensors[0]
    assert first is not None
    if name in COLUMNS:
        rows, tiles = math.prod(sizes[3:6]), -(-sizes[-1] // math.prod(BLOCK))
        grid = (min(tiles, MOST_BLOCKS[0]), min(rows, MOST_BLOCKS[1]), 1)
        return [
            Launch(f"{name}<{_TYPES[first.dtype]}>", grid, tuple(t for t in tensors if t is not None), tuple(sizes))
        ]
    batch, channels, _, _, kernel, height, width = sizes[:7]
    block = channels if channels <= 4 else 8 if channels <= 8 else 16  # channels that share the maps' reads
    blocks, tiles = -(-channels // block), -(-width // BLOCK[0]) * -(-height // BLOCK[1])

    def one(kernel_name: str, rows: int, *arguments: Tensor | None) -> Launch:
        x, y, z = (min(count, most) for count, most in zip((tiles, rows, batch), MOST_BLOCKS))
        instance = f"{kernel_name}<{_TYPES[first.dtype]}, {block}>"
        return Launch(instance, (x, y, z), tuple(t for t in arguments if t is not None), tuple(sizes))

    if name in ("adacof_forward", "dsepconv_forward"):
        return [one(name, blocks, *tensors)]
    if name not in BACKWARD:
        raise ValueError(f"{name}: no CUDA kernel of that name, expected <op>_forward or <op>_backward")
    maps, owned = BACKWARD[name]
    grad, frame, to_input = tensors[0], tensors[1], tensors[2 + maps]
    given, to_maps = tensors[2 : 2 + maps], tensors[3 + maps :]
    runs = [one(f"{name}_maps", kernel if owned == "row" else 1, grad, frame, *given, *to_maps)]
    if to_input is not None:
        runs.append(one(f"{name}_input", blocks, grad, *given, to_input))
    return runs


def launch(name: str, tensors: Sequence[Tensor | None], sizes: Sequence[int]) -> None:
    """Runs kernel ``name`` on torch's current stream of the tensors' device; returns before it has finished.

    The tensors must be contiguous and of the first one's type (float32, float64, float16 or bfloat16) and device. Only
    the gradient of the input has the type of the arithmetic, float32 for half types, and is added to: it comes zeroed.
    None is a gradient that is not wanted; a tensor without numbers reaches the kernel as a null pointer.
    """
    for run in plan(name, tensors, sizes):
        _run(name.rpartition("_")[0], run)


def _run(op: str, run: Launch) -> None:
    device = run.tensors[0].device
    with torch.cuda.device(device):
        _kernel(op, run.instance, device.index)(run)


def source(op: str) -> str:
    """The op's text with what the texts share in place: launchers look for no files, and cache what they are given."""
    shared, text = ((SOURCES / name).read_text(encoding="utf-8") for name in ("pixels.h", f"{op}.cu"))
    return text.replace('#include "pixels.h"', shared)


@functools.cache
def available() -> bool:
    """Whether kernels can run; where a card is there and they cannot, says why, once. See ``load`` in ``_cpu``."""
    launcher, why = find()
    if launcher is None and torch.cuda.is_available() and os.environ.get("VFIKIT_KERNELS") != "0":
        message = f"vfikit: native CUDA kernels are not in use: {why}"
        if os.environ.get("VFIKIT_KERNELS") == "require":
            raise ImportError(message)
        warnings.warn(f"{message}. The slower torch reference runs instead", RuntimeWarning, stacklevel=2)
    return launcher is not None


@functools.cache
def find() -> tuple[str | None, str]:
    """The launcher ("cupy" or "torch") or None, and why. Compiles nothing; asked first when an op meets a card."""
    if os.environ.get("VFIKIT_KERNELS") == "0":
        return None, "VFIKIT_KERNELS=0"
    if torch.version.cuda is None:
        return None, "torch is built without CUDA"
    if not torch.cuda.is_available():
        return None, "no CUDA device"
    reasons = []
    for launcher, start in (("cupy", _start_cupy), ("torch", _start_torch)):
        try:
            return launcher, start()
        except Exception as error:  # a half-installed launcher fails in many ways; each must lead to the next one
            reasons.append(" ".join(str(error).split())[:200])
    return None, f"{'; '.join(reasons)}: `pip install 'vfikit[cuda]'`"


def _start_cupy() -> str:
    if importlib.util.find_spec("cupy") is None:
        raise ImportError("CuPy is not installed")
    import cupy

    major, minor = cupy.cuda.nvrtc.getVersion()  # raises where the library is missing
    return f"compiled by CuPy {cupy.__version__}, NVRTC {major}.{minor}"


def _start_torch() -> str:
    if not hasattr(torch.cuda, "_compile_kernel"):
        raise ImportError(f"torch {torch.__version__} has no _compile_kernel")
    from torch.cuda._utils import _get_nvrtc_library

    _get_nvrtc_library()
    return f"compiled by torch {torch.__version__}'s NVRTC"


@functools.cache
def _kernel(op: str, instance: str, device: int) -> Callable[[Launch], None]:
    """A template instance of ``cuda/<op>.cu``, compiled for ``device``, which is the current one."""
    launcher, _ = find()
    return _from_cupy(op, instance, device) if launcher == "cupy" else _from_torch(op, instance)


def _from_cupy(op: str, instance: str, device: int) -> Callable[[Launch], None]:
    import cupy
    import numpy

    with cupy.cuda.Device(device):
        module = cupy.RawModule(code=source(op), options=OPTIONS, name_expressions=(instance,))  # cached on disk
        function = module.get_function(instance)

    def run(launch: Launch) -> None:
        arguments = (*(t.data_ptr() for t in launch.tensors), *map(numpy.int32, launch.sizes))
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
            function(launch.grid, BLOCK, arguments)

    return run


def _from_torch(op: str, instance: str) -> Callable[[Launch], None]:
    from torch.utils import cpp_extension

    home = cpp_extension.CUDA_HOME
    try:
        if home is None:  # the texts include no header, yet torch insists on a folder of them
            cpp_extension.CUDA_HOME = str(SOURCES)
        kernel: Any = torch.cuda._compile_kernel(source(op), instance, nvcc_options=list(OPTIONS))
    finally:
        cpp_extension.CUDA_HOME = home

    def run(launch: Launch) -> None:
        kernel(grid=launch.grid, block=BLOCK, args=[*launch.tensors, *launch.sizes])  # on the current stream

    return run
