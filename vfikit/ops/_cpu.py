"""Loads the compiled CPU kernels and calls them: C symbols ``vfikit_<op>_<forward|backward>_<f32|f64>``, and those of
one optimizer's step."""

import ctypes
import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch  # before the library, so that both share one OpenMP runtime
from torch import Tensor

LIBRARY = Path(__file__).with_name("_kernels.so")
SOURCES = Path(__file__).with_name("csrc")
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def source_hash() -> str:
    """Of the sources beside this file; the library exports the one it was built from."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library or None, and why. ``VFIKIT_KERNELS`` is "0" (off) or "require" (absence is an error)."""
    wanted = os.environ.get("VFIKIT_KERNELS", "")
    if wanted == "0":
        return None, "VFIKIT_KERNELS=0"
    library, why = _open()
    if library is None:
        message = f"vfikit: native CPU kernels are not in use: {why}; rebuild with `pip install -e .`"
        if wanted == "require":
            raise ImportError(message)
        warnings.warn(f"{message}. The slower torch reference runs instead", RuntimeWarning, stacklevel=2)
    return library, why


def _open() -> tuple[ctypes.CDLL | None, str]:
    if not LIBRARY.exists():
        return None, f"{LIBRARY.name} was not built"
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.vfikit_source_hash.restype = ctypes.c_char_p
        built = library.vfikit_source_hash().decode()
    except (OSError, AttributeError) as error:
        return None, f"{LIBRARY.name} does not load ({error})"
    if SOURCES.is_dir() and built != source_hash():
        return None, f"{LIBRARY.name} was built from other sources"
    return library, "compiled library"


def available() -> bool:
    return load()[0] is not None


def launch(name: str, tensors: Sequence[Tensor | None], sizes: Sequence[int], numbers: Sequence[float] = ()) -> None:
    """Calls ``vfikit_<name>_<type>(pointers..., numbers..., sizes..., threads)``; ctypes lets other Python threads run
    meanwhile.

    The tensors must be contiguous and of the first one's type; None becomes a null pointer.
    """
    first = tensors[0]
    assert first is not None
    function = getattr(load()[0], f"vfikit_{name}_{_SUFFIX[first.dtype]}")
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    counts = map(ctypes.c_int64, (*sizes, torch.get_num_threads()))
    if function(*pointers, *map(ctypes.c_double, numbers), *counts):
        raise MemoryError(f"{name}: no memory for scratch space, sizes {tuple(sizes)}")
