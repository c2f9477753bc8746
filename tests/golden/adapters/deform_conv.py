"""Deformable convolution alone: its output and its five gradients, by the op, its definition and the Module."""

import torch
from torch import Tensor

from vfikit.ops import ModulatedDeformConv2d, deform_conv2d
from vfikit.ops._deform_conv import deform_conv2d_backward_reference, deform_conv2d_reference

from .case import Case

NAMES = ("input", "offset", "weight", "bias", "mask")


def op(case: Case) -> None:
    config, grad = case.meta["config"], case.take("grad_output")
    steps = [config[name] for name in ("stride", "padding", "dilation")]
    pairs = [(step, step) for step in steps]

    def public(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        return deform_conv2d(input, offset, weight, bias, *steps, mask=mask)

    def reference(*tensors: Tensor) -> Tensor:
        return deform_conv2d_reference(*tensors, *pairs)

    for function in (public, reference):
        leaves = [case.take(name).requires_grad_() for name in NAMES]
        output = function(*leaves)
        case.check("output", output, all=1e-5)  # offsets are given, so that none can flip
        for name, gradient in zip(NAMES, torch.autograd.grad(output, leaves, grad), strict=True):
            case.check(f"grad_{name}", gradient, all=1e-5)
    input, offset, weight, bias, mask = (case.take(name) for name in NAMES)
    written = deform_conv2d_backward_reference(grad, input, offset, weight, mask, *pairs)
    for name, gradient in zip(("input", "offset", "weight", "mask"), written, strict=True):
        case.check(f"grad_{name}", gradient, all=1e-5)
    module = ModulatedDeformConv2d(
        config["in_channels"],
        config["out_channels"],
        tuple(config["kernel_size"]),
        *steps,
        config["groups"],
        config["deform_groups"],
    )
    module.to(case.dtype).load_state_dict({"weight": weight, "bias": bias})
    case.check("output", module(input, offset, mask), all=1e-5)
