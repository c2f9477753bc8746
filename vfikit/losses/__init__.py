"""What models minimise; terms with a paper's name say which."""

from .adversarial import (
    ADVERSARIES,
    DualFrameAdversary,
    FrameAdversary,
    WassersteinAdversary,
    dual_frame_discriminator,
)
from .inpainting import GAMES, FlowTargets, InpaintingLoss, InpaintingLosses, region_errors
from .objective import Losses, Objective, adversarial_term, parse_terms
from .perceptual import VGGLoss
from .smoothness import charbonnier, kernel_smoothness, map_smoothness
from .video_autoencoder import VideoAutoencoderLoss
from .vqgan import VQGANLoss

__all__ = [
    "ADVERSARIES",
    "GAMES",
    "DualFrameAdversary",
    "FlowTargets",
    "FrameAdversary",
    "InpaintingLoss",
    "InpaintingLosses",
    "Losses",
    "Objective",
    "VGGLoss",
    "VQGANLoss",
    "VideoAutoencoderLoss",
    "WassersteinAdversary",
    "adversarial_term",
    "charbonnier",
    "dual_frame_discriminator",
    "kernel_smoothness",
    "map_smoothness",
    "parse_terms",
    "region_errors",
]
