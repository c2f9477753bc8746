"""LDMVFI's published checkpoint: its names, its copies and its dead weight; and the published padding."""

import re
from typing import TYPE_CHECKING

import torch.nn.functional as functional
from torch import Tensor

from ..latent_checkpoint import AUTOENCODER, UNET, averaged

if TYPE_CHECKING:
    from .net import LDMVFINet

TWICE = "cond_stage_model."
DEAD = re.compile(r"first_stage_model\.decoder\.up\.\d+\.cross_attn\.out_conv\.")  # never called
HEADS = {
    "alpha": "moduleAlpha",
    "beta": "moduleBeta",
    "vertical": "moduleKernelVertical",
    "horizontal": "moduleKernelHorizontal",
    "mask": "moduleMask",
    "residual": "moduleResidual",
}


def published_keys(net: "LDMVFINet") -> list[tuple[str, str]]:
    """Pairs (name in the published state dict, name in ours), of all that a network reads."""
    return [(published_name(name), name) for name in net.state_dict()]


def published_name(name: str) -> str:
    part, _, rest = name.partition(".")
    return UNET + unet_name(rest) if part == "denoiser" else AUTOENCODER + autoencoder_name(rest)


def unet_name(name: str) -> str:
    """The published name, inside the U-Net, of what ours calls ``name``."""
    return re.sub(r"^(input_blocks\.\d+\.0)\.conv\.", r"\1.op.", name)


def autoencoder_name(name: str) -> str:
    """The published name, inside the autoencoder, of what ours calls ``name``."""

    def head(found: re.Match[str]) -> str:
        return f"decoder.{HEADS[found[1]]}{found[2]}."

    return re.sub(r"^decoder\.synthesis\.heads\.([a-z]+)(\d?)\.", head, name)


def loadable(net: "LDMVFINet", state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict without the trainer's buffers, the dead weight and the second copy of the autoencoder.

    Where it holds averaged weights of the U-Net, they take the place of the others; see ``without_average``.
    """
    kept = {name: tensor for name, tensor in state.items() if not DEAD.match(name.replace(TWICE, AUTOENCODER))}
    for name in [name for name in kept if name.startswith(TWICE) and name.replace(TWICE, AUTOENCODER) in kept]:
        del kept[name]
    return averaged(kept, (UNET + unet_name(name) for name, _ in net.denoiser.named_parameters()))


def published_padding(frame: Tensor) -> Tensor:
    """Pads (N, C, H, W) at the bottom and right by reflection, as the published evaluation does.

    To multiples of 256 where the height is at most 256, of 512 else, by height and width alike, but for a width of 256.
    A side too short to be reflected so far raises ``ValueError``.
    """
    height, width = frame.shape[2:]
    multiple = 256 if height <= 256 else 512
    below, right = -height % multiple, 0 if width == 256 else -width % multiple
    if below >= height or right >= width:
        raise ValueError(
            f"LDMVFINet: a frame of {height} x {width} cannot be reflected to multiples of {multiple}, as published; "
            "use the default padding"
        )
    return functional.pad(frame, (0, right, 0, below), mode="reflect")
