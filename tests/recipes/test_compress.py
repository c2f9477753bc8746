"""The compress recipe as a user runs it, in little."""

import json
import runpy
import sys
from dataclasses import replace

import pytest
import torch

from vfikit import checkpoints, compression, training
from vfikit.compress.cost import macs
from vfikit.diffusion import Sampling
from vfikit.models import build

from ..models.test_e2fgvi import toy as inpainting
from ..models.toys import toy

TINY = ["--pool", "6", "--batch-size", "2", "--crop", "32", "--limit", "2"]
TINY += ["--size", "64", "64", "--steps", "4", "--sparsify-steps", "5"]
BY_DENSITY = [*TINY, "--rule", "consumer"]  # measuring each cut takes longer than all the rest


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["compress.py", *map(str, arguments)])
        code = 0
        try:
            runpy.run_path("recipes/compress.py", run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "adacof.safetensors"
    checkpoints.save(build("adacof", "small", kernel_size=3), path)
    return path


@pytest.mark.parametrize(("route", "settings"), [("slice", TINY), ("rebuild", BY_DENSITY)], ids=["slice", "rebuild"])
def test_six_steps(run, tmp_path, weights, route, settings):
    code, out, err = run("--checkpoint", weights, "--route", route, "--ratio", 4, "--out", tmp_path / "out", *settings)
    assert code == 0, err
    for step in ("1/6 sparsify", "2/6 density", "3/6 plan", "4/6 resize", "5/6 fine-tune", "6/6 report"):
        assert step in out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    keys = {"parameters", "macs", "latency_ms", "peak_mib", "psnr", "ssim"}
    assert {"model", "route", "seed", "before", "after", "layers", "checkpoint"} <= content.keys()
    assert content["route"] == route
    assert content["before"].keys() == content["after"].keys() == keys
    assert len(content["layers"]) == 59
    net = checkpoints.load(content["checkpoint"])
    assert sum(p.numel() for p in net.parameters()) == content["after"]["parameters"]
    assert content["before"]["parameters"] / content["after"]["parameters"] >= 4
    assert net.interpolate(*torch.rand(2, 1, 3, 40, 33)).shape == (1, 3, 40, 33)
    assert out.splitlines()[-1].startswith(str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("compressed.safetensors", "report.json", "report.md", "density.png", "report.png")
    }


@pytest.mark.slow
@pytest.mark.parametrize("route", ["slice", "rebuild"])
def test_a_model_that_inpaints(run, tmp_path, route):
    checkpoints.save(inpainting(), tmp_path / "toy.safetensors")
    arguments = ("--model", "e2fgvi-hq", "--checkpoint", tmp_path / "toy.safetensors", "--route", route)
    code, _, err = run(*arguments, "--ratio", 1.5, "--speed", 0, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 0, err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["before"]["parameters"] / content["after"]["parameters"] >= 1.47
    parts = {each["name"].split(".")[0] for each in content["layers"] if each["width_after"] < each["width_before"]}
    assert {"propagation", "blocks", "decoder"} <= parts
    net = checkpoints.load(content["checkpoint"])
    assert sum(p.numel() for p in net.parameters()) == content["after"]["parameters"]
    assert net.inpaint(torch.rand(1, 3, 3, 20, 28), torch.ones(1, 1, 1, 20, 28)).shape == (1, 3, 3, 20, 28)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["slice", "rebuild"])
def test_a_model_that_samples(run, tmp_path, route):
    """Quality, cost and time are those of few steps, which the report says."""
    net = toy("ldmvfi")
    net.config = replace(net.config, sampling=Sampling(steps=7))
    checkpoints.save(net, tmp_path / "net.safetensors")
    given = ("--model", "ldmvfi", "--checkpoint", tmp_path / "net.safetensors", "--route", route, "--macs", 1.5)
    code, _, err = run(*given, "--rule", "consumer", "--round-to", 1, "--out", tmp_path / "out", *TINY)
    assert code == 0, err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["held_out"].endswith("sampled in at most 4 steps")
    assert content["measured"].endswith("sampling steps: 4")
    frames = [torch.zeros(1, 3, 64, 64)] * 2
    assert content["before"]["macs"] == macs(net, (*frames, 4)) < macs(net, frames)
    assert content["before"]["macs"] > content["after"]["macs"]
    assert checkpoints.load(content["checkpoint"]).interpolate(*torch.rand(2, 1, 3, 40, 33)).shape == (1, 3, 40, 33)


def test_crops_need_no_padding():
    recipe = runpy.run_path("recipes/compress.py")
    crops = {
        (m, p): recipe["check"](recipe["Config"](m, p))[1].crop
        for m in ("adacof", "ldmvfi")
        for p in ("small", "published")
    }
    assert crops == {
        ("adacof", "small"): 96,
        ("adacof", "published"): 96,
        ("ldmvfi", "small"): 128,
        ("ldmvfi", "published"): 256,
    }


def test_without_weights_it_trains_first_and_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "shipped", lambda model, preset: None)
    code, out, err = run("--model", "cdfi", "--train-steps", 2, "--ratio", 2, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 0, err
    assert "no shipped weights: training the full net for 2 steps first" in out
    assert (tmp_path / "out" / "compressed.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--data", "nowhere"], "nowhere"),
        (["--ratio", "0"], "--ratio is 0"),
        (["--ratio", "0.5"], "--ratio is 0.5, expected more than 1"),
        (["--size", "0", "64"], "--size is 0 64, expected at least 1"),
        (["--limit", "-1"], "--limit is -1, expected at least 0"),
        (["--steps", "0"], "--steps is 0"),
        (["--device", "nothing"], "device nothing"),
        (["--only", "nothing"], "--only nothing: adacof has no module of this path or name"),
    ],
)
def test_wrong_input_is_one_line(run, tmp_path, arguments, message):
    code, _, err = run("--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_place_for_no_results_is_said_before_scenes_are_made(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run("--out", tmp_path / "file", *TINY)
    assert code == 2
    assert "file: is a file, expected a folder for results" in err
    assert len(err.strip().splitlines()) == 1


def test_a_ratio_out_of_reach_leaves_no_results(run, tmp_path, weights):
    code, _, err = run("--checkpoint", weights, "--ratio", 500, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 2
    assert "the floors leave" in err.splitlines()[-1]
    assert not (tmp_path / "out" / "report.json").exists()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("hspg", "dhspg")]


@pytest.mark.parametrize("sparsifier", ["hesso", *SLOW])
def test_whole_channels_to_a_target_of_macs(run, tmp_path, weights, sparsifier):
    more = ("--sparsifier", sparsifier, "--macs", 3, "--out", tmp_path / "out")
    code, out, err = run("--checkpoint", weights, *more, *BY_DENSITY)
    assert code == 0, err
    assert f"1/6 sparsify: {sparsifier}" in out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert abs(content["before"]["macs"] / content["after"]["macs"] / 3 - 1) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("model", ["adacof+", "adacof-compressed", "adacof+-compressed"])
def test_other_forms_of_adacof(run, tmp_path, model):
    torch.manual_seed(0)
    checkpoints.save(build(model, "small"), tmp_path / "full.safetensors")
    chosen = ("--model", model, "--checkpoint", tmp_path / "full.safetensors", "--ratio", 2)
    code, _, err = run(*chosen, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 0, err
    small = checkpoints.load(tmp_path / "out" / "compressed.safetensors")
    assert (small.config.kernel_size, small.config.dilation) == ((11, 2) if "+" in model else (5, 1))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["before"]["parameters"] / content["after"]["parameters"] >= 2 / 1.02


@pytest.mark.parametrize("route", ["slice", "rebuild"])
def test_only_a_part_is_cut(run, tmp_path, weights, route):
    """--ratio is that of its parameters; --route rebuild trains nothing else anew."""
    chosen = ("--only", "estimator.encoder.4", "heads", "--ratio", 3, "--route", route, "--teacher", 0)
    code, _, err = run("--checkpoint", weights, *chosen, "--out", tmp_path / "out", *BY_DENSITY, "--lr", 1e-12)
    assert code == 0, err
    full, small = (checkpoints.load(path) for path in (weights, tmp_path / "out" / "compressed.safetensors"))
    parts = [[net.estimator.encoder[4], net.estimator.heads] for net in (full, small)]
    before, after = (sum(p.numel() for part in each for p in part.parameters()) for each in parts)
    assert abs(before / after / 3 - 1) <= 0.02
    for name, kept in full.estimator.decoder.state_dict().items():
        torch.testing.assert_close(small.estimator.decoder.state_dict()[name], kept)


def test_one_target(run, tmp_path, weights):
    code, _, err = run("--checkpoint", weights, "--macs", 3, "--ratio", 2, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 2
    assert "got several of --ratio, --macs and --latency, expected one target" in err


def test_features_are_distilled_too(run, tmp_path, weights):
    named = ("--features", "estimator.encoder.4", "estimator.upsample.3")
    code, _, err = run("--checkpoint", weights, "--ratio", 4, *named, "--out", tmp_path / "out", *BY_DENSITY)
    assert code == 0, err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(content["zero_by_step"]) == 5
    assert all(0 <= share < 1 for share in content["zero_by_step"])
    code, _, err = run(
        "--checkpoint", weights, "--features", "estimator.nothing", "--out", tmp_path / "no", *BY_DENSITY
    )
    assert code == 2
    assert "has no module 'estimator.nothing'" in err
    assert not (tmp_path / "no").exists()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(compression, "SAVE_EVERY", 2)
    arguments = ("--checkpoint", weights, "--ratio", 4, *BY_DENSITY)
    code, _, err = run(*arguments, "--out", tmp_path / "whole")
    assert code == 0, err

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        save = training.save_state
        patched.setattr(training, "save_state", lambda state, path: (save(state, path), stop()))
        assert run(*arguments, "--out", tmp_path / "parts")[0] == 130
    code, _, err = run(*arguments, "--out", tmp_path / "parts")
    assert code == 2
    assert "--resume" in err
    code, out, err = run("--resume", tmp_path / "parts")
    assert code == 0, err
    assert "1/6 sparsify" not in out
    whole, parts = (checkpoints.load(tmp_path / name / "compressed.safetensors") for name in ("whole", "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor)
    assert not (tmp_path / "parts" / "unfinished").exists()
    code, _, err = run("--resume", tmp_path / "parts")
    assert code == 2
    assert "expected the folder of a run that was stopped" in err


@pytest.mark.slow
@pytest.mark.parametrize("route", ["slice", "rebuild"])
def test_video_diffusion(run, tmp_path, route):
    """All networks of a toy LVDM at once: what comes out makes videos."""
    checkpoints.save(toy("lvdm"), tmp_path / "lvdm.safetensors")
    given = ("--model", "lvdm", "--checkpoint", tmp_path / "lvdm.safetensors", "--route", route, "--ratio", 2)
    sizes = ("--pool", 2, "--batch-size", 1, "--crop", 8, "--limit", 1, "--size", 8, 8)
    steps = ("--steps", 2, "--sparsify-steps", 2, "--speed", 0, "--rule", "consumer")
    code, _, err = run(*given, *sizes, *steps, "--out", tmp_path / "out")
    assert code == 0, err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["before"]["parameters"] / content["after"]["parameters"] >= 1.96
    net = checkpoints.load(content["checkpoint"])
    assert sum(p.numel() for p in net.parameters()) == content["after"]["parameters"]
    assert net.generate(num_frames=18, height=8, width=8).shape == (1, 18, 3, 8, 8)
