"""Video-LDM's blocks and its U-Net: diffusers' own, inflated."""

import re
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers import UNet2DConditionModel
from diffusers.models.unets import unet_2d_blocks as blocks
from torch import Tensor, nn

from vfikit.layers import inflate, inflate_block
from vfikit.layers.inflate import inflated_name, published_name

from .case import Case
from .video_ldm_layers import DOUBLE, gradients_of, state_of
from .weights import keep_output, load, mixed

HEADS = 4  # of the blocks' spatial attention; their files do not say
OURS = ("n_frames", "n_temp_heads")  # what diffusers' configuration does not know
GRADIENT, ALPHA = 1e-4, 3e-5  # of the largest value, and absolute: gradients of factors are sums that cancel


def down_block(case: Case) -> None:
    block = crossing(case, "VideoLDMDownBlock", blocks.CrossAttnDownBlock2D)
    taps: dict[str, Tensor] = {}
    for index, (resnet, attention) in enumerate(zip(block.resnets, block.attentions)):
        parts = {"resnet": resnet, "conv3d": attention.conv3d, "temporal": attention.temporal}
        for name, part in parts.items():
            keep_output(part, taps, f"{name}{index}")
        attention.spatial.register_forward_hook(
            lambda _module, _inputs, output, name=f"attention{index}": taps.__setitem__(name, output[0])
        )
    frames = int(case.take("frames"))
    temb, context = (case.take(name).repeat_interleave(frames, 0) for name in ("temb", "context"))
    with torch.no_grad():
        output, states = block(case.take("input"), temb, context, cross_attention_kwargs={"num_frames": frames})
    case.check("output", output, double=DOUBLE)
    for name in list(case.arrays):
        if name in taps:
            case.check(name, taps[name][:, ::8], double=DOUBLE)
        elif found := re.fullmatch(r"state(\d+)", name):
            case.check(name, states[int(found[1])][:, ::4], double=DOUBLE)


def up_block(case: Case) -> None:
    block = crossing(case, "VideoLDMUpBlock", blocks.CrossAttnUpBlock2D)
    frames = int(case.take("frames"))
    temb, context = (case.take(name).repeat_interleave(frames, 0) for name in ("temb", "context"))
    x, skips = case.take("input"), tuple(case.take("skips"))
    for name in case.outputs("output"):
        size = tuple(case.arrays[name].shape[2:]) if name == "output_resized" else None
        with torch.no_grad():
            output = block(
                *(x, skips, temb, context), upsample_size=size, cross_attention_kwargs={"num_frames": frames}
            )
        case.check(name, output[:, ::4] if size else output[:, :, ::2], double=DOUBLE)


def spatial_blocks(case: Case) -> None:
    """The middle block, wrapped without temporal layers; plain down and up blocks, which nothing is put into."""
    frames = int(case.take("frames"))
    temb, context = (case.take(name).repeat_interleave(frames, 0) for name in ("temb", "context"))
    middle = crossing(case, "UNetMidBlock2DCrossAttn", blocks.UNetMidBlock2DCrossAttn, temporal=False)
    down = plain(case, "DownBlock2D", blocks.DownBlock2D)
    up = plain(case, "UpBlock2D", blocks.UpBlock2D)
    with torch.no_grad():
        known = {"num_frames": frames}
        case.check(
            "mid_output", middle(case.take("mid_input"), temb, context, cross_attention_kwargs=known), double=DOUBLE
        )
        case.check("down_output", down(case.take("down_input"), temb)[0], double=DOUBLE)
        case.check("up_output", up(case.take("up_input"), (case.take("up_skip"),), temb), double=DOUBLE)


