"""What a recipe needs to know of a model to train, measure and compress it: batches, a loss, a quality."""

from types import ModuleType

from . import interpolation, latent_interpolation

TASKS: dict[str, ModuleType] = {
    "adacof": interpolation,
    "adacof+": interpolation,
    "adacof-compressed": interpolation,
    "adacof+-compressed": interpolation,
    "cdfi": interpolation,
    "ldmvfi": latent_interpolation,
}


__all__ = ["TASKS"]
