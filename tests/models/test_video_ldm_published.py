"""Video-LDM's published checkpoints, image models' and their autoencoders; presets of the paper's sizes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from vfikit import checkpoints
from vfikit.files import InputError
from vfikit.models import build
from vfikit.models.video_ldm import UNetConfig, UpsamplerConfig, VideoLDMConfig
from vfikit.recipe import upsample_in
from vfikit.tasks.video_ldm_stages import trained

from .toys import VIDEO_LDM as TOY

UNET = TOY.unet

KEYS = Path(__file__).parent.parent / "golden" / "data"


@pytest.mark.parametrize(("kind", "preset"), [("published", "published"), ("image", "published"), ("image", "text")])
def test_published_and_image_checkpoints_load_whole(kind: str, preset: str) -> None:
    """The full model on ``meta``."""
    spec = json.loads((KEYS / "video_ldm.keys.json").read_text())
    temporal = ("conv3ds.", "tempo_attns.")
    with torch.device("meta"):
        net = build("video-ldm", preset)
        shapes = spec["keys"].items()
        state = {
            key: torch.empty(shape)
            for key, shape in shapes
            if kind == "published" or not any(map(key.__contains__, temporal))
        }
    assert len(state) == {"published": 911, "image": 686}[kind]
    checkpoints.load_published(net, state)
    gone = dict(list(state.items())[1:])
    with pytest.raises(InputError, match=f"1 missing: {next(iter(state))}"):
        checkpoints.load_published(net, gone)


def test_a_published_checkpoint_fills_the_generator() -> None:
    unet = UNetConfig(**{**UNET.__dict__, "attention": "text", "planes": 0})
    config = VideoLDMConfig(unet=unet, autoencoder=TOY.autoencoder, frames=4)
    net, other = build(config), build(config)
    names = dict(net.published_keys())
    state = {name: other.state_dict()[ours] for name, ours in names.items() if ours.startswith("generator.")}
    before = {name: x.clone() for name, x in net.autoencoder.state_dict().items()}
    checkpoints.load_published(net, {**state, "down_blocks.1.tempo_attns.0.pos_enc.dummy": torch.zeros(1)})
    for name, tensor in net.generator.state_dict().items():
        assert torch.equal(tensor, other.generator.state_dict()[name])
    assert all(torch.equal(x, before[name]) for name, x in net.autoencoder.state_dict().items())


def stable_diffusion(folder: Path) -> Any:
    """An image model's folder as diffusers saves it, its autoencoder and U-Net of the toy's sizes."""
    torch.manual_seed(7)
    auto = TOY.autoencoder
    vae = AutoencoderKL(
        block_out_channels=[auto.width * m for m in auto.multipliers],
        layers_per_block=auto.blocks,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=auto.groups,
        latent_channels=auto.latent_channels,
    )
    unet = UNet2DConditionModel(
        block_out_channels=UNET.widths,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=UNET.blocks,
        cross_attention_dim=UNET.text_width,
        attention_head_dim=UNET.heads,
        norm_num_groups=UNET.groups,
    )
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    return unet, vae


@pytest.mark.parametrize("part", ["", "vae", "vae/diffusion_pytorch_model.safetensors", "unet"])
def test_a_folder_of_stable_diffusion_loads(part: str, tmp_path: Path) -> None:
    unet, vae = stable_diffusion(tmp_path)
    net = build(TOY).eval()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    checkpoints.load_published(net, tmp_path / part)
    changed = {name for name, x in net.state_dict().items() if not torch.equal(x, before[name])}
    parts = {name.split(".")[0] for name in changed}
    assert parts == {"": {"autoencoder", "generator"}, "unet": {"generator"}}.get(part, {"autoencoder"})
    assert not any(re.search(r"\.(conv3d|over_frames|temporal|condition)\.", name) for name in changed)
    x, z, t, text = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8), torch.tensor([3, 3]), torch.rand(2, 3, 8)
    with torch.no_grad():
        if "generator" in parts:
            torch.testing.assert_close(net.generator.unet(z, t, text).sample, unet.eval()(z, t, text).sample)
        if "autoencoder" in parts:
            torch.testing.assert_close(net.autoencoder.encode(x).mean, vae.eval().encode(x).latent_dist.mean)


def test_an_upsampler_of_latents_needs_an_autoencoder(tmp_path: Path) -> None:
    unet = UNetConfig(**{**TOY.upsampler.unet.__dict__, "in_channels": 7, "out_channels": 4})
    upsampler = UpsamplerConfig(unet, TOY.autoencoder, latent=True, frames=4)
    latent = build(TOY, upsampler=upsampler, interpolation=False, upsampling=False).eval()
    with pytest.raises(ValueError, match="autoencoder is untrained, expected --upsampler-autoencoder"):
        trained(latent, "upsampler")
    _, vae = stable_diffusion(tmp_path)
    nn.init.uniform_(vae.decoder.conv_norm_out.weight)
    vae.register_to_config(scaling_factor=0.08333)
    vae.save_pretrained(tmp_path / "vae")
    upsample_in(latent, tmp_path)
    assert trained(latent, "upsampler")
    checkpoints.save(latent, tmp_path / "m.safetensors")
    loaded = checkpoints.load(tmp_path / "m.safetensors").upsampler
    frames = torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        expected = vae.eval().encode(2 * frames[0] - 1).latent_dist.mean * 0.08333
        torch.testing.assert_close(loaded.encode(frames)[0], expected)
    with pytest.raises(InputError, match="no autoencoder of this upsampler"):
        upsample_in(latent, tmp_path / "unet")
    with pytest.raises(InputError, match="of pixels"):
        upsample_in(build(TOY), tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no diffusion_pytorch_model\.safetensors or \.bin in it"):
        checkpoints.load_published(build(TOY), tmp_path)


@pytest.mark.parametrize(("preset", "generator"), [("published", 962_807_394), ("driving", None), ("text", None)])
def test_presets_build_on_meta(preset: str, generator: int | None) -> None:
    with torch.device("meta"):
        net = build("video-ldm", preset)
    counted = sum(p.numel() for p in net.generator.parameters())
    assert counted == generator or (generator is None and counted > 962_807_394)
    if preset != "published":
        assert net.upsampler is not None
        assert (net.upsampler.autoencoder is not None) == (preset == "text")
