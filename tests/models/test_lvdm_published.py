"""LVDM as published: its sizes, its names, its Lightning checkpoints with averages, copies and a text encoder."""

import json
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vfikit.checkpoints import load_published
from vfikit.files import InputError
from vfikit.models import LVDMNet, build
from vfikit.models.lvdm import without_average

from ..golden.adapters.case import DATA
from .test_adacof import on_meta, parameters
from .toys import LVDM, toy

UNETS = {
    "published": "lvdm_unet",
    "published-ucf": "lvdm_unet",
    "published-taichi": "lvdm_unet",
    "published-prediction": "lvdm_unet_prediction",
    "published-interpolation": "lvdm_unet_interpolation",
    "published-text": "lvdm_unet_text2video",
}
BUFFERS = json.loads((DATA / "lvdm_diffusion.keys.json").read_text())


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def spec(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.keys.json").read_text())
    return found


def under(prefix: str, name: str) -> dict[str, Tensor]:
    return {prefix + key: torch.empty(shape, device="meta") for key, shape in spec(name)["keys"].items()}


def lvdm_on_meta(preset: str) -> LVDMNet:
    net = on_meta("lvdm", preset)
    assert isinstance(net, LVDMNet)
    return net


@pytest.mark.parametrize("preset", UNETS)
def test_published_checkpoint(preset: str) -> None:
    """Every name of it has its place in ours, or is known; counts are the published ones."""
    net = lvdm_on_meta(preset)
    autoencoder = "lvdm_image_autoencoder" if preset == "published-text" else "lvdm_autoencoder"
    assert count(net.autoencoder) == spec(autoencoder)["parameters"]
    assert count(net.unet(net.stages[0])) == spec(UNETS[preset])["parameters"]
    state = under("model.diffusion_model.", UNETS[preset]) | under("first_stage_model.", autoencoder)
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): x for key, x in state.items() if key[0] == "m"
    }
    buffers = {key: torch.empty(shape, device="meta") for key, shape in BUFFERS["keys"].items()}
    words = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.empty(1, 77, device="meta")}
    load_published(net, {"state_dict": state | averages | buffers | words})
    assert {ours for _, ours in net.published_keys()} == set(net.state_dict())
    with pytest.raises(InputError, match=r"1 unknown: model\.diffusion_model\.other"):
        load_published(net, state | {"model.diffusion_model.other": state[next(iter(state))]})


def test_published_autoencoder() -> None:
    """Its own checkpoint has no prefix, and the loss's networks beside it."""
    state = under("", "lvdm_autoencoder") | under("loss.", "lvdm_autoencoder_loss")
    load_published(on_meta("lvdm", "published-autoencoder"), state)


def test_small_is_small() -> None:
    assert 2e6 < parameters(on_meta("lvdm", "small")) < 5.8e6  # 12 MB in float16


def published(net: LVDMNet) -> dict[str, Tensor]:
    """A checkpoint as published: kernels twice, the first wrong; averages of the U-Net that are one higher."""
    ours = net.state_dict()
    state = OrderedDict((theirs, ours[key].clone()) for theirs, key in net.published_keys())
    for key in [key for key in state if key.endswith(".conv.weight") and key.startswith("first")]:
        state[key.removesuffix("conv.weight") + "weight"] = state[key] + 1
    for key in [key for key in state if key.startswith("model.")]:
        state["model_ema." + key.removeprefix("model.").replace(".", "")] = state[key] + 1
    return state


def test_averages_and_copies() -> None:
    config = replace(LVDM, short=None, prediction=None)
    net = build(config)
    state = published(net)
    averaged, last = (load_published(build(config), s).state_dict() for s in (state, without_average(state)))
    for key, tensor in net.state_dict().items():
        assert torch.equal(last[key], tensor), key
        assert torch.equal(averaged[key], tensor + key.startswith("interpolation.")), key


def test_one_unet_a_checkpoint() -> None:
    """Models of one U-Net each make one of all; a checkpoint cannot hold more."""
    whole = toy("lvdm")
    assert isinstance(whole, LVDMNet)
    with pytest.raises(TypeError, match="load short and prediction and interpolation one by one"):
        whole.published_keys()
    parts = []
    for stage in whole.stages:
        others: dict[str, Any] = {other: None for other in whole.stages if other != stage}
        part = build(replace(LVDM, **others))
        part.load_state_dict({key: whole.state_dict()[key] for key in part.state_dict()})
        parts.append(part)
    combined = LVDMNet.combined(*parts)
    assert combined.config == whole.config
    for key, tensor in whole.state_dict().items():
        assert torch.equal(combined.state_dict()[key], tensor), key


def test_models_of_other_latents_do_not_combine() -> None:
    whole = toy("lvdm")
    for changed, said in (({"scale": 2.0}, "scale"), ({"shift": 1.0, "beta_end": 0.02}, "shift, beta_end")):
        other = build(replace(LVDM, **changed))
        other.load_state_dict(whole.state_dict())
        with pytest.raises(ValueError, match=f"models to combine differ in {said}, expected the same latents"):
            LVDMNet.combined(whole, other)
    other = build(LVDM)
    other.load_state_dict(whole.state_dict())
    assert LVDMNet.combined(whole, other).config == LVDM
    with torch.no_grad():
        other.autoencoder.decoder.conv_out.weight.add_(1)
    with pytest.raises(ValueError, match="differ in the autoencoder's weights"):
        LVDMNet.combined(whole, other)
