import platform
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vfikit import recipe
from vfikit.checkpoints import save
from vfikit.files import InputError
from vfikit.models import build

from .models.test_e2fgvi import toy


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


@pytest.mark.parametrize(("kept", "asked"), [("e2fgvi", "e2fgvi-hq"), ("e2fgvi-hq", "e2fgvi")])
def test_load_model_tells_models_of_one_class_apart(tmp_path, kept, asked):
    save(toy(kept), tmp_path / "net.safetensors")
    assert type(recipe.load_model(kept, "small", tmp_path / "net.safetensors")).__name__ == "E2FGVINet"
    with pytest.raises(InputError, match=f"holds the network of {kept}, expected that of {asked}$"):
        recipe.load_model(asked, "small", tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("small", "does not fit adacof, preset small, try --preset published (99 of another shape: get_kernel."),
        ("published", "does not fit adacof, preset published (118 missing, 2 unknown: get_kernel."),
    ],
)
def test_a_published_file_that_does_not_fit_is_a_short_line(tmp_path, preset, said):
    """As published weights meet the default preset, small."""
    with torch.device("meta"):
        net = build("adacof", "published")
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    state = {theirs: torch.zeros(()).expand(shapes[ours]) for theirs, ours in net.published_keys()}
    torch.save(state if preset == "small" else {"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(InputError) as error:
        recipe.load_model("adacof", preset, tmp_path / "net.pth")
    text = str(error.value)
    assert said in text
    assert text.count("get_kernel.") == 8
    assert len(text) < 800
    assert text.endswith(f"and {91 if preset == 'small' else 112} more)")


def test_load_model_tells_adacof_from_adacof_plus(tmp_path):
    """By the kernel: widths may be any, as compressing leaves them, and so may be a kernel of one's own."""
    shipped = recipe.checkpoints.SHIPPED
    assert recipe.load_model("adacof", "published", shipped / "adacof-small-compressed.safetensors")
    for name in ("adacof+", "adacof+-compressed"):
        with pytest.raises(
            InputError, match=r"holds the network of adacof or adacof-compressed, expected that of adac"
        ):
            recipe.load_model(name, "small", shipped / "adacof-small-compressed.safetensors")
    save(build("adacof", "small", kernel_size=3), tmp_path / "own.safetensors")
    assert recipe.load_model("adacof+", "small", tmp_path / "own.safetensors").config.kernel_size == 3


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


@dataclass(frozen=True)
class Numbers:
    lr: float = 0.1
    """A rate."""
    seed: int = 0
    """Of noise."""


def test_no_number_no_seed_and_no_memory_are_one_line(monkeypatch, capsys):
    def main(config: Numbers) -> None:
        torch.empty(2**58)

    for arguments, message in [
        (["--lr", "nan"], "--lr is nan, expected a number"),
        (["--seed", "-1"], "--seed is -1, expected 0 to 4294967295"),
        (["--seed", str(2**70)], f"--seed is {2**70}, expected 0 to 4294967295"),
        ([], "can't allocate memory"),
    ]:
        monkeypatch.setattr("sys.argv", ["recipe", *arguments])
        with pytest.raises(SystemExit) as stop:
            recipe.run(main, Numbers)
        printed = capsys.readouterr().err
        assert stop.value.code == 2
        assert message in printed
        assert printed.count("\n") == 1


def test_another_defect_of_torch_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe"])

    def main(config: Config) -> None:
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError):
        recipe.run(main, Config)


def test_a_count_is_at_least_so_much():
    config = SimpleNamespace(size=(64, 0), validate_every=0, crop=None)
    recipe.at_least(config, 0, "size", "validate_every", "crop", "absent")
    with pytest.raises(InputError, match="--size is 64 0, expected at least 1"):
        recipe.at_least(config, 1, "crop", "size")
    with pytest.raises(InputError, match="--validate-every is 0, expected at least 1"):
        recipe.at_least(config, 1, "validate_every")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60", Fraction(60)),
        ("23.976", Fraction(24000, 1001)),
        ("60000/1001", Fraction(60000, 1001)),
        ("1/3600", Fraction(1, 3600)),
    ],
)
def test_a_frame_rate(text, rate):
    assert recipe.frame_rate("--fps", text) == rate


def test_a_frame_rate_fits_into_containers():
    rate = recipe.frame_rate("--fps", "12.3456789012345")
    assert max(rate.numerator, rate.denominator) < 2**31
    assert abs(float(rate) - 12.3456789012345) < 1e-4
    for text in ("0", "-1", "1e12", "nan", "inf", "1/0"):
        with pytest.raises(InputError, match="--fps is"):
            recipe.frame_rate("--fps", text)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    save(build("adacof", "small"), tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"holds the network of adacof or adacof.+, expected that of cdfi"):
        recipe.load_model("cdfi", "small", tmp_path / "net.safetensors")


def test_a_device_has_to_compute():
    with pytest.raises(InputError, match="device meta"):
        recipe.check_device("meta")


def test_a_log_goes_on_after_the_saved_step(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6, "ps')
    recipe.StepLog(path).go_on_after(3)
    assert path.read_text() == '{"step": 2}\n'
    recipe.StepLog(tmp_path / "none.jsonl").go_on_after(3)
    assert not (tmp_path / "none.jsonl").exists()
