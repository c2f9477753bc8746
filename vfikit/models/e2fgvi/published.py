"""The names of the published checkpoints, and what their program does with a clip."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...layers import propagation, spynet

if TYPE_CHECKING:
    from .net import E2FGVIConfig

WHOLE_WINDOWS = (60, 108)  # pixels of one window of tokens, height and width


def published_keys(config: "E2FGVIConfig") -> list[tuple[str, str]]:
    """Pairs (published name, ours)."""
    stem, grouped = len(config.stem), len(config.grouped)
    modules = [(f"encoder.layers.{2 * i}", f"encoder.stem.{2 * i}") for i in range(stem)]
    modules += [(f"encoder.layers.{2 * (stem + i)}", f"encoder.layers.{i}") for i in range(grouped)]
    modules += [("decoder.0.conv", "decoder.1"), ("decoder.2", "decoder.3")]
    modules += [("decoder.4.conv", "decoder.6"), ("decoder.6", "decoder.8")]
    modules += [("ss.embedding", "split.embedding"), ("sc.embedding", "compose.embedding")]
    if config.bias_map is None:
        modules.append(("sc.bias_conv", "refine"))
    for i in range(config.depth):
        theirs, ours = f"transformer.{i}", f"blocks.{i}"
        modules += [(f"{theirs}.pool_layers.{j}", f"{ours}.pool.levels.{j}") for j in range(config.focal_level - 1)]
        modules += [(f"{theirs}.{part}", f"{ours}.{part}") for part in ("norm1", "norm2", "attn.qkv", "attn.proj")]
        modules += [(f"{theirs}.mlp.conv1.0", f"{ours}.mlp.conv1"), (f"{theirs}.mlp.conv2.1", f"{ours}.mlp.conv2")]
    pairs = [(f"{theirs}.{part}", f"{ours}.{part}") for theirs, ours in modules for part in ("weight", "bias")]
    if config.bias_map is not None:
        pairs.append(("sc.bias", "refine.bias"))
    pairs += [(f"feat_prop_module.{theirs}", f"propagation.{ours}") for theirs, ours in propagation.published_keys()]
    flow = spynet.published_keys(config.flow_levels, len(config.flow_widths) + 1)
    return pairs + [(f"update_spynet.{theirs}", f"flow.{ours}") for theirs, ours in flow]


def published_padding(frames: Tensor) -> Tensor:
    """Pads (N, C, H, W) at the bottom and right to multiples of ``WHOLE_WINDOWS``, mirrored about the edge.

    A side too short to be mirrored so far raises ``ValueError``, where the published program fails too.
    """
    for axis, multiple in zip((2, 3), WHOLE_WINDOWS):
        size = frames.shape[axis]
        missing = -size % multiple
        if missing > size:
            raise ValueError(
                f"E2FGVINet: a side of {size} pixels cannot be mirrored to a multiple of {multiple}, as published; "
                "use the default padding"
            )
        end = frames.narrow(axis, size - missing, missing).flip(axis)
        frames = torch.cat([frames, end], dim=axis)
    return frames
