"""LVDM's layers on their own: values and gradients, weights filled under the published names."""

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vfikit.layers import (
    GaussianPosterior,
    PaddedConv3d,
    PaddedConvTranspose3d,
    PaddedResBlock,
    SpaceTimeAttention,
    SpaceTimeTransformer,
    VideoResBlock,
)
from vfikit.layers.embeddings import timestep_embedding
from vfikit.layers.video_attention import TemporalTokenAttention
from vfikit.models.lvdm.masks import given_mask
from vfikit.models.lvdm.published import autoencoder_name, unet_name, without_copies

from .case import DATA, Case, Published
from .weights import load

LAYER = 1e-5  # the reference ran in float32; relative to the largest value
TRANSFORMER_HEADS, TEMPORAL_HEADS, PLAIN_HEADS = 4, 4, 2  # not to be seen from the weights


def padded_conv3d(case: Case) -> None:
    for variant in variants(case, "_output"):
        form = variant.removesuffix("_odd")
        transposed = form.startswith("t_")
        name = f"SamePadConv{'Transpose' if transposed else ''}3d_{form}"
        kernel = op_keys(case, name)[f"conv{'t' * transposed}.weight"]
        stride = [int(s) for s in form.rpartition("s")[2].rjust(3, form[-1])]
        make = PaddedConvTranspose3d if transposed else PaddedConv3d
        layer = make(kernel[not transposed], kernel[transposed], kernel[2:], stride)
        naming = (lambda key: f"convt.{key}") if transposed else autoencoder_name
        filled(case, layer, name, naming)
        x = with_gradients(case, variant, layer)
        case.check(f"{variant}_grad_input", gradient(x), double=LAYER)
        case.check(f"{variant}_grad_weight", gradient(layer.weight), double=LAYER)


def autoencoder_resblock(case: Case) -> None:
    channels = op_keys(case, "AutoencoderResBlock")["norm1.weight"][0]
    block = filled(case, PaddedResBlock(channels), "AutoencoderResBlock", autoencoder_name)
    case.check("grad_input", gradient(with_gradients(case, "", block)), double=LAYER)


def gaussian_posterior(case: Case) -> None:
    posterior = GaussianPosterior.of(case.take("moments"))
    case.check("sample", posterior.sample(case.take("noise")), double=LAYER)
    case.check("mode", posterior.mean)
    case.check("std", posterior.std, double=LAYER)
    case.check("clamped_logvar", posterior.logvar)
    case.check("log_kl", posterior.kl((1, 2, 3)).log(), double=LAYER)


def embedding(case: Case) -> None:
    t = case.take("timesteps")
    for name in case.outputs("dim"):
        # the published angles are float32: at times of hundreds, 3e-5 off
        case.check(name, timestep_embedding(t, int(name.removeprefix("dim"))), most=1e-4, double=1e-4)


def unet_resblock(case: Case) -> None:
    for variant in variants(case, "_output"):
        keys = op_keys(case, f"UNetResBlock_{variant}")
        wide, narrow, kernel_t = keys["in_layers.2.weight"][:3]
        scale_shift = keys["emb_layers.1.weight"][0] == 2 * wide
        resample = variant if variant in ("up", "down") else "none"
        time = keys["emb_layers.1.weight"][1]
        block = VideoResBlock(narrow, wide, time, 0.0, scale_shift, resample, kernel_t)
        filled(case, block, f"UNetResBlock_{variant}", unet_name)
        if f"{variant}_input" not in case:  # fed with what the first variant was
            fed = block(case.take("same_input"), case.take("same_emb"))
            case.check(f"{variant}_output", fed, double=LAYER)
            continue
        emb = case.take(f"{variant}_emb").requires_grad_()
        x = with_gradients(case, variant, block, emb)
        case.check(f"{variant}_grad_input", gradient(x), double=LAYER)
        case.check(f"{variant}_grad_emb", gradient(emb), double=LAYER)


