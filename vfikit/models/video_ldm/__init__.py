"""Video-LDM: a latent diffusion model of images, aligned in time (arXiv:2304.08818)."""

from .config import PRESETS, AutoencoderConfig, ScheduleConfig, UNetConfig, UpsamplerConfig, VideoLDMConfig
from .denoiser import Given, VideoDenoiser
from .net import VideoLDMNet
from .upsampler import Upsampler

__all__ = [
    "PRESETS",
    "AutoencoderConfig",
    "Given",
    "ScheduleConfig",
    "UNetConfig",
    "Upsampler",
    "UpsamplerConfig",
    "VideoDenoiser",
    "VideoLDMConfig",
    "VideoLDMNet",
]
