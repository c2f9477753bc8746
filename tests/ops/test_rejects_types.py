"""Tensors of whole or complex numbers, and what is no tensor, end in one line, not in numbers cut to whole ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vfikit.ops import ModulatedDeformConv2d, SoftSplit, adacof, deform_conv2d, dsepconv, warp

MAPS, TAPS = torch.rand(1, 3, 3, 3), torch.rand(1, 9, 3, 3)
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "adacof": lambda x: adacof(x, TAPS, TAPS, TAPS),
    "dsepconv": lambda x: dsepconv(x, MAPS, MAPS, TAPS, TAPS, TAPS),
    "deform_conv2d": lambda x: deform_conv2d(x, torch.rand(1, 18, 3, 3), torch.rand(2, 3, 3, 3)),
    "warp": lambda x: warp(x, torch.rand(1, 2, 5, 5)),
}


@pytest.mark.parametrize("op", CALLS)
def test_types(op: str) -> None:
    x = torch.rand(1, 3, 5, 5)
    assert CALLS[op](x).dtype == x.dtype
    for wrong in (x.int(), x.bool(), x.cfloat()):
        with pytest.raises(ValueError, match=rf"^{op}: got a tensor \(1, 3, 5, 5\) of .*, expected floating point"):
            CALLS[op](wrong)
    not_a_tensor: Any = x.numpy()
    with pytest.raises(TypeError, match=f"^{op}: got a ndarray, expected tensors"):
        CALLS[op](not_a_tensor)


def test_modules() -> None:
    for wrong in ((0, 6, 3), (4, 0, 3), (4, 4, 3, 1, 0, 1, 0), (4, 4, 3, 1, 0, 1, 1, 0)):
        with pytest.raises(ValueError, match=r"^ModulatedDeformConv2d: got .*, expected 1 or more of each"):
            ModulatedDeformConv2d(*wrong)
    for x in (torch.rand(2, 4, 9, 9), torch.rand(3, 9, 9)):
        with pytest.raises(ValueError, match=r"^SoftSplit: x is .*, expected \(N, 3, H, W\)"):
            SoftSplit(3, 8, 7, 3, 3)(x)
