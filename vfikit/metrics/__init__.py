"""How good frames are, in the conventions under which figures are published."""

from .flolpips import FloLPIPS
from .lpips import LPIPS
from .pixels import interpolation_error, normalized_interpolation_error, psnr, quantise
from .ssim import ssim

__all__ = ["LPIPS", "FloLPIPS", "interpolation_error", "normalized_interpolation_error", "psnr", "quantise", "ssim"]
