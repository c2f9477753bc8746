"""Files of other sizes, widths, steps and variants than ours, made here: the adapters take all of it from the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vfikit.layers.mbconv import MBConv, Residual

from .adapters import ADAPTERS
from .adapters.case import DATA, Case
from .kinds import kind
from .test_adapters import failures

Arrays = dict[str, np.ndarray]
WIDER = {32: 64, 64: 128, 128: 96}


class Recorder(Case):
    """Stores what the adapter computes in place of comparing it."""

    def check(self, name: str, value: Tensor, **_bounds: Any) -> None:  # type: ignore[override]
        self.untouched.discard(name)
        self.arrays[name] = value.detach().numpy().astype(self.arrays[name].dtype)


def edited(name: str, folder: Path, change: Callable[[Arrays, Any], None]) -> Path:
    """The file ``name`` as it is but for ``change``."""
    with np.load(DATA / f"{name}.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta", "{}")))
    change(arrays, meta)
    path = folder / f"{name}_hidden.npz"
    np.savez(path, meta=json.dumps(meta), **arrays)
    return path


def recorded(name: str, folder: Path, change: Callable[[Arrays, Any], None]) -> tuple[Path, Arrays]:
    """The file ``name`` with other inputs, and the outputs that follow from them."""
    path = edited(name, folder, change)
    case = Recorder(path, torch.float64)
    ADAPTERS[kind(path.stem)](case)
    case.finish()
    np.savez(path, meta=json.dumps(case.meta), **case.arrays)
    return path, case.arrays


def noise(*shape: int) -> np.ndarray:
    return np.random.RandomState(len(shape)).standard_normal(shape).astype(np.float32)


def mbconv(arrays: Arrays, meta: Any) -> None:
    arrays["input_x"] = noise(2, 32, 5, 6)
    for name, layer in (("plain", MBConv(32, 24)), ("residual", Residual(MBConv(32, 32)))):
        meta[f"keys_{name}"] = {key: list(value.shape) for key, value in layer.state_dict().items()}
    drop(arrays, meta, "downsample")


def blocks(arrays: Arrays, meta: Any) -> None:
    arrays |= {"input_x": noise(3, 64, 4, 8), "input_emb": noise(3, 96), "input_t": np.array([3, 5, 900])}
    arrays["expect_timestep_embedding_32"] = arrays.pop("expect_timestep_embedding_64")
    for name in [name for name in meta if name.startswith("keys_")]:
        meta[name] = {key: [WIDER.get(side, side) for side in shape] for key, shape in meta[name].items()}
    drop(arrays, meta, "unet_up_transposed")


def attention(arrays: Arrays, meta: Any) -> None:
    drop(arrays, meta, "linear")


def drop(arrays: Arrays, meta: Any, variant: str) -> None:
    del meta[f"keys_{variant}"]
    for name in [name for name in arrays if variant in name]:
        del arrays[name]


def warp(arrays: Arrays, _meta: Any) -> None:
    arrays |= {"x": noise(1, 3, 6, 5), "flow": noise(1, 6, 5, 2), "grad_output": noise(1, 3, 6, 5)}
    for name in [name for name in arrays if name.endswith("_reflection")]:
        del arrays[name]
    arrays |= {f"grad_flow_{mode}": noise(1, 6, 5, 2) for mode in ("zeros", "border")}


def unet(arrays: Arrays, _meta: Any) -> None:
    arrays |= {"input_x": noise(1, 9, 8, 16), "input_t": np.array([7])}
    arrays["expect_input_block_4_c8"] = arrays.pop("expect_input_block_1_c16")


def vq_loss(arrays: Arrays, _meta: Any) -> None:
    for name in [name for name in arrays if "step9999" in name]:
        arrays[name.replace("9999", "12000")] = arrays.pop(name)
    arrays |= {"input_feature": noise(1, 8, 40, 32), "input_target": noise(1, 3, 40, 32).clip(-1, 1)}


def conditional(arrays: Arrays, _meta: Any) -> None:
    """Two steps of clips of 4x8 latents."""
    plane = 4 * 4 * 8
    arrays |= {"cond_latent": noise(1, 4, 1, 4, 8), "interp_cond_latent": noise(1, 4, 2, 4, 8)}
    arrays |= {"pred_noise": noise(plane * (1 + 3 * 4)), "interp_noise": noise(plane * (2 + 3 * 6))}
    arrays |= {"step_input": noise(1, 4, 4, 4, 8), "step_noise": noise(plane * 5)}
    for name in [name for name in arrays if name.endswith("_output") and name != "step_output"]:
        arrays[name] = noise(1, 4, 4 if name.startswith("pred") else 6, 4, 8)


def rates(arrays: Arrays, _meta: Any) -> None:
    arrays["cosine"] = arrays["cosine"][:50]
    arrays["multistep"] = noise(70).astype(np.float64)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ldmvfi.mbconv", mbconv),
        ("ldmvfi.blocks", blocks),
        ("ldmvfi.attention_variants", attention),
        ("ldmvfi.unet_small", unet),
        ("ldmvfi.vq_loss", vq_loss),
        ("e2fgvi.flow_warp", warp),
        ("e2fgvi.lr_schedule", rates),
        ("lvdm.conditional_sampling", conditional),
    ],
)
def test_another_file(name: str, change: Callable[[Arrays, Any], None], tmp_path: Path) -> None:
    path, _ = recorded(name, tmp_path, change)
    assert not failures(path)
    assert not failures(path, torch.float32)


def test_fewer_criteria_of_importance(tmp_path: Path) -> None:
    assert not failures(edited("groupsparse.importance", tmp_path, lambda arrays, _: arrays.pop("l2_rms")))


def test_the_settings_of_the_plain_optimizer_count(tmp_path: Path) -> None:
    path = edited(
        "groupsparse.dhspg_adam_divisor", tmp_path, lambda _, meta: meta["direction"].update(betas=[0.5, 0.9])
    )
    assert "param.a.weight: " in failures(path)


@pytest.mark.slow
def test_a_longer_clip_of_frames_between(tmp_path: Path) -> None:
    def longer(arrays: Arrays, _meta: Any) -> None:
        for name, count in (("inputs", 4), ("target", 3), ("output", 3)):
            arrays[f"input_{name}"] = np.resize(arrays[f"input_{name}"], (count, 3, 64, 64))

    path, found = recorded("pwcnet.flolpips", tmp_path, longer)
    assert len(found["expect_scores"]) == len(found["expect_video_scores"]) == 2 * 3
    assert not failures(path)
