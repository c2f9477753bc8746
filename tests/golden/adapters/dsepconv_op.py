"""Deformable separable convolution alone: its output and its six gradients, by the op and by its definition."""

import torch

from vfikit.ops import dsepconv
from vfikit.ops.dsepconv import dsepconv_backward_reference, dsepconv_reference

from .case import Case

DOUBLE = 1e-5  # the reference ran in float32, whose fractions are as coarse as its coordinates
NAMES = ("input", "vertical", "horizontal", "offset_x", "offset_y", "mask")


def op(case: Case) -> None:
    assert case.meta["function"] == "dsepconv"
    grad = case.take("input_grad_output")
    for sample in (dsepconv, dsepconv_reference):
        leaves = [case.take(f"input_{name}").requires_grad_() for name in NAMES]
        output = sample(*leaves)
        case.check("expect_output", output, all=1e-5, double=DOUBLE)  # offsets are given, so that none can flip
        check_gradients(case, torch.autograd.grad(output, leaves, grad))
    inputs = [case.take(f"input_{name}") for name in NAMES]
    check_gradients(case, dsepconv_backward_reference(grad, *inputs))


def check_gradients(case: Case, gradients: tuple[torch.Tensor, ...]) -> None:
    for name, gradient in zip(NAMES, gradients, strict=True):
        stored = "input_true" if name == "input" else name  # the published gradient of the input is zero
        case.check(f"expect_grad_{stored}", gradient, all=1e-5, double=DOUBLE)
