"""LVDM: latent video diffusion for long video generation (arXiv:2211.13221)."""

from ..latent_checkpoint import without_average
from .autoencoder import AutoencoderConfig, VideoAutoencoder
from .conditional import Given, Prompt, sample_clip
from .config import LVDMConfig
from .frame_autoencoder import FrameAutoencoder, FrameAutoencoderConfig
from .net import LVDMNet
from .presets import PRESETS
from .published import autoencoder_alone
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
    "autoencoder_alone",
    "sample_clip",
    "without_average",
]
