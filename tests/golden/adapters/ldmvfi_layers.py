"""LDMVFI's layers, each alone: multi-axis attention, MBConv, other attentions, residual blocks, quantiser, heads."""

import re

import torch
from torch import nn

from vfikit.layers.attention import (
    HeadAttention,
    LinearAttention,
    PixelAttention,
    PositionedCrossAttention,
    SpatialTransformer,
)
from vfikit.layers.embeddings import position_embedding, timestep_embedding
from vfikit.layers.maxvit import MaxAttention, MaxCrossAttention
from vfikit.layers.mbconv import MBConv, Residual
from vfikit.layers.quantize import VectorQuantizer
from vfikit.layers.resnet import Downsample, ResnetBlock, TimeResBlock, TransposedUpsample, Upsample
from vfikit.layers.separable_synthesis import SeparableSynthesis

from .case import Case
from .weights import fill_module, keep_output

DOUBLE = 1e-5  # the reference ran in float32


def maxvit_self(case: Case) -> None:
    meta = case.meta
    layer = MaxAttention(meta["channels"], meta["dim_head"], meta["window_size"])
    fill_module(case, layer, meta["keys"])
    assert layer.attn_block.fn.bias().shape[0] == meta["heads"]
    taps: dict[str, torch.Tensor] = {}
    keep_output(layer.ff_block, taps, "after_block_attention")
    x = case.take("input_x").requires_grad_()
    output = layer(x)
    case.check("expect_output", output, double=DOUBLE)
    case.check("expect_after_block_attention", taps["after_block_attention"].permute(0, 3, 1, 2), double=DOUBLE)
    case.check("expect_grad_x", torch.autograd.grad(output, x, case.take("input_grad_output"))[0], double=DOUBLE)


def maxca(case: Case) -> None:
    """The decoder's cross-attention, whose ``out_conv`` is dead, and the U-Net's, whose context is larger."""
    meta = case.meta
    x, context = case.take("input_x").requires_grad_(), case.take("input_context").requires_grad_()
    layer = MaxCrossAttention(meta["channels"], context.shape[1], meta["dim_head"], meta["window_size"])
    fill_module(case, layer, meta["keys"], dead=["out_conv."])
    taps: dict[str, torch.Tensor] = {}
    keep_output(layer.ff_block, taps, "after_block_attention")
    keep_output(layer.proj_in, taps, "context_projected")
    output = layer(x, context)
    case.check("expect_output", output, double=DOUBLE)
    if "expect_context_projected" in case:
        case.check("expect_context_projected", taps["context_projected"], double=DOUBLE)
        case.check("expect_after_block_attention", taps["after_block_attention"].permute(0, 3, 1, 2), double=DOUBLE)
        gradients = torch.autograd.grad(output, (x, context), case.take("input_grad_output"))
        for name, gradient in zip(("x", "context"), gradients):
            case.check(f"expect_grad_{name}", gradient, double=DOUBLE)


def mbconv(case: Case) -> None:
    x = case.take("input_x")
    for name in case.variants("keys_"):
        keys = case.meta[f"keys_{name}"]
        plain = MBConv(x.shape[1], keys.get("7.weight", keys.get("fn.7.weight"))[0], downsample=name == "downsample")
        layer = Residual(plain) if "fn.7.weight" in keys else plain
        fill_module(case, layer, keys)
        inner = layer.fn if isinstance(layer, Residual) else layer
        assert isinstance(inner, MBConv)
        taps: dict[str, torch.Tensor] = {}
        keep_output(inner[6], taps, "squeezed")
        with torch.no_grad():
            case.check(f"expect_output_{name}_eval", layer(x), double=DOUBLE)
            if f"expect_squeeze_excited_{name}" in case:
                case.check(f"expect_squeeze_excited_{name}", taps["squeezed"][:, :16], double=DOUBLE)
            if f"expect_output_{name}_train" in case:
                case.check(f"expect_output_{name}_train", layer.train()(x), double=DOUBLE)
                for kind in ("mean", "var"):
                    value = getattr(inner[1], f"running_{kind}")
                    case.check(f"expect_running_{kind}_after_{name}", value, double=DOUBLE)


def attention_variants(case: Case) -> None:
    x, context, context6 = (case.take(f"input_{name}") for name in ("x", "context", "context6"))
    width = x.shape[1]
    layers: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
        "vanilla": (PixelAttention(width), (x,)),
        "linear": (LinearAttention(width), (x,)),
        "posemb_cross": (PositionedCrossAttention(width, 32), (x, context)),
        "posemb_self": (PositionedCrossAttention(width, 32), (x,)),
        "unet_qkv_legacy": (HeadAttention(width, 32), (x,)),
        "unet_qkv_new": (HeadAttention(width, 32, interleaved=False), (x,)),
        "spatial_transformer": (SpatialTransformer(width, context6.shape[1], 32), (x, context6)),
    }
    for name in case.variants("keys_"):
        layer, inputs = layers[name]
        # the published cross-attention has a projection at its end that it never calls
        fill_module(case, layer, case.meta[f"keys_{name}"], dead=["proj_out."] if "posemb" in name else [])
        with torch.no_grad():
            case.check(f"expect_output_{name}", layer(*inputs), double=DOUBLE)
    places = position_embedding(*x.shape[2:], width, dtype=case.dtype)
    case.check("expect_posemb_sincos_2d", places, double=DOUBLE)


