"""A published checkpoint (.pth, .ckpt) to one self-describing .safetensors file of vfikit.

    python recipes/convert.py adacof_F5_d1.pth adacof.safetensors --model adacof

Nothing in the published file is executed, and every tensor must find its place. Prints the file, its model and size.
"""

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from vfikit import checkpoints
from vfikit.files import InputError, check_place
from vfikit.models import PRESETS, build
from vfikit.models.latent_checkpoint import without_average
from vfikit.models.pretrained import read_metadata
from vfikit.recipe import build_on_meta, run


@dataclass(frozen=True)
class Config:
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The source: a file as its authors published it, or a folder of diffusers (video-ldm)."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The output, a .safetensors."""
    model: str = "adacof"
    """Which model it is: a name of vfikit.models.MODELS."""
    preset: str = "published"
    """The size it was trained at."""
    last_weights: bool = False
    """Take a U-Net as last trained (ldmvfi, lvdm); otherwise the averages that such a checkpoint holds, too."""


def main(config: Config) -> None:
    if config.output.suffix != ".safetensors":
        raise InputError(f"{config.output}: expected a name that ends in .safetensors")
    check_place(config.output)
    if (kind := written_by_vfikit(config.source)) is not None:
        raise InputError(f"{config.source}: is a file of vfikit already ({kind}), expected a published one")
    build_on_meta(config.model, config.preset)  # an unknown name is said before the file is read
    try:
        source = without_averages(config.source) if config.last_weights else config.source
        model = checkpoints.load_published(build(config.model, config.preset), source)
    except InputError as error:
        fitting = [name for name in fits(config.source) if name != config.model]
        raise InputError(
            f"{config.source} as {config.model}: {error}" + "".join(f"; try --model {name}" for name in fitting)
        ) from error
    checkpoints.save(model, config.output, source=config.source.name)
    checkpoints.load(config.output)
    count = sum(parameter.numel() for parameter in model.parameters())
    size = config.output.stat().st_size
    print(f"{config.output}: {config.model}, preset {config.preset}, {count:,} parameters, {size:,} bytes")


def without_averages(source: Path) -> dict[str, Tensor]:
    """The file's state dict less the averages of its weights; ``InputError`` where it has none."""
    state = checkpoints.read_state_dict(source)
    last = without_average(state)
    if len(last) == len(state):
        raise InputError("--last-weights: it holds no averages, only one set of weights")
    return last


def written_by_vfikit(source: Path) -> str | None:
    """The class of the network in the file, if it is one that ``checkpoints.save`` wrote."""
    if source.suffix != ".safetensors" or not source.is_file():
        return None
    with contextlib.suppress(InputError):
        return str(read_metadata(source)["model"])
    return None


def fits(source: Path) -> list[str]:
    """Models whose published preset takes the file."""
    names = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is copied into a net without memory; names and shapes are checked
        for name in PRESETS:
            with contextlib.suppress(InputError):
                checkpoints.load_published(build_on_meta(name, "published"), source)
                names.append(name)
    return names


if __name__ == "__main__":
    run(main, Config)
