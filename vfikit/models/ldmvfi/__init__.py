"""LDMVFI: latent diffusion for frame interpolation (arXiv:2303.09508)."""

from ..latent_checkpoint import without_average
from .autoencoder import VQFIGAN, AutoencoderConfig
from .net import PRESETS, LDMVFIConfig, LDMVFINet
from .unet import DenoisingUNet, UNetConfig

__all__ = [
    "PRESETS",
    "VQFIGAN",
    "AutoencoderConfig",
    "DenoisingUNet",
    "LDMVFIConfig",
    "LDMVFINet",
    "UNetConfig",
    "without_average",
]
