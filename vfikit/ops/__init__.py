"""Stateless tensor functions and their nn.Module twins: ``from vfikit.ops import AdaCoF, adacof``."""

from ._backends import backends
from .adacof import AdaCoF, adacof
from .attention import Attention, attention
from .conv3x3 import Conv3x3, conv3x3
from .deform_conv import ModulatedDeformConv2d, deform_conv2d
from .dsepconv import DSepConv, dsepconv
from .fold import SoftComposition, SoftSplit, cut_patches, join_patches
from .linear import Linear, linear
from .warp import warp

__all__ = [
    "AdaCoF",
    "Attention",
    "Conv3x3",
    "DSepConv",
    "Linear",
    "ModulatedDeformConv2d",
    "SoftComposition",
    "SoftSplit",
    "adacof",
    "attention",
    "backends",
    "conv3x3",
    "cut_patches",
    "deform_conv2d",
    "dsepconv",
    "join_patches",
    "linear",
    "warp",
]
