"""Deformable convolution on CUDA: kernels write the columns of some pixels, torch's matrix product takes them up."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from . import _cuda
from ._deform_conv import deform_conv2d_backward_reference, deform_conv2d_reference
from ._pixels import compute_type, stored_type

MOST = 2**22  # numbers in the columns at hand: enough to keep a card busy, little beside a network's features


def forward(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, *steps: Sequence[int]
) -> Tensor:
    """As ``deform_conv2d_reference``."""
    if not _cuda.available():
        return deform_conv2d_reference(input, offset, weight, bias, mask, *steps)
    frames, offsets, kernel, masks = _stored(input, offset, weight, mask)
    groups = input.shape[1] // weight.shape[1]
    output = frames.new_empty(len(input), groups, len(weight) // groups, math.prod(offset.shape[2:]))
    kernel = kernel.reshape(groups, -1, weight[0].numel())
    for n in range(len(input)):
        for part, columns, sizes in _parts(frames, offsets, weight, steps):
            _cuda.launch("deform_conv2d_columns", (frames[n], offsets[n], masks[n], columns), sizes)
            output[n, :, :, part] = kernel @ columns.view(groups, kernel.shape[2], -1)
    output = output.reshape(len(input), len(weight), *offset.shape[2:])
    output = output if bias is None else output.add_(bias.to(output.dtype)[:, None, None])
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
    """As ``deform_conv2d_backward_reference``."""
    if not _cuda.available() or (with_input and torch.are_deterministic_algorithms_enabled()):
        stride, padding, dilation = steps
        return deform_conv2d_backward_reference(
            grad, input, offset, weight, mask, stride, padding, dilation, with_input
        )
    frames, offsets, kernel, masks = _stored(input, offset, weight, mask)
    compute, groups = compute_type(frames), input.shape[1] // weight.shape[1]
    kernel = kernel.reshape(groups, -1, weight[0].numel())
    grads = grad.to(frames.dtype).flatten(2).unflatten(1, (groups, -1))
    to_input = torch.zeros(frames.shape if with_input else (len(input), 0), dtype=compute, device=input.device)
    to_offset, to_mask = torch.empty_like(offsets), torch.empty_like(masks)
    to_weight = torch.zeros(kernel.shape, dtype=compute, device=input.device)
    for n in range(len(input)):
        for part, columns, sizes in _parts(frames, offsets, weight, steps):
            here = grads[n, :, :, part]
            torch.matmul(kernel.mT, here, out=columns.view(groups, kernel.shape[2], -1))
            tensors = (columns, frames[n], offsets[n], masks[n], to_input[n], to_offset[n], to_mask[n])
            _cuda.launch("deform_conv2d_gradients", tensors, sizes)
            to_weight += here @ columns.view(groups, kernel.shape[2], -1).mT
    results = (to_input if with_input else to_input.view(-1), to_offset, to_weight.view(weight.shape))
    last = input.new_empty(0) if mask is None else to_mask.to(mask.dtype)
    return [*(t.to(like.dtype) for t, like in zip(results, (input, offset, weight))), last]


def _stored(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Contiguous and of one type; without a mask, one of no numbers, whose address is null."""
    given = [input, offset, weight] if mask is None else [input, offset, weight, mask]
    stored = [t.to(stored_type(_cuda.launch, *given)).contiguous() for t in given]
    return stored if mask is not None else [*stored, stored[0].new_empty(len(input), 0)]


def _parts(
    frames: Tensor, offsets: Tensor, weight: Tensor, steps: Sequence[Sequence[int]]
) -> Iterator[tuple[slice, Tensor, tuple[int, ...]]]:
    """Some pixels of the output, memory for their columns, and the kernels' sizes."""
    depth, pixels = frames.shape[1] * math.prod(weight.shape[2:]), math.prod(offsets.shape[2:])
    most = min(max(MOST // depth, 1), pixels)
    columns = frames.new_empty(depth * most)
    moved = offsets.shape[1] // (2 * math.prod(weight.shape[2:]))
    sizes = (
        *frames.shape[1:],
        *weight.shape[2:],
        moved,
        *offsets.shape[2:],
        *(size for step in steps for size in step),
    )
    for start in range(0, pixels, most):
        count = min(most, pixels - start)
        yield slice(start, start + count), columns[: depth * count], (*sizes, start, count)
