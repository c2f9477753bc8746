"""How good frames are, in the conventions under which figures are published."""

from .clip_similarity import CLIPSimilarity
from .flolpips import FloLPIPS
from .frechet import FID, frechet_distance
from .inception_score import InceptionScore, inception_score
from .lpips import LPIPS
from .pixels import interpolation_error, normalized_interpolation_error, psnr, quantise
from .random_features import RandomFeatures, frechet_random
from .ssim import ssim
from .temporal import flicker, occlusion, warping_error
from .video_distances import VFID, VideoDistance, kernel_distance, published_frechet_distance

__all__ = [
    "FID",
    "LPIPS",
    "VFID",
    "CLIPSimilarity",
    "FloLPIPS",
    "InceptionScore",
    "RandomFeatures",
    "VideoDistance",
    "flicker",
    "frechet_distance",
    "frechet_random",
    "inception_score",
    "interpolation_error",
    "kernel_distance",
    "normalized_interpolation_error",
    "occlusion",
    "psnr",
    "published_frechet_distance",
    "quantise",
    "ssim",
    "warping_error",
]
