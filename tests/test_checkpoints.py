"""Checkpoints: ours keep config and widths, published ones load by their names, and no file runs code."""

import json
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vfikit import checkpoints, compress
from vfikit.compress.resize import resize, widths
from vfikit.data import SyntheticClips
from vfikit.files import InputError
from vfikit.metrics import psnr
from vfikit.models import AdaCoFNet, CDFINet
from vfikit.models.pretrained import Pretrained

from .models.toys import TOYS, pair, toy


def same(first: Pretrained, second: Pretrained) -> None:
    assert type(first) is type(second)
    assert first.config == second.config
    states = first.state_dict(), second.state_dict()
    assert list(states[0]) == list(states[1])
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]), key
        assert states[0][key].dtype == states[1][key].dtype, key


def published(net: Pretrained) -> dict[str, Tensor]:
    state = net.state_dict()
    return OrderedDict((theirs, state[ours].clone()) for theirs, ours in net.published_keys())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", [*TOYS, "ldmvfi"])
def test_round_trip(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    net = toy(name, dtype)
    checkpoints.save(net, tmp_path / "net.safetensors", seed=3, psnr=34.5)
    loaded = checkpoints.load(tmp_path / "net.safetensors")
    same(net, loaded)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    frames = pair(20, 24, dtype=dtype)
    torch.testing.assert_close(loaded(*frames), net(*frames))  # equal, but for where matrices lie in memory
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_metadata(tmp_path: Path) -> None:
    """What is in the file says what to build, without vfikit."""
    checkpoints.save(toy("cdfi"), tmp_path / "net.safetensors", seed=3, command="train")
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["vfikit"])
    assert metadata["model"] == "CDFINet"
    assert metadata["config"]["kernel_size"] == 3
    assert metadata["widths"]["estimator.encoder.0.0"] == {"in": 6, "out": 4, "groups": 1}
    assert (metadata["seed"], metadata["command"]) == (3, "train")


def test_half_storage(tmp_path: Path) -> None:
    """Half the bytes on disk, the model's own type in memory."""
    net = toy("adacof")
    checkpoints.save(net, tmp_path / "whole.safetensors")
    checkpoints.save(net, tmp_path / "half.safetensors", storage=torch.float16)
    loaded = checkpoints.load(tmp_path / "half.safetensors")
    for key, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.half().float()), key
    tensors = sum(tensor.numel() for tensor in net.state_dict().values())
    saved = (tmp_path / "whole.safetensors").stat().st_size - (tmp_path / "half.safetensors").stat().st_size
    assert abs(saved - 2 * tensors) < 1000


@pytest.mark.parametrize("name", ["adacof", "cdfi"])
def test_resized_net_round_trip(name: str, tmp_path: Path) -> None:
    """A net whose widths no config describes comes back as it was: here one inner width of each part changes."""
    net = toy(name)
    wanted = widths(net)
    wanted["estimator.encoder.1.0"]["out"] = wanted["estimator.encoder.1.2"]["in"] = 3
    wanted["estimator.heads.beta2.2"]["out"] = wanted["estimator.heads.beta2.4"]["in"] = 2
    if name == "cdfi":
        wanted["synthesis.down_0_1.f.1"]["out"] = wanted["synthesis.down_0_1.f.3"]["in"] = 2
    resize(net, wanted)
    assert net.estimator.encoder[1][0].weight.shape[0] == 3
    checkpoints.save(net, tmp_path / "net.safetensors")
    loaded = checkpoints.load(tmp_path / "net.safetensors")
    same(net, loaded)
    assert widths(loaded) == wanted
    frames = pair(33, 20)
    assert torch.equal(net(*frames), loaded(*frames))


