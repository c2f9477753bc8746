"""Deformable convolution by the compiled CPU kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _cpu
from ._pixels import stored_type


def _sizes(input: Tensor, offset: Tensor, weight: Tensor, steps: Sequence[Sequence[int]]) -> tuple[int, ...]:
    groups, moved = input.shape[1] // weight.shape[1], offset.shape[1] // (2 * weight.shape[2] * weight.shape[3])
    kernel = (*weight.shape[2:], groups, moved, *offset.shape[2:])
    return (*input.shape, weight.shape[0], *kernel, *(size for step in steps for size in step))


def _stored(*tensors: Tensor | None) -> list[Tensor | None]:
    stored = stored_type(_cpu.launch, *(t for t in tensors if t is not None))
    return [None if t is None else t.to(stored).contiguous() for t in tensors]


def forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    *steps: Sequence[int],
) -> Tensor:
    tensors = _stored(input, offset, weight, bias, mask)
    shape, sizes = (input.shape[0], weight.shape[0], *offset.shape[2:]), _sizes(input, offset, weight, steps)
    output = torch.empty(shape, dtype=_type_of(tensors), device=input.device)
    if output.numel():
        _cpu.launch("deform_conv2d_forward", (*tensors, output), sizes)
    return output.to(input.dtype)


def backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    steps: Sequence[Sequence[int]],
    with_input: bool,
) -> list[Tensor]:
    inputs = (input, offset, weight, mask)
    tensors = _stored(*inputs)
    wanted = [tensors[0] if with_input else None, *tensors[1:]]
    grads = [None if t is None else torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in wanted]
    if grad.numel():
        given = grad.to(_type_of(tensors)).contiguous()
        _cpu.launch("deform_conv2d_backward", (given, *tensors, *grads), _sizes(input, offset, weight, steps))
    like = [input if t is None else t for t in inputs]
    return [input.new_empty(0) if g is None else g.to(t.dtype) for g, t in zip(grads, like)]


def _type_of(tensors: Sequence[Tensor | None]) -> torch.dtype:
    return next(t.dtype for t in tensors if t is not None)
