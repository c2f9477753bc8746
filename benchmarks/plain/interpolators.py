"""Our networks as one would write them in plain PyTorch: the same weights, sampling without kernels, default layout."""

import copy

from torch import Tensor, nn

from vfikit.ops import AdaCoF

from .adacof import PlainAdaCoF
from .conv3x3 import by_torch


def plain(net: nn.Module) -> nn.Module:
    """A copy of an AdaCoF or CDFI network for ``forward`` without gradients."""
    net = by_torch(copy.deepcopy(net)).eval()
    ours = net.sample
    assert isinstance(ours, AdaCoF)
    net.sample = PlainAdaCoF(ours.kernel_size, ours.dilation, ours.padded)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(_contiguous)
    return net


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in inputs)
