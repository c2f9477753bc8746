"""The CUDA text as a host C++ library: its kernels run on CPU tensors, one thread of a grid after the other."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks.plain.adacof import CUDA_TEXT
from vfikit.ops import _cuda

NAMES = {torch.float32: "float", torch.float64: "double", torch.float16: "f16", torch.bfloat16: "bf16"}
# Every template instance that a plan can name: type, channels that share the reads of the maps.
INSTANCES = {
    op: [
        f"{op}_{kernel}<{type_}, {block}>"
        for kernel, type_, block in product(
            ("forward", "backward_maps", "backward_input"), NAMES.values(), (1, 2, 3, 4, 8, 16)
        )
    ]
    for op in ("adacof", "dsepconv")
}
INSTANCES["deform_conv2d"] = [
    f"deform_conv2d_{kernel}<{type_}>" for kernel, type_ in product(("columns", "gradients"), NAMES.values())
]
INSTANCES[CUDA_TEXT] = ["a_thread_a_number<float>", "a_thread_a_number<double>"]  # what benchmarks measure against
SOURCE = """
#include "%s.cu"
#include <cstring>

typedef void (*Run)(dim3, dim3, void**);

template <class K, K kernel>
void run(dim3 grid, dim3 block, void** arguments) {
    launch(kernel, grid, block, arguments);
}

#define INSTANCE(...) {#__VA_ARGS__, run<decltype(&__VA_ARGS__), &__VA_ARGS__>},
static const struct { const char* name; Run run; } table[] = {
%s
};

extern "C" int host_launch(const char* name, const unsigned* grid, const unsigned* block, void** arguments) {
    for (const auto& entry : table)
        if (!std::strcmp(entry.name, name)) {
            entry.run({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, arguments);
            return 0;
        }
    return 1;
}
"""


def need(tool: str, present: bool) -> None:
    if not present and os.environ.get("VFIKIT_CI"):
        pytest.fail(f"{tool} is missing, and CI promises it")
    if not present:
        pytest.skip(f"{tool} is missing")


class Host:
    """Stands in for a card: ``run`` is what ``_cuda._run`` would have launched of the op."""

    def __init__(self, op: str, folder: Path):
        need("g++", shutil.which("g++") is not None)
        text, library = folder / "host.cpp", folder / "host.so"
        table = "\n".join(f"INSTANCE({name})" for name in INSTANCES[op])
        text.write_text(SOURCE % (op, table), encoding="utf-8")
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
        command = ["g++", *flags, "-Wno-sign-compare", "-I", str(_cuda.SOURCES), str(text), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-4000:]
        self.op, self.library = op, ctypes.CDLL(str(library))
        self.ran: list[_cuda.Launch] = []

    def run(self, op: str, launch: _cuda.Launch) -> None:
        assert op == self.op
        values = [*(ctypes.c_void_p(t.data_ptr()) for t in launch.tensors), *map(ctypes.c_int, launch.sizes)]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        grid, block = ((ctypes.c_uint * 3)(*size) for size in (launch.grid, _cuda.BLOCK))
        missing = self.library.host_launch(launch.instance.encode(), grid, block, addresses)
        assert not missing, f"no instance {launch.instance}"
        self.ran.append(launch)

    @contextlib.contextmanager
    def standing_in(self) -> Iterator["Host"]:
        """Ops find a card here."""
        self.ran.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_cuda, "available", lambda: True)
            patch.setattr(_cuda, "_run", self.run)
            yield self
