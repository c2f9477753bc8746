"""The definition of deformable convolution in plain torch, and its gradients: see deform_conv.py."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from ._pixels import add, compute_type, read

FAR = 2.0**30  # pixels; as far is outside of any frame, and still an integer


class _Tap(NamedTuple):
    """One tap of the kernel: where each offset group reads, in which shares, and the convolution's 1x1 weight."""

    number: int
    positions: list[Tensor]  # four of (N * G, H', W'), flat
    shares: list[Tensor]  # what each gives: (N * G, 1, H', W')
    slopes_y: list[Tensor]  # the shares' derivatives
    slopes_x: list[Tensor]
    mask: Tensor | None  # (N * G, 1, H', W')
    weight: Tensor  # (O, C / groups, 1, 1)

    def sample(self, flat: Tensor) -> Tensor:
        """(N * G, C / G, H * W) -> (N * G, C / G, H', W')."""
        return _weighted(self.reads(flat), self.shares)

    def reads(self, flat: Tensor) -> list[Tensor]:
        return [read(flat, position) for position in self.positions]


def _weighted(pixels: list[Tensor], shares: list[Tensor]) -> Tensor:
    total = pixels[0] * shares[0]
    for pixel, share in zip(pixels[1:], shares[1:]):
        total = total + pixel * share
    return total


def deform_conv2d_reference(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """The definition in plain differentiable torch, one tap at a time (memory does not grow with kh * kw)."""
    compute = compute_type(*(t for t in (input, offset, weight, bias, mask) if t is not None))
    flat, groups = _planes(input, offset, weight, compute)
    output = flat.new_zeros(input.shape[0], weight.shape[0], *offset.shape[2:])
    for tap in _taps(input, offset, weight, mask, stride, padding, dilation, compute):
        sampled = tap.sample(flat) if tap.mask is None else tap.sample(flat) * tap.mask
        output = output + functional.conv2d(_joined(sampled, input.shape[:2]), tap.weight, groups=groups)
    output = output if bias is None else output + bias.to(compute)[:, None, None]
    return output.to(input.dtype)


def deform_conv2d_backward_reference(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    with_input: bool = True,
) -> list[Tensor]:
    """The gradients of input (empty unless wanted), offset, weight and mask (empty without one), written out."""
    compute = compute_type(*(t for t in (input, offset, weight, mask) if t is not None))
    grad, (flat, groups) = grad.to(compute), _planes(input, offset, weight, compute)
    to_input = flat.new_zeros(flat.shape if with_input else 0)
    to_offset, to_weight = flat.new_empty(offset.shape), flat.new_empty(weight.shape)
    to_mask = flat.new_empty(0 if mask is None else mask.shape)
    kernel = weight.shape[2] * weight.shape[3]
    by_tap = (len(flat), kernel, *offset.shape[2:])
    for tap in _taps(input, offset, weight, mask, stride, padding, dilation, compute):
        pixels = tap.reads(flat)
        value = _weighted(pixels, tap.shares)
        column = functional.conv_transpose2d(grad, tap.weight, groups=groups).reshape(value.shape)
        masked = column if tap.mask is None else column * tap.mask
        if tap.mask is not None:
            to_mask.view(by_tap)[:, tap.number] = (column * value).sum(1)
            value = value * tap.mask
        moved = to_offset.view(len(flat), kernel, 2, *offset.shape[2:])
        moved[:, tap.number, 0] = (masked * _weighted(pixels, tap.slopes_y)).sum(1)
        moved[:, tap.number, 1] = (masked * _weighted(pixels, tap.slopes_x)).sum(1)
        value = _joined(value, input.shape[:2]).flatten(2).unflatten(1, (groups, weight.shape[1]))
        product = torch.einsum("ngop,ngcp->goc", grad.flatten(2).unflatten(1, (groups, -1)), value)
        to_weight.flatten(2)[:, :, tap.number] = product.flatten(0, 1)
        for position, share in zip(tap.positions, tap.shares) if with_input else ():
            add(to_input, position, masked * share)
    to_input = to_input.view(input.shape) if with_input else to_input
    grads = (to_input, to_offset, to_weight, to_mask)
    return [g.to(t.dtype) for g, t in zip(grads, (input, offset, weight, input if mask is None else mask))]


def _planes(input: Tensor, offset: Tensor, weight: Tensor, compute: torch.dtype) -> tuple[Tensor, int]:
    """The channels of each offset group as flat planes (N * G, C / G, H * W), and the convolution's groups."""
    moved = offset.shape[1] // (2 * weight.shape[2] * weight.shape[3])
    pixels = input.shape[2] * input.shape[3]
    flat = input.to(compute).reshape(input.shape[0] * moved, input.shape[1] // moved, pixels)
    return flat, input.shape[1] // weight.shape[1]


def _joined(sampled: Tensor, shape: torch.Size) -> Tensor:
    return sampled.reshape(*shape, *sampled.shape[2:])


def _taps(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    compute: torch.dtype,
) -> Iterator[_Tap]:
    kernel = weight.shape[2] * weight.shape[3]
    moved = len(input) * (offset.shape[1] // (2 * kernel))
    offset = offset.reshape(moved, kernel, 2, *offset.shape[2:])
    masks = None if mask is None else mask.to(compute).reshape(moved, kernel, 1, *mask.shape[2:])
    rows = torch.arange(offset.shape[3], device=input.device)[:, None] * stride[0] - padding[0]
    columns = torch.arange(offset.shape[4], device=input.device) * stride[1] - padding[1]
    height, width = input.shape[2:]
    for tap in range(kernel):
        i, j = tap // weight.shape[3], tap % weight.shape[3]
        tops, y_shares, y_slopes = _split(offset[:, tap, 0].to(compute), rows + i * dilation[0], height)
        lefts, x_shares, x_slopes = _split(offset[:, tap, 1].to(compute), columns + j * dilation[1], width)
        positions = [top * width + left for top in tops for left in lefts]
        yield _Tap(
            tap,
            positions,
            [y * x for y in y_shares for x in x_shares],
            [y * x for y in y_slopes for x in x_shares],
            [y * x for y in y_shares for x in x_slopes],
            None if masks is None else masks[:, tap],
            weight[:, :, i, j, None, None].to(compute),
        )


def _split(offset: Tensor, place: Tensor, size: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Both neighbours on one axis, their shares and the shares' derivatives; all zero where nothing is read."""
    offset = torch.nan_to_num(offset, nan=FAR, posinf=FAR, neginf=-FAR).clamp(-FAR, FAR)
    whole = offset.detach().floor()
    first, fraction = whole.long() + place, offset - whole
    inside = (first < size) & ((first >= 0) | ((first == -1) & (fraction > 0)))
    kept = [(inside & (side >= 0) & (side < size)).to(offset.dtype)[:, None] for side in (first, first + 1)]
    shares = [(1 - fraction)[:, None] * kept[0], fraction[:, None] * kept[1]]
    return [side.clamp(0, size - 1) for side in (first, first + 1)], shares, [-kept[0], kept[1]]