def unet_forward(case: Case) -> None:
    """The whole network at any size, as a video and as images."""
    net, _ = network(case)
    taps: dict[str, Tensor] = {}
    keep_output(net.time_embedding, taps, "time_embedding")
    keep_output(net.mid_block, taps, "mid")
    for side, parts in (("down", net.down_blocks), ("up", net.up_blocks)):
        for index, part in enumerate(parts):
            keep_output(part, taps, f"{side}{index}")
    with torch.no_grad():
        output = run(case, net)
    case.check("output", output, double=DOUBLE)
    for name in [name for name in taps if name in case]:
        value = taps[name][0] if isinstance(taps[name], tuple) else taps[name]
        case.check(name, value[:1] if name == "time_embedding" else value[:, ::8], double=DOUBLE)
    if "output_image_mode" in case:
        with torch.no_grad():
            case.check("output_image_mode", run(case, net, as_images=True), double=DOUBLE)
            for name, parameter in net.named_parameters():
                if name.endswith("alpha"):
                    parameter.fill_(1)
            case.check("output_image_mode", run(case, net), double=DOUBLE)


def unet_gradient(case: Case) -> None:
    """The gradients of all factors and of some kernels."""
    net, published = network(case)
    loss = functional.mse_loss(run(case, net), case.take("target"))
    loss.backward()
    case.check("const_mse_loss", loss, double=DOUBLE)
    gradients = {published_name(name): gradient for name, gradient in gradients_of(net).items()}
    for name in [name for name in case.arrays if name in published]:
        gradient = gradients[name].flatten()
        step = 5 if len(gradient) >= 3000 else 1
        scale = max(ALPHA / GRADIENT, float(abs(case.arrays[name]).max()))
        case.check(name, gradient[::step], scale=scale, most=GRADIENT, double=GRADIENT)


def network(case: Case) -> tuple[Any, set[str]]:
    """The published network of the key file beside the case, and the published names."""
    published = case.published()
    config = {key: value for key, value in published.config.items() if key not in OURS}
    net = inflate(UNet2DConditionModel(**config), heads=published.config["n_temp_heads"], freeze=False)
    counted = sum(parameter.numel() for parameter in net.parameters())
    dummies = sum(key.endswith(".dummy") for key in published.shapes)
    assert counted + dummies == published.parameters, f"{counted} parameters, published {published.parameters}"
    load(net, mixed(published.state_dict(published.gain)))
    return net.to(case.dtype).eval(), set(published.shapes)


def run(case: Case, net: nn.Module, as_images: bool = False) -> Tensor:
    frames = int(case.take("frames"))
    x, context = case.take("input"), case.take("context")
    context = context.repeat_interleave(len(x) // len(context), 0)
    known = None if as_images else {"num_frames": frames}
    return net(x, case.take("timesteps"), context, cross_attention_kwargs=known).sample


def crossing(case: Case, op: str, block_type: Any, temporal: bool = True) -> Any:
    """A block with transformers, of the widths that its weights have, inflated."""
    state = state_of(case, op)
    settings = sizes(state)
    width = settings["out_channels"]
    if block_type is blocks.UNetMidBlock2DCrossAttn:
        del settings["out_channels"]
    text = state["attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    block = block_type(**settings, num_attention_heads=HEADS, cross_attention_dim=text)
    inflate_block(block, temporal=temporal)
    assert block.attentions[0].spatial.norm.num_channels == width
    load(block, {inflated_name(f".{key}")[1:]: value for key, value in state.items()})
    return block.to(case.dtype).eval()


def plain(case: Case, op: str, block_type: Any) -> nn.Module:
    state = state_of(case, op)
    block = block_type(**sizes(state))
    load(block, state)
    return block.to(case.dtype).eval()


def sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """The settings of a block, from the shapes of its weights."""
    first = state["resnets.0.conv1.weight"].shape
    out, temb = first[0], state["resnets.0.time_emb_proj.weight"].shape[1]
    found = {"in_channels": first[1], "out_channels": out, "temb_channels": temb, "resnet_eps": 1e-5}
    layers = sum(bool(re.fullmatch(r"resnets\.\d+\.conv1\.weight", key)) for key in state)
    if any(key.startswith("upsamplers") for key in state):
        last = state[f"resnets.{layers - 1}.conv1.weight"].shape[1]
        skip = last - out  # of every layer but the last, whose skip is as wide as the block before
        found |= {"in_channels": skip, "prev_output_channel": first[1] - (out if layers > 1 else skip)}
    elif not any(key.startswith("downsamplers") for key in state):
        return {**found, "num_layers": layers - 1}  # a middle block has one residual block more
    return {**found, "num_layers": layers}