def blocks(case: Case) -> None:
    x, emb, t = case.take("input_x"), case.take("input_emb"), case.take("input_t")
    n, time, keys = x.shape[1], emb.shape[1], {name: case.meta[f"keys_{name}"] for name in case.variants("keys_")}
    wide = {
        name: shapes[weight][0]
        for name, shapes in keys.items()
        for weight in ("conv1.weight", "in_layers.2.weight")
        if weight in shapes
    }
    layers: dict[str, nn.Module] = {
        "figan_down_conv": Downsample(n, asymmetric=True),
        "figan_down_pool": Downsample(),
        "figan_up_conv": Upsample(n),
        "figan_up_plain": Upsample(),
        "figan_res_same": ResnetBlock(n, n),
        "figan_res_nin": ResnetBlock(n, wide.get("figan_res_nin", n)),
        "figan_res_conv_temb": ResnetBlock(
            n, wide.get("figan_res_conv_temb", n), time_channels=time, conv_shortcut=True
        ),
        "unet_down": Downsample(n),
        "unet_down_pool": Downsample(),
        "unet_up": Upsample(n),
        "unet_up_transposed": TransposedUpsample(n),
        "unet_res": TimeResBlock(n, wide.get("unet_res", n), time),
        "unet_res_scale_shift": TimeResBlock(n, n, time, scale_shift=True),
        "unet_res_up": TimeResBlock(n, n, time, resample="up"),
        "unet_res_down": TimeResBlock(n, wide.get("unet_res_down", n), time, resample="down", conv_shortcut=True),
    }
    for name in keys:
        layer = layers[name]
        fill_module(case, layer, keys[name], renamed=("op.", "conv."))
        inputs = (x, emb) if "_res" in name and "same" not in name and "nin" not in name else (x,)
        with torch.no_grad():
            case.check(f"expect_output_{name}", layer(*inputs), double=DOUBLE)
    for name in case.outputs("expect_"):
        if found := re.fullmatch(r"expect_(figan_)?timestep_embedding_(\d+)", name):
            value = timestep_embedding(t, int(found[2]), cosine_first=not found[1])
            # the published angles are float32: at times of hundreds, 3e-5 off
            case.check(name, value, most=1e-4, double=1e-4)


def vector_quantizer(case: Case) -> None:
    meta = case.meta
    grad_output = case.take("input_grad_output")
    for name, legacy in (("legacy", True), ("fixed", False)):
        layer = VectorQuantizer(meta["n_e"], meta["e_dim"], legacy=legacy)
        fill_module(case, layer, meta["keys"])
        z = case.take("input_z").requires_grad_()
        found = layer(z)
        total = found.loss + (found.latent * grad_output).sum()
        grad_z, grad_codes = torch.autograd.grad(total, (z, layer.embedding.weight))
        indices = found.indices.view(z.shape[0], *z.shape[2:])
        case.check("expect_z_q", found.latent)
        case.check("expect_indices", indices, all=0)
        case.check("expect_entries", layer.lookup(indices))
        case.check(f"expect_loss_{name}", found.loss)
        case.check(f"expect_grad_z_{name}", grad_z)
        case.check(f"expect_grad_embedding_{name}", grad_codes)


HEADS = {
    "moduleAlpha": "alpha",
    "moduleBeta": "beta",
    "moduleKernelVertical": "vertical",
    "moduleKernelHorizontal": "horizontal",
    "moduleMask": "mask",
    "moduleResidual": "residual",
}


def heads(case: Case) -> None:
    """The heads that the case stores, of the published autoencoder's weights; the mask after its sigmoid."""
    published = case.published("ldmvfi.vqfigan")
    state = published.state_dict(published.gain)
    features = case.take("input_feature")
    synthesis = SeparableSynthesis(features.shape[1])
    for name in case.outputs("expect_output_"):
        theirs = name.removeprefix("expect_output_")
        ours = HEADS[theirs.rstrip("12")] + theirs[len(theirs.rstrip("12")) :]
        head, prefix = synthesis.heads[ours], f"decoder.{theirs}."
        head.load_state_dict({key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)})
        with torch.no_grad():
            output = head.to(case.dtype)(features)
        case.check(name, output.sigmoid() if ours == "mask" else output, double=DOUBLE)