def st_attention(case: Case) -> None:
    for variant in variants(case, "_output"):
        keys = op_keys(case, f"STAttentionBlock_{variant}")
        channels, table = keys["norm_s.weight"][0], keys.get("relative_position_k.embeddings_table")
        heads = channels // table[1] if table else PLAIN_HEADS
        kind, length = ("published", table[0] // 2) if table else ("none", 0)
        block = SpaceTimeAttention(channels, heads, length, kind)
        filled(case, block, f"STAttentionBlock_{variant}", unet_name)
        mask = case.take(f"{variant}_mask") if f"{variant}_mask" in case else None
        x = with_gradients(case, variant, block, mask)
        if f"{variant}_grad_input" not in case:
            continue
        case.check(f"{variant}_grad_input", gradient(x), most=2e-5, double=LAYER)
        case.check(f"{variant}_grad_qkv_t", gradient(block.temporal.qkv.weight)[::4], most=2e-5, double=LAYER)
        for which in "kv" if table else "":
            positions = getattr(block.temporal.attention, f"relative_position_{which}")
            case.check(f"{variant}_grad_rel_{which}", gradient(positions.embeddings_table), most=2e-5, double=LAYER)


def st_transformer(case: Case) -> None:
    keys = op_keys(case, "SpatialTemporalTransformer")
    block = "transformer_blocks.0."
    channels, context = keys[f"{block}attn2.to_k.weight"]
    length = keys[f"{block}attn1_tmp.relative_position_k.embeddings_table"][0] // 2
    layer = SpaceTimeTransformer(channels, context, TRANSFORMER_HEADS, length)
    filled(case, layer, "SpatialTemporalTransformer", unet_name)
    words = case.take("context").requires_grad_()
    x = with_gradients(case, "", layer, words)
    case.check("grad_input", gradient(x), double=LAYER)
    case.check("grad_context", gradient(words), double=LAYER)

    keys = op_keys(case, "TemporalCrossAttention")
    channels, (table, _) = keys["to_q.weight"][0], keys["relative_position_k.embeddings_table"]
    temporal = TemporalTokenAttention(channels, channels // TEMPORAL_HEADS, table // 2)
    filled(case, temporal, "TemporalCrossAttention", unet_name)
    tokens = case.take("temporal_input")
    case.check("temporal_output", temporal(tokens), double=LAYER)
    case.check("temporal_output_masked", temporal(tokens, case.take("temporal_mask")), double=LAYER)


def temporal_masks(case: Case) -> None:
    """Masks (N, 1, T, H, W) that say which latents are given."""
    for name in case.outputs("mask_"):
        stored = case.take(name)
        kind, frames = name.removeprefix("mask_"), stored.shape[2]
        places: list[int] = []
        if kind.startswith("pred"):
            places = list(range(int(kind.removeprefix("pred"))))
        elif kind == "interp_ends":
            places = [0, -1]
        elif kind.startswith("interp_stride"):
            places = list(range(0, frames, int(kind.removeprefix("interp_stride"))))
        case.check(name, given_mask(stored, places))


def variants(case: Case, suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in case.arrays if name.endswith(suffix) and "_grad" not in name]


def op_keys(case: Case, name: str) -> dict[str, Any]:
    """The published names and shapes of a layer that stands alone, from the file beside the case, else from ours."""
    paths = [folder / "lvdm_ops.keys.json" for folder in (case.path.parent, DATA)]
    found = next(path for path in paths if path.exists())
    keys: dict[str, Any] = json.loads(found.read_text())["ops"][name]["keys"]
    return keys


def filled(case: Case, layer: nn.Module, name: str, naming: Callable[[str], str]) -> nn.Module:
    """``layer`` with the tensors that stand under its published names, ``naming`` of ours."""
    state = without_copies(Published({"config": {}, "keys": op_keys(case, name)}).state_dict(1.0))
    ours = {naming(key): key for key in layer.state_dict()}
    load(layer, {ours.get(key, key): value for key, value in state.items()})
    return layer.to(case.dtype)


def with_gradients(case: Case, variant: str, layer: nn.Module, *rest: Any) -> Tensor:
    """Runs ``layer`` forward and, where a gradient of the output is stored, back; returns the input."""
    prefix = f"{variant}_" if variant else ""
    x = case.take(f"{prefix}input").requires_grad_()
    output = layer(x, *rest)
    case.check(f"{prefix}output", output, double=LAYER)
    if f"{prefix}grad_output" in case:
        output.backward(case.take(f"{prefix}grad_output"))
    return x


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad
