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
from .image_autoencoder import ImageAutoencoder
from .kernel_estimator import KernelEstimator
from .maxvit import MaxAttention, MaxCrossAttention, WindowAttention
from .mbconv import MBConv, SqueezeExcite
from .padded_conv3d import PaddedConv3d, PaddedConvTranspose3d, PaddedResBlock
from .posterior import GaussianPosterior
from .pwcnet import PWCNet
from .quantize import VectorQuantizer
from .resnet import Downsample, ResnetBlock, TimeResBlock, TransposedUpsample, Upsample
from .separable_synthesis import SeparableSynthesis
from .video_attention import JointSpaceTimeAttention, RelativeAttention, SpaceTimeAttention, SpaceTimeTransformer
from .video_resnet import FrameConv3d, VideoDownsample, VideoResBlock, VideoUpsample

__all__ = [
    "ConvDiscriminator",
    "Downsample",
    "FrameConv3d",
    "GaussianPosterior",
    "GridNet",
    "HeadAttention",
    "ImageAutoencoder",
    "JointSpaceTimeAttention",
    "KernelEstimator",
    "LinearAttention",
    "MBConv",
    "MaxAttention",
    "MaxCrossAttention",
    "PWCNet",
    "PaddedConv3d",
    "PaddedConvTranspose3d",
    "PaddedResBlock",
    "PatchDiscriminator",
    "PixelAttention",
    "PositionedCrossAttention",
    "RelativeAttention",
    "ResnetBlock",
    "SeparableSynthesis",
    "SpaceTimeAttention",
    "SpaceTimeTransformer",
    "SpatialTransformer",
    "SqueezeExcite",
    "TimeResBlock",
    "TokenAttention",
    "TransposedUpsample",
    "Upsample",
    "VectorQuantizer",
    "VideoDownsample",
    "VideoResBlock",
    "VideoUpsample",
    "WindowAttention",
]
