"""The published code's checkpoint, and those of images: a U-Net in diffusers' names, with or without temporal layers.

An autoencoder in diffusers' names may stand beside it, or alone. Whatever else the model has (other networks, layers
that the published code has none of) stays as it is.
"""

import re
from typing import TYPE_CHECKING

from torch import Tensor

from ...layers.image_autoencoder import from_diffusers
from ...layers.inflate import published_name

if TYPE_CHECKING:
    from .net import VideoLDMNet

UNET, AUTOENCODER = "generator.unet.", "autoencoder."
OF_AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
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

    Temporal layers count among these where it has none at all: then it is an image network's. So does the U-Net where
    there is an autoencoder alone.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("pos_enc.dummy")}
    vae = from_diffusers({name: kept.pop(name) for name in state if name.startswith(OF_AUTOENCODER)})
    whole_unet, temporal = bool(kept), any(TEMPORAL.search(name) for name in kept)
    for name, tensor in net.state_dict().items():
        theirs = _published(name)
        if name.startswith(AUTOENCODER) and vae:
            continue
        if theirs == name:
            kept[theirs] = tensor
        elif not whole_unet or (TEMPORAL.search(theirs) and not temporal):
            kept.setdefault(theirs, tensor)
    return kept | {AUTOENCODER + name: tensor for name, tensor in vae.items()}
