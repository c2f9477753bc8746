"""What models minimise; terms with a paper's name say which."""

from .adversarial import DualFrameAdversary, dual_frame_discriminator
from .objective import Losses, Objective, parse_terms
from .perceptual import VGGLoss
from .smoothness import charbonnier, kernel_smoothness, map_smoothness
from .vqgan import VQGANLoss

__all__ = [
    "DualFrameAdversary",
    "Losses",
    "Objective",
    "VGGLoss",
    "VQGANLoss",
    "charbonnier",
    "dual_frame_discriminator",
    "kernel_smoothness",
    "map_smoothness",
    "parse_terms",
]
