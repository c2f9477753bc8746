"""LVDM's published checkpoints: their names, their copies, their averages."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from ..latent_checkpoint import AUTOENCODER, UNET, averaged

if TYPE_CHECKING:
    from .net import LVDMNet

NORMS = re.compile(r"(norm\d|final_block\.0)\.(weight|bias)$")


def autoencoder_name(name: str) -> str:
    """The published name, inside the 3-D autoencoder, of what ours calls ``name``: convolutions are wrapped there."""
    if NORMS.search(name):
        return name
    wrapped = "convt" if ".up." in f".{name}" else "conv"
    return re.sub(r"(^|\.)(weight|bias)$", rf"\1{wrapped}.\2", name)


def unet_name(name: str) -> str:
    """The published name, inside a U-Net, of what ours calls ``name``."""
    name = re.sub(
        r"(^|\.)(s|t)(?:patial|emporal)\.(norm|qkv|proj_out)\.(weight|bias)$", r"\1\3_\2.\4", name
    )  # one flat block there
    name = re.sub(r"(^|\.)(?:temporal\.)?attention\.(relative_position_[kv]\.)", r"\1\2", name)
    return re.sub(r"^(input_blocks\.\d+\.0)\.conv\.", r"\1.op.", name)


def without_copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the second names of wrapped convolutions' kernels: what is under ``conv.weight`` is what counts."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not (name.endswith("weight") and f"{name.removesuffix('weight')}conv.weight" in state)
    }


def published_keys(net: "LVDMNet") -> list[tuple[str, str]]:
    """Pairs (name in the published state dict, name in ours). A checkpoint holds one U-Net at most."""
    stages = [stage for stage in ("short", "prediction", "interpolation") if getattr(net, stage) is not None]
    if len(stages) > 1:
        raise TypeError(f"LVDMNet: a published checkpoint holds one U-Net; load {' and '.join(stages)} one by one")
    return [(published_name(net, name), name) for name in net.state_dict()]


def published_name(net: "LVDMNet", name: str) -> str:
    part, _, rest = name.partition(".")
    if part != "autoencoder":
        return UNET + unet_name(rest)
    return AUTOENCODER + (rest if net.config.autoencoder is None else autoencoder_name(rest))


def autoencoder_alone(state: Mapping[str, Tensor]) -> bool:
    """Whether a published state dict is that of an autoencoder's checkpoint, whose names stand without a prefix."""
    return not any(name.startswith((AUTOENCODER, UNET)) for name in state)


def loadable(net: "LVDMNet", state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict with averaged weights in place, without what no network of ours reads.

    Those are the trainer's buffers, copies, the frozen text encoder and, in checkpoints of an autoencoder alone, its
    loss. See ``without_average`` for the last weights in place of the averaged.
    """
    if autoencoder_alone(state):
        state = {AUTOENCODER + name: tensor for name, tensor in state.items() if not name.startswith("loss.")}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("cond_stage_model.")}
    ours = (theirs for theirs, name in published_keys(net) if not name.startswith("autoencoder."))
    return averaged(without_copies(state), ours)