@pytest.mark.parametrize("name", ["adacof", "cdfi", "ldmvfi"])
def test_pruned_net_round_trip(name: str, tmp_path: Path) -> None:
    """Every group of channels that may be cut, cut by a third."""
    net, frames = toy(name), pair(32, 32)
    groups = compress.couple(net, frames).groups
    small = compress.slice_channels(net, {group: list(range((group.units + 1) // 3, group.units)) for group in groups})
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in net.parameters())
    checkpoints.save(small, tmp_path / "small.safetensors")
    loaded = checkpoints.load(tmp_path / "small.safetensors")
    same(small, loaded)
    torch.testing.assert_close(loaded(*frames), small(*frames))


@pytest.mark.parametrize("model_type", [AdaCoFNet, CDFINet])
def test_from_pretrained(model_type: type[Pretrained], tmp_path: Path) -> None:
    net = toy("adacof" if model_type is AdaCoFNet else "cdfi")
    net.save_pretrained(tmp_path / "folder", note="x")
    same(net, model_type.from_pretrained(tmp_path / "folder"))
    same(net, model_type.from_pretrained(tmp_path / "folder" / "model.safetensors"))
    same(net, checkpoints.load(tmp_path / "folder" / "model.safetensors"))
    other = CDFINet if model_type is AdaCoFNet else AdaCoFNet
    with pytest.raises(InputError, match=f"holds a {model_type.__name__}, expected a {other.__name__}"):
        other.from_pretrained(tmp_path / "folder")


def test_bad_files(tmp_path: Path) -> None:
    """Each in one line of an ``InputError``."""
    path, net = tmp_path / "net.safetensors", toy("adacof")
    with pytest.raises(InputError, match=r"absent\.safetensors: no such file"):
        checkpoints.load(tmp_path / "absent.safetensors")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        checkpoints.load(path)
    checkpoints.save(net, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        checkpoints.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="no vfikit metadata"):
        checkpoints.load(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"vfikit": json.dumps({"model": "FutureNet"})})
    with pytest.raises(InputError, match="holds a FutureNet"):
        checkpoints.load(path)
    checkpoints.save(net, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"estimator.encoder.0.0.weight": torch.zeros(4, 6, 3, 3)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"net\.safetensors: .*Missing key.*estimator\.encoder\.0\.0\.bias"):
        checkpoints.load(path)


def test_a_file_is_readable_by_whom_others_are(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoints.save(toy("adacof"), tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors: could not be written"):
            checkpoints.save(toy("adacof"), tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    net = toy("adacof")
    checkpoints.save(net, tmp_path / "net.safetensors")
    before = (tmp_path / "net.safetensors").read_bytes()
    with pytest.raises(TypeError):
        checkpoints.save(net, tmp_path / "net.safetensors", note=object())
    assert (tmp_path / "net.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "parallel"])
@pytest.mark.parametrize("name", ["adacof", "cdfi", "ldmvfi"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_published_file(name: str, wrap: str, zipped: bool, tmp_path: Path) -> None:
    """As the authors ship it: ``{"state_dict", "epoch"}``, bare, or from DataParallel."""
    net = toy(name)
    state = published(net)
    if wrap == "parallel":
        state = OrderedDict((f"module.{key}", tensor) for key, tensor in state.items())
    saved = state if wrap == "bare" else {"epoch": 50, "state_dict": state}
    torch.save(saved, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    blank = type(net)(net.config)
    assert checkpoints.load_published(blank, tmp_path / "net.pth") is blank
    same(net, blank)
    same(net, checkpoints.load_published(type(net)(net.config), state))


def test_published_mismatch() -> None:
    """Everything that does not fit is listed, and the net is left as it was."""
    net = toy("adacof")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = published(toy("adacof+"))
    del state["get_kernel.moduleConv1.0.bias"]
    state["get_kernel.moduleConv9.0.bias"] = torch.zeros(3)
    with pytest.raises(InputError) as error:
        checkpoints.load_published(net, state)
    text = str(error.value)
    assert "1 missing: get_kernel.moduleConv1.0.bias" in text
    assert "1 unknown: get_kernel.moduleConv9.0.bias" in text
    assert "get_kernel.moduleAlpha2.7.weight is (25, 4, 3, 3), expected (9, 4, 3, 3)" in text
    assert "\n" not in text
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    with pytest.raises(InputError, match="no state dict"):
        checkpoints.load_published(net, {"epoch": 3})


def test_bad_published_files(tmp_path: Path) -> None:
    net = toy("adacof")
    with pytest.raises(InputError, match="no such file"):
        checkpoints.load_published(net, tmp_path / "absent.pth")
    for content in (b"", b"not a checkpoint", b"hello", b"PK\x03\x04 broken"):
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"net\.pth: "):
            checkpoints.load_published(net, tmp_path / "net.pth")
    torch.save([1, 2], tmp_path / "net.pth")
    with pytest.raises(InputError, match="holds a list"):
        checkpoints.load_published(net, tmp_path / "net.pth")


class Foreign:
    """A class of someone's training code: pickled by name, absent where the file is read."""

    def __init__(self) -> None:
        self.history = {"loss": [1.0, 0.5]}


class Malicious:
    """Runs a command when unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {os.environ['VFIKIT_TEST_MARK']}",)


class MaliciousPython:
    def __reduce__(self):
        return eval, ("open(__import__('os').environ['VFIKIT_TEST_MARK'], 'w').close()",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", [Foreign, Malicious, MaliciousPython])
def test_foreign_classes_are_inert(beside: type, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lightning writes them: objects of any class beside the tensors. The tensors load, nothing runs."""
    mark = tmp_path / "ran"
    monkeypatch.setenv("VFIKIT_TEST_MARK", str(mark))
    net = toy("adacof")
    content = {
        "epoch": 7,
        "state_dict": published(net),
        "hyper_parameters": beside(),
        "callbacks": {beside: {"best": beside()}},
        "path": Path("/somewhere"),
    }
    monkeypatch.setattr(Foreign, "__module__", "lightning_of_someone")
    module = type(sys)("lightning_of_someone")
    module.Foreign = Foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning_of_someone", module)
    torch.save(content, tmp_path / "net.ckpt", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "lightning_of_someone")
    mark.unlink(missing_ok=True)
    blank = checkpoints.load_published(type(net)(net.config), tmp_path / "net.ckpt")
    same(net, blank)
    assert not mark.exists(), "loading the checkpoint ran its code"


def test_the_malicious_pickle_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would mean nothing if plain unpickling did not run it."""
    mark = tmp_path / "ran"
    monkeypatch.setenv("VFIKIT_TEST_MARK", str(mark))
    pickle.loads(pickle.dumps(MaliciousPython()))
    assert mark.exists()


@pytest.mark.parametrize("model", ["adacof", "cdfi", "ldmvfi"])
def test_shipped(model: str) -> None:
    assert checkpoints.shipped(model, "no-such-preset") is None
    found = checkpoints.shipped(model, "small")
    assert found is not None
    assert checkpoints.load(found)(*pair(8, 8)).isfinite().all()


def test_shipped_video_model() -> None:
    """Clips come through its latents alike, and all its networks denoise."""
    found = checkpoints.shipped("lvdm", "small")
    assert found is not None
    assert found.stat().st_size < 12e6
    model, clip = checkpoints.load(found), SyntheticClips(1, 32, seed=5).read(0, 16)
    with torch.no_grad():
        again = model.decode(model.encode(clip[None], mode=True))[0].clamp(0, 1)
        denoised = model(clip[None])[0].clamp(0, 1)  # from a fifth of all times, by all networks
    plain = clip.mean((0, 2, 3), keepdim=True).expand_as(clip)
    assert psnr(again, clip).mean() > psnr(plain, clip).mean() + 3
    assert psnr(denoised, clip).mean() > psnr(plain, clip).mean()
