"""LVDM's networks: both autoencoders and the U-Nets, by the published names, with intermediates and gradients."""

from typing import Any

import torch
from torch import Tensor

from vfikit.layers import ImageAutoencoder
from vfikit.models.lvdm.autoencoder import AutoencoderConfig, VideoAutoencoder
from vfikit.models.lvdm.published import autoencoder_name, unet_name, without_copies
from vfikit.models.lvdm.unet import VideoUNet, VideoUNetConfig

from .case import Case, Published
from .weights import keep_output, load

NETWORK = 2e-5  # the reference ran in float32; relative to the largest value
SKY_SCALE, SKY_SHIFT = 0.33422927, 1.4606637
STRIDES = {  # of stored intermediates
    "encoder_block0": (slice(None), slice(None, None, 8), slice(None), slice(None, None, 2), slice(None, None, 2)),
    "encoder_block2": (slice(None),),
    "decoder_block0": (slice(None), slice(None, None, 8)),
    "decoder_block2": (slice(None), slice(None, None, 16), slice(None), slice(None, None, 4), slice(None, None, 4)),
}


def autoencoder(case: Case) -> None:
    net = video_autoencoder(case, case.published())
    taps: dict[str, Tensor] = {}
    for name in STRIDES:
        part, _, index = name.partition("_block")
        keep_output(getattr(net, part).conv_blocks[int(index)], taps, name)
    with torch.no_grad():
        moments = net.moments(case.take("input"))
        posterior = net.encode(case.take("input"))
        latent = posterior.sample(case.take("noise"))
        reconstruction = net.decode(latent)
    close(case, "moments", moments)
    close(case, "latent", latent)
    close(case, "kl", posterior.kl((1, 2, 3)))
    close(case, "reconstruction", reconstruction)
    close(case, "scaled_latent", SKY_SCALE * (latent + SKY_SHIFT))
    for name, stride in STRIDES.items():
        close(case, name, taps[name][stride])


def image_autoencoder(case: Case) -> None:
    published = case.published()
    inside = published.config["ddconfig"]
    assert inside["double_z"]
    assert not inside["attn_resolutions"]
    assert (inside["in_channels"], inside["out_ch"]) == (3, 3)
    assert inside["z_channels"] == published.config["embed_dim"]
    multipliers, blocks = inside["ch_mult"], inside["num_res_blocks"]
    net = ImageAutoencoder(inside["ch"], multipliers, blocks, inside["z_channels"])
    counted(net, published)
    load(net, published.state_dict(published.gain))
    net.to(case.dtype)
    with torch.no_grad():
        image = case.take("input")
        posterior = net.encode(image)
        latent = posterior.sample(case.take("noise"))
        close(case, "encoder_output", net.encoder(image))
        close(case, "moments", net.moments(image))
        close(case, "latent", latent)
        close(case, "kl", posterior.kl())
        close(case, "reconstruction", net.decode(latent))


def unet(case: Case) -> None:
    net = video_unet(case, case.published())
    taps: dict[str, Tensor] = {}
    keep_output(net.input_blocks[0], taps, "conv_in")
    keep_output(net.input_blocks[3], taps, "input_block3")
    keep_output(net.middle_block, taps, "middle")
    keep_output(net.output_blocks[1], taps, "output_block1")
    context, given, label, level = (
        case.take(f"in_{name}") if f"in_{name}" in case else None for name in ("context", "mask", "y", "s")
    )
    x, t = case.take("input"), case.take("timesteps")
    with torch.no_grad():
        close(case, "output", net(x, t, context, level if label is None else label, given))
        for name, value in list(taps.items()):
            close(case, name, value[:, ::8])
        if "output_without_noise_level" in case:
            close(case, "output_without_noise_level", net(x, t))


def unet_gradient(case: Case) -> None:
    net = video_unet(case, case.published())
    loss = (net(case.take("input"), case.take("timesteps")) - case.take("target")).abs().mean()
    loss.backward()
    close(case, "const_l1_loss", loss)
    ours = {unet_name(name): parameter for name, parameter in net.named_parameters()}
    for name in sorted(case.untouched & ours.keys()):
        gradient = ours[name].grad
        assert gradient is not None
        stored = gradient.flatten()[::7] if gradient.numel() >= 4000 else gradient
        case.check(name, stored, most=1e-4, all=1e-4, double=1e-4)


def video_autoencoder(case: Case, published: Published) -> VideoAutoencoder:
    net = VideoAutoencoder(autoencoder_config(published.config))
    counted(net, published)
    state = without_copies(published.state_dict(published.gain))
    ours = {autoencoder_name(key): key for key in net.state_dict()}
    load(net, {ours.get(key, key): value for key, value in state.items()})
    return net.to(case.dtype).eval()


def video_unet(case: Case, published: Published, length: int | None = None) -> VideoUNet:
    """With the published weights; another ``length`` than the config's changes the tables of relative positions."""
    config = unet_config(published.config, length)
    net = VideoUNet(config)
    ours = {unet_name(key): key for key in net.state_dict()}
    if length is None:
        counted(net, published)
    for key in published.shapes:
        published.shapes[key] = tuple(net.state_dict()[ours[key]].shape) if key in ours else published.shapes[key]
    state = published.state_dict(published.gain)
    load(net, {ours.get(key, key): value for key, value in state.items()})
    return net.to(case.dtype).eval()


def autoencoder_config(published: dict[str, Any]) -> AutoencoderConfig:
    assert published["double_z"]
    assert published["image_channel"] == 3
    assert published["z_channels"] == published["embed_dim"]
    t, height, width = published["downsample"]
    return AutoencoderConfig(published["n_hiddens"], (t, height, width), published["z_channels"])


def unet_config(published: dict[str, Any], length: int | None = None) -> VideoUNetConfig:
    mode = "per_frame" if published.get("cond_aug_mode") == "time_embed" else "none"
    transformer = published["use_temporal_transformer"]
    assert published["use_relative_position"]
    assert published["padding_t"] == published["kernel_size_t"] // 2
    assert published.get("transformer_depth", 1) == 1
    return VideoUNetConfig(
        in_channels=published["in_channels"],
        out_channels=published["out_channels"],
        width=published["model_channels"],
        multipliers=tuple(published["channel_mult"]),
        blocks=published["num_res_blocks"],
        attention="transformer" if transformer else "space_time",
        attention_scales=tuple(published["attention_resolutions"]),
        heads=published["num_heads"],
        length=length or published["temporal_length"],
        context_channels=published.get("context_dim", 0),
        level_embedding="label" if "num_classes" in published else mode,
        levels=published.get("num_classes", 251),
        scale_shift=published.get("use_scale_shift_norm", False),
        kernel_t=published["kernel_size_t"],
    )


def counted(net: torch.nn.Module, published: Published) -> None:
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == published.parameters, f"{count} parameters, published {published.parameters}"


def close(case: Case, name: str, value: Tensor) -> None:
    case.check(name, value, most=NETWORK, all=5e-5, double=NETWORK)
