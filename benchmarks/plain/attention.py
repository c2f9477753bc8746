"""The same attention by torch alone."""

import torch.nn.functional as functional
from torch import Tensor


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As ``vfikit.ops.attention``, by torch's fused attention."""
    return functional.scaled_dot_product_attention(q, k, v)


def spelt_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As published programs write it: logits held whole."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
