import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vfikit import recipe
from vfikit.checkpoints import save
from vfikit.files import InputError
from vfikit.models import build


@dataclass(frozen=True)
class Config:
    name: str = "x"
    """A name."""


def call(monkeypatch, error):
    def main(config: Config) -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["recipe"])
    with pytest.raises(SystemExit) as stop:
        recipe.run(main, Config)
    return stop.value.code


@pytest.mark.parametrize("error", [InputError("a.png: no such\nfile"), OSError(28, "No space left on device")])
def test_what_a_user_can_mend_is_one_line_and_code_2(monkeypatch, capsys, error):
    assert call(monkeypatch, error) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


def test_an_interrupt_is_code_130(monkeypatch):
    assert call(monkeypatch, KeyboardInterrupt()) == 130


def test_a_defect_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe"])

    def main(config: Config) -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        recipe.run(main, Config)


def test_results_have_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe.out_folder("train", None).parts[:2] == ("runs", "train")
    assert recipe.out_folder("train", tmp_path / "mine") == tmp_path / "mine"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        recipe.out_folder("train", tmp_path / "file")


def test_load_model_reads_ours_and_names_what_is_wrong(tmp_path):
    net = build("adacof-compressed", "small")
    save(net, tmp_path / "net.safetensors")
    loaded = recipe.load_model("adacof-compressed", "small", tmp_path / "net.safetensors")
    assert loaded.config == net.config
    for arguments, message in [
        (("adacof", "small", tmp_path / "none.safetensors"), "no such file"),
        (("nothing", "small", None), "unknown model"),
        (("adacof", "tiny", None), "no preset"),
        (("adacof", "published", None), "no weights ship"),
    ]:
        with pytest.raises(ValueError, match=message):
            recipe.load_model(*arguments)
    with pytest.raises(InputError, match="device nowhere"):
        recipe.load_model("adacof-compressed", "small", Path(tmp_path / "net.safetensors"), "nowhere")


def test_layout_takes_convolutions_over_frames_too():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(4, 4, (3, 1, 1)))
    assert recipe.in_layout(net) is net
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[1].weight.is_contiguous()


FAULTS = """
import resource, torch
from vfikit import recipe
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        kept = [torch.ones(6 << 20) for _ in range(4)]  # 24 MiB each
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
recipe.keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have rules of their own")
def test_freed_memory_is_kept():
    made = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, made.stdout.split())
    assert after < before / 10
