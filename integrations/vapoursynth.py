"""A VapourSynth clip at 2 to 32 times its frame rate, every frame made when it is asked for.

import sys
sys.path.append("/path/to/vfikit")  # the clone, not this folder: this file has the name of VapourSynth itself
from integrations.vapoursynth import interpolate

interpolate(clip, factor=2).set_output()
"""

from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor

from vfikit.recipe import load_model
from vfikit.video import Engine, Factor, made
from vfikit.video.engine import MAX_FACTOR, MAX_HALVINGS


def interpolate(
    clip: Any,
    model: str = "adacof",
    factor: int = 2,
    *,
    preset: str = "small",
    checkpoint: str | Path | None = None,
    device: str | None = None,
    halvings: int = 4,
    cut: float = Engine.cut,
    repeat: float = Engine.repeat,
) -> Any:
    """``clip`` (RGBS) with ``factor`` frames for every one, at as many times its frame rate; the length stays.

    ``model`` is any of ``vfikit.models.MODELS`` that interpolates, with the weights that ship with vfikit for its
    ``preset`` unless a ``checkpoint`` is given; ``device`` is "cuda" where there is one, else "cpu". Originals are
    passed on as they are; nothing follows the last, which is repeated. Halves, quarters ... are exact; with a factor
    that is no power of two, motion is placed to multiples of 2 ** -``halvings`` of the gap. Over a scene change above
    ``cut`` the frame before it is repeated; a pair that changes less than ``repeat`` is not shown to the network.
    """
    if clip.format.id != vs.RGBS or not clip.width:  # 0: it varies
        got = f"{clip.format.name} of {clip.width}x{clip.height}"
        raise ValueError(f"interpolate: clip is {got}, expected RGBS of one size: clip.resize.Bicubic(format=vs.RGBS)")
    if not 2 <= factor <= MAX_FACTOR:
        raise ValueError(f"interpolate: factor is {factor}, expected 2 to {MAX_FACTOR}")
    if not 1 <= halvings <= MAX_HALVINGS:
        raise ValueError(f"interpolate: halvings is {halvings}, expected 1 to {MAX_HALVINGS}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = load_model(model, preset, None if checkpoint is None else Path(checkpoint), device)
    if not hasattr(network, "interpolate"):
        raise ValueError(f"interpolate: {model} does not interpolate")
    call, lock = network.in_sequence(), Lock()  # VapourSynth's threads ask for several frames at once

    @torch.inference_mode()
    def between(frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
        with lock:
            return call(frame0.to(device), frame1.to(device), t)

    engine = Engine(between, cut=cut, repeat=repeat)
    levels = factor.bit_length() - 1 if factor.bit_count() == 1 else halvings
    for _ in range(levels):
        clip = doubled(clip, engine)
    return clip.std.SelectEvery(2**levels, [round(2**levels * Fraction(k, factor)) for k in range(factor)])


def doubled(clip: Any, engine: Engine) -> Any:
    """``clip`` with a frame after each: the middle between it and the next."""

    def middle(n: int, f: list[Any]) -> Any:
        first, second = (made(picture(frame), Fraction(k), Fraction(1)) for k, frame in enumerate(f))
        _, frame = engine.fill(first, second, Factor(2).places(first, second))
        result = f[0].copy()
        for plane, values in enumerate(frame.rgb):
            np.copyto(np.asarray(result[plane]), values.numpy())
        return result

    following = clip.std.DuplicateFrames(clip.num_frames - 1)[1:]
    return vs.core.std.Interleave([clip, clip.std.ModifyFrame([clip, following], middle)])


def picture(frame: Any) -> Tensor:
    """float32 (3, H, W), cut to [0, 1]: what came out of a filter may be a little beyond."""
    return torch.from_numpy(np.stack([np.asarray(frame[plane]) for plane in range(3)])).clamp(0, 1)
