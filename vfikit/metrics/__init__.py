"""How good frames are, in the conventions under which figures are published."""

from .flolpips import FloLPIPS
from .frechet import FID, frechet_distance
from .lpips import LPIPS
from .pixels import interpolation_error, normalized_interpolation_error, psnr, quantise
from .ssim import ssim

__all__ = [
    "FID",
    "LPIPS",
    "FloLPIPS",
    "frechet_distance",
    "interpolation_error",
    "normalized_interpolation_error",
    "psnr",
    "quantise",
    "ssim",
]
