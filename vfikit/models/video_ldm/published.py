"""The published code's checkpoint, and those of images: a U-Net in diffusers' names, with or without temporal layers.

Whatever else the model has (autoencoder, other networks, layers that the published code has none of) stays as it is.
"""

import re
from typing import TYPE_CHECKING

from torch import Tensor

from ...layers.inflate import published_name

if TYPE_CHECKING:
    from .net import VideoLDMNet

UNET = "generator.unet."
OWN = re.compile(r"\.(condition|over_frames)\.|^mid_block\.attentions\.\d+\.(conv3d|temporal)\.|\.channel$")
TEMPORAL = re.compile(r"\.(conv3ds|tempo_attns)\.\d+\.")


def published_keys(net: "VideoLDMNet") -> list[tuple[str, str]]:
    """Pairs (name in the published state dict, name in ours)."""
    return [(_published(name), name) for name in net.state_dict()]


def _published(name: str) -> str:
    inner = name.removeprefix(UNET)
    return name if inner == name or OWN.search(inner) else published_name(inner)


def loadable(net: "VideoLDMNet", state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without what has no use, and with the model's own tensors under names that it cannot have.

    Temporal layers count among these where it has none at all: then it is an image network's.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("pos_enc.dummy")}
    of_images = not any(TEMPORAL.search(name) for name in kept)
    for name, tensor in net.state_dict().items():
        theirs = _published(name)
        if theirs == name:
            kept[theirs] = tensor
        elif of_images and TEMPORAL.search(theirs):
            kept.setdefault(theirs, tensor)
    return kept
