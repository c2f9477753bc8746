"""Reusable nn.Modules, without any paper's numbers."""

from .attention import (
    HeadAttention,
    LinearAttention,
    PixelAttention,
    PositionedCrossAttention,
    SpatialTransformer,
    TokenAttention,
)
from .c3d import C3D
from .discriminators import ConvDiscriminator, PatchDiscriminator, VideoPatchDiscriminator
from .focal import FocalAttention, FocalBlock, FusionFeedForward, WindowPooling
from .gridnet import GridNet
from .i3d import I3D
from .image_autoencoder import ImageAutoencoder
from .inflate import VideoTransformer, inflate, inflate_block
from .kernel_estimator import KernelEstimator
from .maxvit import MaxAttention, MaxCrossAttention, WindowAttention
from .mbconv import MBConv, SqueezeExcite
from .padded_conv3d import PaddedConv3d, PaddedConvTranspose3d, PaddedResBlock
from .posterior import GaussianPosterior
from .propagation import BidirectionalPropagation, DeformableAlignment
from .pwcnet import PWCNet
from .quantize import VectorQuantizer
from .resnet import Downsample, ResnetBlock, TimeResBlock, TransposedUpsample, Upsample
from .separable_synthesis import SeparableSynthesis
from .spynet import SPyNet
from .temporal import (
    Conv3DLayer,
    TemporalAttentionLayer,
    causal_mask,
    positional_encoding,
    window_mask,
)
from .temporal_discriminator import SpectralConv3d, TemporalPatchDiscriminator
from .video_attention import (
    JointSpaceTimeAttention,
    RelativeAttention,
    SpaceTimeAttention,
    SpaceTimeTransformer,
    TemporalHeadAttention,
    TemporalTokenAttention,
)
from .video_resnet import FrameConv3d, VideoDownsample, VideoResBlock, VideoUpsample

__all__ = [
    "C3D",
    "I3D",
    "BidirectionalPropagation",
    "Conv3DLayer",
    "ConvDiscriminator",
    "DeformableAlignment",
    "Downsample",
    "FocalAttention",
    "FocalBlock",
    "FrameConv3d",
    "FusionFeedForward",
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
    "SPyNet",
    "SeparableSynthesis",
    "SpaceTimeAttention",
    "SpaceTimeTransformer",
    "SpatialTransformer",
    "SpectralConv3d",
    "SqueezeExcite",
    "TemporalAttentionLayer",
    "TemporalHeadAttention",
    "TemporalPatchDiscriminator",
    "TemporalTokenAttention",
    "TimeResBlock",
    "TokenAttention",
    "TransposedUpsample",
    "Upsample",
    "VectorQuantizer",
    "VideoDownsample",
    "VideoPatchDiscriminator",
    "VideoResBlock",
    "VideoTransformer",
    "VideoUpsample",
    "WindowAttention",
    "WindowPooling",
    "causal_mask",
    "inflate",
    "inflate_block",
    "positional_encoding",
    "window_mask",
]
