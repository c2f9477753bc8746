"""The same convolutions by torch alone."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from vfikit.layers.video_resnet import FrameConv3d
from vfikit.ops import Conv3x3, Linear


def conv2d(input: Tensor, weight: Tensor, bias: Tensor, groups: int = 1) -> Tensor:
    """As ``vfikit.ops.conv3x3`` with a padding of 1, in the layout that torch prefers for ``input``."""
    if input.stride(1) == 1:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return functional.conv2d(input, weight, bias, padding=1, groups=groups)


def by_torch(net: nn.Module) -> nn.Module:
    """``net``, a copy, from now on with torch's own convolutions and linear layers. Names and tensors stay."""
    for module in net.modules():
        if type(module) is Conv3x3:
            module.__class__ = nn.Conv2d
        elif type(module) is FrameConv3d:
            module.__class__ = nn.Conv3d
        elif type(module) is Linear:
            module.__class__ = nn.Linear
    return net
