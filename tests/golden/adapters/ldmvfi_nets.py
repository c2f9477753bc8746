"""LDMVFI's networks: the autoencoder with its intermediates and gradients, and the denoising U-Net with its options."""

import re
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from vfikit.models.ldmvfi import VQFIGAN, AutoencoderConfig, DenoisingUNet, UNetConfig
from vfikit.models.ldmvfi.published import HEADS, autoencoder_name, unet_name

from .case import Case, Published
from .weights import keep_input, keep_output, key_file, load, mean_std

NETWORK = 5e-5  # the reference ran in float32; relative to the largest value
GRADIENT = 2e-4


def figan(case: Case) -> None:
    """The whole autoencoder at any size."""
    config = autoencoder_config(case.meta["config"])
    published = key_file(case, lambda found: "ddconfig" in found and autoencoder_config(found) == config)
    net = autoencoder(case, config, published)
    taps = tap(net)
    frames = {name: picture(case, name) for name in ("prev", "mid", "next")}
    below, right = case.meta["padding"]
    height, width = frames["mid"].shape[2:]
    padded = {name: functional.pad(frame, (0, right, 0, below), mode="reflect") for name, frame in frames.items()}
    with torch.no_grad():
        encoded = net.encode(padded["mid"])
        before = net.encode(padded["prev"])
        found = net(padded["mid"], padded["prev"], padded["next"])
    taps |= {f"phi_prev_{i}": feature[:, :8] for i, feature in enumerate(before.features)}
    taps |= {f"{module}{i}": found.decoded.maps[f"{ours}{i}"] for ours, module in HEADS.items() for i in numbers(ours)}
    taps |= {"latent_prequant": encoded.latent, "latent_quantized": net.quantize(encoded.latent).latent}
    taps |= {"indices": found.indices, "codebook_loss": found.codebook_loss}
    taps["output"] = found.decoded.frame[..., :height, :width]
    compare(case, {**taps, **{name: x[:, :8] for name, x in taps.items() if name.startswith("decoder_")}})


def figan_grads(case: Case) -> None:
    """The loss and the gradients of some weights, from first to last."""
    published = case.published("ldmvfi.vqfigan_f8")
    net = autoencoder(case, autoencoder_config(published.config), published)
    frames = {name: picture(case, name) for name in ("prev", "mid", "next")}
    found = net(frames["mid"], frames["prev"], frames["next"])
    loss = (found.decoded.frame - frames["mid"]).abs().mean() + found.codebook_loss
    loss.backward()
    case.check("expect_loss", loss, double=NETWORK)
    ours = {autoencoder_name(name): parameter for name, parameter in net.named_parameters()}
    for name in case.outputs("expect_grad_of_"):
        gradient = ours[name.removeprefix("expect_grad_of_")].grad
        assert gradient is not None
        case.check(name, gradient.flatten()[:600], most=GRADIENT, all=GRADIENT, double=GRADIENT)


def unet(case: Case) -> None:
    """The U-Net with any of its options."""
    config = unet_config(case.meta["config"])
    net = DenoisingUNet(config)
    published = key_file(case, lambda found: "model_channels" in found and unet_config(found) == config)
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert counted == published.parameters, f"{counted} parameters, published {published.parameters}"
    state = published.state_dict(published.gain)
    ours = {unet_name(key): key for key in net.state_dict()}
    load(net, {ours.get(key, key): value for key, value in state.items()})
    net.to(case.dtype).eval()
    taps: dict[str, Tensor] = {}
    for side, parts in (("input", net.input_blocks), ("output", net.output_blocks)):
        for index, part in enumerate(parts):
            keep_output(part, taps, f"{side}_block_{index}")
    keep_output(net.middle_block, taps, "middle_block")
    keep_output(net.time_embed, taps, "time_embedding")
    context = case.take("input_context") if "input_context" in case else None
    with torch.no_grad():
        taps["output"] = net(case.take("input_x"), case.take("input_t"), context)
    taps["time_embedding"] = taps["time_embedding"][:, :64]
    compare(case, taps)


