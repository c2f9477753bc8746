"""Builds vfikit/ops/_kernels, a plain C library that ctypes loads; everything else is in pyproject.toml."""

import hashlib
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = sorted((ROOT / "vfikit/ops/csrc").iterdir())


def source_hash() -> str:
    """The same sum as ``vfikit.ops._cpu.source_hash``: a library built from other sources is refused."""
    digest = hashlib.sha256()
    for path in SOURCES:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class PlainLibrary(build_ext):
    """A C ABI: no PyInit symbol and no Python tag in the file's name."""

    def get_export_symbols(self, ext):
        return ext.export_symbols

    def get_ext_filename(self, ext_name):
        return ext_name.replace(".", "/") + ".so"


class AnyPython(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


openmp = [] if sys.platform == "darwin" else ["-fopenmp"]
setup(
    cmdclass={"build_ext": PlainLibrary, "bdist_wheel": AnyPython},
    ext_modules=[
        Extension(
            "vfikit.ops._kernels",
            [str(path.relative_to(ROOT)) for path in SOURCES if path.suffix == ".cpp"],
            depends=[str(path.relative_to(ROOT)) for path in SOURCES],
            language="c++",
            optional=True,
            define_macros=[("VFIKIT_SOURCE_HASH", f'"{source_hash()}"')],
            extra_compile_args=[
                "-O3",
                "-g0",
                "-std=c++17",
                "-fvisibility=hidden",
                "-fno-exceptions",
                "-fno-math-errno",
                "-fno-wrapv",  # Python asks for it, which costs a thirtieth of adacof
                "-Wno-psabi",
                *openmp,
            ],
            extra_link_args=openmp,
        )
    ],
)
