"""LVDM: latent video diffusion for long video generation (arXiv:2211.13221)."""

from ..latent_checkpoint import without_average
from .autoencoder import AutoencoderConfig, VideoAutoencoder
from .conditional import Given, Prompt, sample_clip
from .frame_autoencoder import FrameAutoencoder, FrameAutoencoderConfig
from .net import LVDMConfig, LVDMNet
from .presets import PRESETS
from .unet import VideoUNet, VideoUNetConfig

__all__ = [
    "PRESETS",
    "AutoencoderConfig",
    "FrameAutoencoder",
    "FrameAutoencoderConfig",
    "Given",
    "LVDMConfig",
    "LVDMNet",
    "Prompt",
    "VideoAutoencoder",
    "VideoUNet",
    "VideoUNetConfig",
    "sample_clip",
    "without_average",
]