def autoencoder_config(published: dict[str, Any]) -> AutoencoderConfig:
    inside = published["ddconfig"]
    assert inside["cond_type"] in ("max_cross_attn", "none")
    assert not inside["double_z"]
    return AutoencoderConfig(
        width=inside["ch"],
        multipliers=tuple(inside["ch_mult"]),
        blocks=inside["num_res_blocks"],
        latent_channels=inside["z_channels"],
        code_width=published["embed_dim"],
        codes=published["n_embed"],
        resolution=inside["resolution"],
        attention=inside["attn_type"],
        attention_resolutions=tuple(inside["attn_resolutions"]),
        cross_attention=inside["cond_type"] == "max_cross_attn",
        dropout=inside["dropout"],
    )


def unet_config(published: dict[str, Any]) -> UNetConfig:
    crosses = published.get("use_spatial_transformer", False)
    multiaxis = published.get("use_max_spatial_transfomer" if crosses else "use_max_self_attn", False)
    attention = ("max_cross" if multiaxis else "cross") if crosses else ("max" if multiaxis else "full")
    return UNetConfig(
        in_channels=published["in_channels"],
        out_channels=published["out_channels"],
        width=published["model_channels"],
        multipliers=tuple(published["channel_mult"]),
        blocks=published["num_res_blocks"],
        attention=attention,
        attention_scales=tuple(published["attention_resolutions"]),
        context_channels=published.get("context_dim", 6),
        head_width=published["num_head_channels"],
        window=min(published["image_size"] // 4, 8),
        resample_blocks=published.get("resblock_updown", False),
        scale_shift=published.get("use_scale_shift_norm", False),
    )


def autoencoder(case: Case, config: AutoencoderConfig, published: Published) -> VQFIGAN:
    """With the published weights, less those of ``out_conv``, which are never used."""
    net = VQFIGAN(config)
    state = published.state_dict(published.gain)
    dead = [key for key in published.shapes if ".cross_attn.out_conv." in key]
    counted = sum(p.numel() for p in net.parameters()) + sum(state[key].numel() for key in dead)
    assert counted == published.parameters, f"{counted} parameters, published {published.parameters}"
    ours = {autoencoder_name(key): key for key in net.state_dict()}
    load(net, {ours.get(key, key): value for key, value in state.items() if key not in dead})
    return net.to(case.dtype).eval()


def tap(net: VQFIGAN) -> dict[str, Tensor]:
    """Keeps what the decoder makes on the way; read after a forward."""
    taps: dict[str, Tensor] = {}
    decoder = net.decoder
    keep_output(decoder.mid.attn_1, taps, "decoder_mid_attention")
    for where, level in (("lowest", decoder.up[-1]), ("finest", decoder.up[0])):
        keep_input(level.upsample, taps, f"decoder_cross_attention_{where}")  # its last layer, whichever that is
    keep_output(decoder.conv_out, taps, "decoder_feature")
    return taps


def picture(case: Case, name: str) -> Tensor:
    """A frame in [-1, 1], (N, 3, H, W)."""
    return case.take(f"input_frame_{name}").to(case.dtype) / 127.5 - 1


def numbers(head: str) -> tuple[str, ...]:
    return ("",) if head in ("mask", "residual") else ("1", "2")


def compare(case: Case, taps: dict[str, Tensor], tolerance: float = NETWORK) -> None:
    """Every stored output: whole, every N-th pixel (``_sN``), N channels (``_cN``) or mean and deviation."""
    for name in [name for name in case.outputs("expect_") if name in case.untouched]:
        base = name.removeprefix("expect_")
        stem, _, what = base.rpartition("_")
        if base in taps:
            case.check(name, taps[base], most=tolerance, all=5 * tolerance, double=tolerance)
        elif found := re.fullmatch(r"s(\d+)", what):
            step = int(found[1])
            case.check(name, taps[stem][..., ::step, ::step], most=tolerance, all=5 * tolerance, double=tolerance)
        elif re.fullmatch(r"c\d+", what):
            channels = int(what[1:])
            case.check(name, taps[stem][:, :channels], most=tolerance, all=5 * tolerance, double=tolerance)
        elif base.endswith("_mean_std"):
            case.check(name, mean_std(taps[base.removesuffix("_mean_std")]), most=tolerance, double=tolerance)
