"""Reusable nn.Modules, without any paper's numbers."""

from .attention import (
    HeadAttention,
    LinearAttention,
    PixelAttention,
    PositionedCrossAttention,
    SpatialTransformer,
    TokenAttention,
)
from .discriminators import ConvDiscriminator, PatchDiscriminator
from .gridnet import GridNet
from .kernel_estimator import KernelEstimator
from .maxvit import MaxAttention, MaxCrossAttention, WindowAttention
from .mbconv import MBConv, SqueezeExcite
from .pwcnet import PWCNet
from .quantize import VectorQuantizer
from .resnet import Downsample, ResnetBlock, TimeResBlock, TransposedUpsample, Upsample
from .separable_synthesis import SeparableSynthesis

__all__ = [
    "ConvDiscriminator",
    "Downsample",
    "GridNet",
    "HeadAttention",
    "KernelEstimator",
    "LinearAttention",
    "MBConv",
    "MaxAttention",
    "MaxCrossAttention",
    "PWCNet",
    "PatchDiscriminator",
    "PixelAttention",
    "PositionedCrossAttention",
    "ResnetBlock",
    "SeparableSynthesis",
    "SpatialTransformer",
    "SqueezeExcite",
    "TimeResBlock",
    "TokenAttention",
    "TransposedUpsample",
    "Upsample",
    "VectorQuantizer",
    "WindowAttention",
]
