"""What a recipe needs to know of a model to train, measure and compress it: batches, a loss, a quality."""

from . import inpainting, interpolation, latent_interpolation, lvdm, video_ldm
from .task import Defaults, Split, Task

TASKS: dict[str, Task] = {
    "adacof": interpolation,
    "adacof+": interpolation,
    "adacof-compressed": interpolation,
    "adacof+-compressed": interpolation,
    "cdfi": interpolation,
    "ldmvfi": latent_interpolation,
    "e2fgvi": inpainting,
    "e2fgvi-hq": inpainting,
    "lvdm": lvdm,
    "video-ldm": video_ldm,
}


__all__ = ["TASKS", "Defaults", "Split", "Task"]
