"""Softmax attention without masks (arXiv:1706.03762): on CPUs by a kernel that holds no logits in whole."""

import math
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from . import _cpu

# Where ``attend`` takes the kernel: wider heads are products that torch makes as fast, fewer tokens fill no tile of
# queries, and few products cost less than the call.
WIDEST, LEAST_TOKENS, LEAST_PRODUCTS = 128, 32, 2**22


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(width)) v``: q (N, heads, L, width), k and v (N, heads, M, width) -> q's shape.

    The result's heads lie side by side in memory, so that their concatenation is a view. In float32 on a CPU with
    compiled kernels logits are made, used and forgotten in blocks that the caches hold; elsewhere torch's
    ``scaled_dot_product_attention`` does it. Raises ``ValueError`` for shapes and types that do not fit.
    """
    _check(q, k, v)
    return _forward(q, k, v)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.ndim != 4 or not q.shape[3]:
        raise ValueError(f"attention: q is {tuple(q.shape)}, expected (N, heads, L, width)")
    keys = k.shape[2] if k.ndim == 4 and k.shape[2] else "M > 0"
    for name, tensor in (("k", k), ("v", v)):
        if tuple(tensor.shape) != (*q.shape[:2], keys, q.shape[3]):
            expected = f"({q.shape[0]}, {q.shape[1]}, {keys}, {q.shape[3]}) for q {tuple(q.shape)}"
            raise ValueError(f"attention: {name} is {tuple(tensor.shape)}, expected {expected}")
        cast = q.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(q.device.type)  # makes the types one
        if tensor.device != q.device or (tensor.dtype != q.dtype and not cast):
            got, like = f"{tensor.dtype} on {tensor.device}", f"{q.dtype} on {q.device}"
            raise ValueError(f"attention: {name} is {got}, expected {like} like q")


def attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition, by torch."""
    return functional.scaled_dot_product_attention(q, k, v)


def _empty(q: Tensor) -> Tensor:
    n, heads, length, width = q.shape
    return q.new_empty(n, length, heads, width).transpose(1, 2)


@torch.library.custom_op("vfikit::attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _empty(q).copy_(attention_reference(q, k, v))


@_forward.register_fake
def _(q, k, v):  # type: ignore[no-untyped-def]
    return _empty(q)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    """By products with all logits at once, so that it can be differentiated again."""
    q, k, v = ctx.saved_tensors
    scale = q.shape[-1] ** -0.5
    weights = (scale * q @ k.mT).softmax(-1)
    by_weights = grad @ v.mT
    by_logits = scale * weights * (by_weights - (by_weights * weights).sum(-1, keepdim=True))
    return by_logits @ k, by_logits.mT @ q, weights.mT @ grad


_forward.register_autograd(_differentiate, setup_context=_save)
for _device in ("cpu", "cuda"):
    _forward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.vfikit.attention)
def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *others: Any, **more: Any) -> int:
    """Of its two products, which other attention is counted by."""
    return 4 * math.prod(q) * k[2]


if _cpu.available():

    @torch.library.impl("vfikit::attention", "cpu")
    def _(q, k, v):  # type: ignore[no-untyped-def]
        output = _empty(q)
        if q.dtype != torch.float32:
            return output.copy_(attention_reference(q, k, v))
        inputs = [t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v)]
        steps = (step for t in (*inputs, output) for step in t.stride()[:3])
        sizes = (*q.shape[:3], k.shape[2], q.shape[3], *steps)
        _cpu.launch("attention_forward", (*inputs, output), sizes, (q.shape[3] ** -0.5,))
        return output


def pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel runs here and is the faster one: float32, no gradient recorded, narrow heads, not few tokens.

    Not under autocast, which asks for other types, and not in a program that torch.compile or export writes.
    """
    if q.device.type != "cpu" or any(t.dtype != torch.float32 for t in (q, k, v)) or q.shape[3] > WIDEST:
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not _cpu.available():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        return False
    return min(q.shape[2], k.shape[2]) >= LEAST_TOKENS and q.numel() * k.shape[2] >= LEAST_PRODUCTS


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``attention`` where ``pays`` says so, else torch's."""
    return attention(q, k, v) if pays(q, k, v) else attention_reference(q, k, v)


class Attention(nn.Module):
    """``forward(q, k, v)``, as ``attention``, by torch where that is faster."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v)
