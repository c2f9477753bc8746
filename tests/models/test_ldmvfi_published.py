"""LDMVFI as published: its sizes, its names, its Lightning checkpoint, its padding."""

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vfikit.checkpoints import load_published
from vfikit.files import InputError
from vfikit.models import build
from vfikit.models.ldmvfi import LDMVFINet, without_average
from vfikit.models.ldmvfi.published import published_padding

from ..golden.adapters.case import DATA
from .test_adacof import on_meta, parameters
from .toys import LDMVFI, toy

SPEC = json.loads((DATA / "ldmvfi.checkpoint.keys.json").read_text())
DEAD = 2_376_384  # the published decoder's ``out_conv``, which nothing calls


def test_published_parameters() -> None:
    net = on_meta("ldmvfi")
    assert parameters(net) + DEAD == SPEC["parameters"] == 439_041_624
    assert parameters(net.autoencoder) + DEAD == 22_576_741
    assert parameters(net.denoiser) == 416_464_883
    assert net.multiple == 256
    assert 3e6 < parameters(on_meta("ldmvfi", "small")) < 5e6


def test_published_keys() -> None:
    """The whole Lightning checkpoint: every name has its place, or is known to be dead or double."""
    net = on_meta("ldmvfi")
    state = {key: torch.empty(shape, device="meta") for key, shape in SPEC["keys"].items()}
    load_published(net, {"state_dict": state})
    pairs = net.published_keys()
    assert {ours for _, ours in pairs} == set(net.state_dict())
    assert {theirs for theirs, _ in pairs} <= set(SPEC["keys"])
    wrong = {key: tensor for key, tensor in state.items() if "stage_model.quantize" not in key}
    with pytest.raises(InputError, match=r"1 missing: first_stage_model\.quantize.*1 unknown: model\.else"):
        load_published(net, wrong | {"model.else": state["betas"]})


def lightning(net: LDMVFINet) -> dict[str, Tensor]:
    """A checkpoint as published: the autoencoder twice, dead weight, averages of the U-Net that are one higher."""
    ours = net.state_dict()
    state = OrderedDict((theirs, ours[key].clone()) for theirs, key in net.published_keys())
    for key in [key for key in state if key.startswith("first_stage_model.")]:
        state[key.replace("first", "cond")] = state[key]
    for key in [key for key in state if key.startswith("model.diffusion_model.")]:
        state["model_ema." + key.removeprefix("model.").replace(".", "")] = state[key] + 1
    dead = "first_stage_model.decoder.up.0.cross_attn.out_conv.1.weight"
    return state | {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9999), dead: torch.zeros(8, 16, 3, 3)}


def test_averaged_weights_are_preferred() -> None:
    net = toy("ldmvfi")
    state = lightning(net)
    averaged, last = (load_published(build(LDMVFI), s) for s in (state, without_average(state)))
    for key, tensor in net.state_dict().items():
        assert torch.equal(last.state_dict()[key], tensor), key
        assert torch.equal(averaged.state_dict()[key], tensor + key.startswith("denoiser.")), key


def test_lightning_file(tmp_path: Path) -> None:
    """With objects of the trainer's own classes beside the tensors, which are never made."""
    net = toy("ldmvfi")
    torch.save({"state_dict": lightning(net), "callbacks": {Path: Path("x")}, "epoch": 60}, tmp_path / "last.ckpt")
    loaded = load_published(build(LDMVFI), tmp_path / "last.ckpt")
    assert torch.equal(loaded.autoencoder.quant_conv.weight, net.autoencoder.quant_conv.weight)


@pytest.mark.parametrize(
    ("size", "padded"),
    [((200, 232), (256, 256)), ((300, 256), (512, 256)), ((480, 854), (512, 1024)), ((1080, 1920), (1536, 2048))],
)
def test_published_padding(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert published_padding(torch.zeros(1, 3, *size)).shape[2:] == padded
    with pytest.raises(ValueError, match="100 x 300 cannot be reflected"):
        published_padding(torch.zeros(1, 3, 100, 300))
