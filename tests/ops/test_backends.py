"""``vfikit.ops.backends()`` and the switch ``VFIKIT_KERNELS``."""

import torch

import vfikit.ops
from vfikit.ops import _cpu

from ..fresh import python
from .kernels import needs_kernels

RUN = """
import warnings
warnings.simplefilter("error")
import torch
from vfikit.ops import adacof, backends
adacof(torch.rand(1, 3, 4, 4), *torch.rand(3, 1, 4, 3, 3))
print(*(f"{row.op} {row.device} {row.backend} ({row.why})" for row in backends()), sep="; ")
"""


def test_table_has_every_op_on_every_device() -> None:
    rows = vfikit.ops.backends()
    ops = {row.op for row in rows}
    assert {(row.op, row.device) for row in rows} == {(op, device) for op in ops for device in ("cpu", "cuda")}
    assert all(row.why for row in rows)
    if not torch.cuda.is_available():
        assert all(row.backend == "reference" for row in rows if row.device == "cuda")


def test_kernels_can_be_turned_off() -> None:
    done = python(RUN, VFIKIT_KERNELS="0")
    assert done.stdout.startswith("adacof cpu reference (VFIKIT_KERNELS=0); "), done.stderr


def test_kernels_can_be_required() -> None:
    done = python(RUN, VFIKIT_KERNELS="require")
    if _cpu.LIBRARY.exists():
        assert done.stdout.startswith("adacof cpu cpp (compiled library); "), done.stderr
    else:
        assert "ImportError: vfikit: native CPU kernels are not in use" in done.stderr


FIRST_CALLS = """
import sys
import torch
from vfikit.ops import adacof, attention, conv3x3, deform_conv2d, dsepconv
x, maps = torch.rand(1, 4, 9, 9), torch.rand(4, 1, 4, 8, 8)
adacof(x, *maps[:3])
dsepconv(x, *torch.rand(2, 1, 2, 8, 8), *maps[:3])
deform_conv2d(x, torch.rand(1, 18, 9, 9), torch.rand(4, 4, 3, 3), padding=1)
conv3x3(x, torch.rand(4, 4, 3, 3))
attention(*torch.rand(3, 1, 1, 9, 8))
print("torch._dynamo" in sys.modules)
"""


@needs_kernels
def test_the_first_call_of_a_kernel_imports_no_compiler() -> None:
    """torch's takes a second and 70 MB."""
    done = python(FIRST_CALLS)
    assert done.stdout == "False\n", done.stderr
