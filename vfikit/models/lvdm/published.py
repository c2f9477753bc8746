"""LVDM's published checkpoints: their names, their copies, their averages."""

import re

from torch import Tensor

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
