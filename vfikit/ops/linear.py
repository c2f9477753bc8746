"""Linear layers of many rows on CPUs, as convolutions of one tap: oneDNN multiplies faster than torch's BLAS does."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

LEAST_ROWS = 512  # with fewer, both take as long


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` of x (.., in), weight (out, in), bias (out,) -> (.., out).

    In float32 on a CPU, with no gradient recorded, from 512 rows on, oneDNN makes the product. Not in a program that
    torch.compile or export writes.
    """
    rows = x.numel() // max(1, x.shape[-1])
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    if rows < LEAST_ROWS or recorded or not _in_float32(x, weight):
        return functional.linear(x, weight, bias)
    pixels = x.reshape(1, 1, rows, x.shape[-1]).permute(0, 3, 1, 2)  # channels last
    made = functional.conv2d(pixels, weight[:, :, None, None], bias)
    return made.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


def _in_float32(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    written = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    return not written and torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """``nn.Linear`` by ``linear``; the same state dict."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
