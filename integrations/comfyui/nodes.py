"""ComfyUI's tensors to vfikit's and back: IMAGE is (N, H, W, 3) in [0, 1], MASK (N, H, W), more than 0 where a hole is.

Both stay where ComfyUI keeps them, in main memory: the device sees a pair of frames at a time, or a window.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfikit.inference import WHOLE, surroundings
from vfikit.models import MODELS
from vfikit.models.e2fgvi import Settings, stream
from vfikit.recipe import in_layout, load_model
from vfikit.video import Engine, interpolate_stream, made
from vfikit.video.engine import MAX_FACTOR

DEVICES = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]  # the first is the default
SOURCE = {
    "preset": (["small", "published"], {"tooltip": "Size of the model."}),
    "checkpoint": (
        "STRING",
        {"default": "", "tooltip": "Path of a .safetensors of vfikit or a published .pth; empty: what ships with it."},
    ),
    "device": (DEVICES, {"tooltip": "Where the network runs."}),
}


class Interpolate:
    """``factor`` frames for every one: N become factor * (N - 1) + 1, the originals untouched among them."""

    CATEGORY = "vfikit"
    DESCRIPTION = "Makes the frames between those of a clip. Cuts are not blended over, repeated frames are copied."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "interpolate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = [name for name, model in MODELS.items() if hasattr(model, "interpolate")]
        factor = {"default": 2, "min": 2, "max": MAX_FACTOR, "tooltip": "Times as many frames."}
        cut = {"default": Engine.cut, "min": 0.0, "max": 10.0, "step": 0.05, "tooltip": "Scene-change score of a cut."}
        return {
            "required": {"images": ("IMAGE",), "model": (models,), "factor": ("INT", factor)},
            "optional": {**SOURCE, "cut": ("FLOAT", cut)},
        }

    def interpolate(
        self,
        images: Tensor,
        model: str,
        factor: int,
        preset: str = "small",
        checkpoint: str = "",
        device: str = DEVICES[0],
        cut: float = Engine.cut,
    ) -> tuple[Tensor]:
        call = load(model, preset, checkpoint, device).in_sequence()

        @torch.inference_mode()
        def between(frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
            return call(frame0.to(device), frame1.to(device), t)

        pictures = (made(image.movedim(-1, 0), Fraction(k), Fraction(1)) for k, image in enumerate(images))
        result = images.new_empty(factor * (len(images) - 1) + 1, *images.shape[1:])
        for place, frame in zip(result, interpolate_stream(pictures, between, factor=factor, cut=cut), strict=True):
            place.copy_(frame.rgb.movedim(0, -1))
        return (result,)


class FillHoles:
    """What a mask covers in a clip is filled from the rest of it; outside the grown holes, pixels stay as they are."""

    CATEGORY = "vfikit"
    DESCRIPTION = "Takes something out of a clip with E2FGVI. Needs a checkpoint: no weights ship with vfikit."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "fill"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = [name for name, model in MODELS.items() if hasattr(model, "inpaint")]
        dilation = {"default": Settings.dilation, "min": 0, "max": 256, "tooltip": "Pixels that holes grow by."}
        crop = {"default": -1, "min": -1, "max": 4096, "tooltip": "Look only so far around holes; -1: everywhere."}
        return {
            "required": {"images": ("IMAGE",), "mask": ("MASK",), "model": (models[::-1],), **SOURCE},
            "optional": {"dilation": ("INT", dilation), "crop": ("INT", crop)},
        }

    def fill(
        self,
        images: Tensor,
        mask: Tensor,
        model: str,
        preset: str,
        checkpoint: str,
        device: str,
        dilation: int = Settings.dilation,
        crop: int = -1,
    ) -> tuple[Tensor]:
        if mask.ndim != 3 or mask.shape[0] not in (1, len(images)) or mask.shape[1:] != images.shape[1:3]:
            expected = f"({len(images)} or 1, {images.shape[1]}, {images.shape[2]}) like the images"
            raise ValueError(f"mask is {tuple(mask.shape)}, expected {expected}")
        network = in_layout(load(model, preset, checkpoint, device))
        box = WHOLE if crop < 0 else surroundings(mask > 0, crop + dilation)
        holes = mask.expand(len(images), -1, -1)
        pairs = ((image.movedim(-1, 0)[None], hole[None, None]) for image, hole in zip(images, holes, strict=True))
        result = torch.empty_like(images)
        for place, frame in zip(result, stream(network, pairs, Settings(dilation=dilation), box), strict=True):
            place.copy_(frame[0].movedim(0, -1))
        return (result,)


def load(model: str, preset: str, checkpoint: str, device: str) -> Any:
    """The network with its weights; an empty path stands for those that ship with vfikit."""
    return load_model(model, preset, Path(checkpoint) if checkpoint else None, device)
