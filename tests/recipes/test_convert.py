"""A file as AdaCoF's authors ship theirs, made up here: published names, random tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vfikit import checkpoints
from vfikit.models import PRESETS, build

from ..models.toys import LDMVFI, LVDM
from ..test_recipes_cli import recipe

SCRIPT = Path("recipes/convert.py")


def published(path: Path, name: str = "adacof", preset: str = "small") -> tuple[Path, Any]:
    torch.manual_seed(0)
    model = build(name, preset)
    state = model.state_dict()
    torch.save({"epoch": 50, "state_dict": {key: state[ours] for key, ours in model.published_keys()}}, path)
    return path, model


def test_convert(tmp_path: Path) -> None:
    source, model = published(tmp_path / "in.pth")
    done = recipe(SCRIPT, str(source), str(tmp_path / "out.safetensors"), "--preset", "small")
    assert done.code == 0, done.stderr
    assert (
        f"out.safetensors: adacof, preset small, {sum(p.numel() for p in model.parameters()):,} parameters"
        in done.stdout
    )
    converted = checkpoints.load(tmp_path / "out.safetensors")
    assert converted.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], tensor)


TINY = {"ldmvfi": LDMVFI, "lvdm": replace(LVDM, prediction=None, interpolation=None)}


@pytest.mark.parametrize("name", TINY)
def test_weights_as_last_trained(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkpoint with averages, here one higher; a file that has none says so."""
    monkeypatch.setitem(PRESETS[name], "small", TINY[name])
    source, model = published(tmp_path / "in.ckpt", name)
    state = torch.load(source, weights_only=True)["state_dict"]
    unet = "model.diffusion_model."
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): tensor + 1
        for key, tensor in state.items()
        if key.startswith(unet)
    }
    torch.save({"state_dict": {**state, **averages}}, tmp_path / "both.ckpt")
    for more, higher in (((), 1), (("--last-weights",), 0)):
        given = ("--model", name, "--preset", "small", *more)
        done = recipe(SCRIPT, str(tmp_path / "both.ckpt"), str(tmp_path / "out.safetensors"), *given)
        assert done.code == 0, done.stderr
        found = checkpoints.load(tmp_path / "out.safetensors").state_dict()
        for theirs, ours in model.published_keys():
            expected = model.state_dict()[ours] + (higher if theirs.startswith(unet) else 0)
            torch.testing.assert_close(found[ours], expected)
    done = recipe(SCRIPT, str(source), str(tmp_path / "none.safetensors"), "--model", name, "--preset", "small", *more)
    assert done.code == 2
    assert "--last-weights: it holds no averages" in done.stderr
    assert not (tmp_path / "none.safetensors").exists()


def test_a_file_of_another_model_names_the_right_one(tmp_path: Path) -> None:
    source, _ = published(tmp_path / "in.pth", "adacof+-compressed", "published")
    done = recipe(SCRIPT, str(source), str(tmp_path / "out.safetensors"), "--model", "cdfi")
    assert done.code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.rstrip().endswith("; try --model adacof+-compressed")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_of_vfikit_is_called_that(tmp_path: Path) -> None:
    checkpoints.save(build("adacof", "small"), tmp_path / "net.safetensors")
    done = recipe(SCRIPT, "net.safetensors", "out.safetensors", folder=tmp_path)
    assert done.code == 2
    assert "net.safetensors: is a file of vfikit already (AdaCoFNet), expected a published one" in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "out.safetensors"], "none.pth: no such file"),
        (["text.pth", "out.safetensors"], "text.pth"),
        (["text.pth", "text.pth/out.safetensors"], "text.pth is no folder that can be written to"),
        (["text.pth", "out.pth"], "expected a name that ends in .safetensors"),
        (["text.pth", "out.safetensors", "--model", "nothing"], "nothing"),
        (["text.pth", "out.safetensors", "--preset", "nothing"], "nothing"),
    ],
)
def test_wrong_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "text.pth").write_text("no checkpoint")
    done = recipe(SCRIPT, *arguments, folder=tmp_path)
    assert done.code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]
