"""The script as a user runs it, with a toy network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vfikit import checkpoints
from vfikit.models import build
from vfikit.video import VideoReader, read_image, write_image

from ..models.toys import LVDM, VIDEO_LDM, toy
from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/generate.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    checkpoints.save(toy("lvdm"), path)
    return path


def generate(*arguments: object) -> Done:
    return recipe(SCRIPT, *map(str, arguments), "--device", "cpu")


def test_a_video_and_its_sheet(tmp_path: Path, weights: Path) -> None:
    """The same seed makes the same file."""
    for name in ("a", "b"):
        done = generate(tmp_path / f"{name}.mp4", "--checkpoint", weights, "--num-frames", 18, "--sheet", 4)
        assert done.code == 0, done.stderr
    assert f"{tmp_path}/b.mp4: 18 frames" in done.stdout
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert len(list(reader)) == 18
    assert read_image(tmp_path / "a.png").shape == (3, 8, 48)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.png", "b.mp4", "b.png"]


def test_from_an_image_into_a_folder(tmp_path: Path, weights: Path) -> None:
    write_image(torch.rand(3, 20, 30), tmp_path / "begin.png")
    out = tmp_path / "frames"
    done = generate(out, "--begin", tmp_path / "begin.png", "--checkpoint", weights, "--num-frames", 5, "--sheet", 0)
    assert done.code == 0, done.stderr
    assert len(list(out.iterdir())) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("o.xyz",), "output .xyz: unknown, expected one of .mp4"),
        (("o.mp4", "--model", "adacof"), "AdaCoFNet makes no videos"),
        (("o.mp4", "--num-frames", "0"), "--num-frames is 0, expected at least 1"),
        (("o.mp4", "--fps", "x"), "--fps is 'x', expected a number such as"),
        (("o.mp4", "--fps", "1e12"), "--fps is 1e12, expected more than 0 and at most 1000000"),
        (("o.gif", "--fps", "60"), "60 frames a second, a GIF holds at most 50"),
        (("o.mp4", "--sheet", "-1"), "--sheet is -1, expected at least 0"),
        (("o.mp4", "--preset", "published"), "no weights ship with vfikit; give --checkpoint"),
        (("o.mp4", "--begin", "none.png", "--checkpoint", "TOY"), "none.png"),
        (("o.mp4", "--text-encoder", "openai/clip"), "--text-encoder: reads the prompt, expected --prompt beside it"),
        (("o.mp4", "--prompt", "a cat", "--checkpoint", "TOY"), "got a prompt, but this model reads no text"),
        (("o.mp4", "--height", "9", "--checkpoint", "TOY"), "9 x 12 pixels, expected multiples of 4 and 4"),
    ],
)
def test_wrong_input(tmp_path: Path, weights: Path, arguments: tuple[str, ...], message: str) -> None:
    """One line, code 2, nothing written."""
    given = [str(weights) if a == "TOY" else a for a in arguments[1:]]
    done = generate(tmp_path / arguments[0], *given)
    assert done.code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_networks_of_several_checkpoints(tmp_path: Path, weights: Path) -> None:
    paths, state = [], toy("lvdm").state_dict()
    for stage in ("prediction", "interpolation"):
        other: dict[str, Any] = {s: None for s in ("short", "prediction", "interpolation") if s != stage}
        config = replace(LVDM, **other)
        paths.append(tmp_path / f"{stage}.safetensors")
        model = build(config)
        model.load_state_dict({name: state[name] for name in model.state_dict()})
        checkpoints.save(model, paths[-1])
    done = generate(tmp_path / "o.mp4", "--checkpoint", *paths, "--num-frames", 6, "--sheet", 0)
    assert done.code == 0, done.stderr
    with VideoReader(tmp_path / "o.mp4") as reader:
        assert len(list(reader)) == 6


def test_a_clip_goes_on(tmp_path: Path, weights: Path) -> None:
    """The last frames of it, and at least one that is new."""
    with_clip = ("--begin", tmp_path / "a.mp4", "--checkpoint", weights, "--sheet", 0)
    assert generate(tmp_path / "a.mp4", "--checkpoint", weights, "--num-frames", 16, "--sheet", 0).code == 0
    done = generate(tmp_path / "b.mp4", *with_clip)
    assert done.code == 2
    assert "--num-frames is 16, 16 of them those of --begin, expected more" in done.stderr
    assert not (tmp_path / "b.mp4").exists()
    done = generate(tmp_path / "b.mp4", *with_clip, "--num-frames", 9, "--begin-frames", 8)
    assert done.code == 0, done.stderr
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert len(list(reader)) == 9


def test_samplers_by_name(tmp_path: Path, weights: Path) -> None:
    made = []
    for sampler in (None, "ddim", "dpm++"):
        out = tmp_path / f"{sampler}.mp4"
        given = () if sampler is None else ("--sampler", sampler)
        done = generate(out, "--checkpoint", weights, "--num-frames", 4, "--sheet", 0, "--steps", 3, *given)
        assert done.code == 0, done.stderr
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]
    assert generate(tmp_path / "o.mp4", "--sampler", "euler").code == 2


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "aligned.safetensors"
    checkpoints.save(build(VIDEO_LDM), path)
    return path


@pytest.mark.parametrize(
    ("frames", "arguments", "size"),
    [
        (3, (), (12, 16)),
        (7, (), (12, 16)),  # longer than a window
        (7, ("--interpolations", "1"), (12, 16)),
        (2, ("--upsample",), (48, 64)),
        (5, ("--begin", "BEGIN", "--context-guidance-scale", "2"), (12, 16)),
    ],
)
def test_every_mode_of_video_ldm(
    frames: int, arguments: tuple[str, ...], size: tuple[int, int], tmp_path: Path, aligned: Path
) -> None:
    write_image(torch.rand(3, 16, 12), tmp_path / "begin.png")
    given = [tmp_path / "begin.png" if argument == "BEGIN" else argument for argument in arguments]
    out = tmp_path / "out.mp4"
    done = generate(out, "--model", "video-ldm", "--checkpoint", aligned, "--num-frames", frames, "--sheet", 0, *given)
    assert done.code == 0, done.stderr
    with VideoReader(out) as reader:
        assert len(list(reader)) == frames
        assert (reader.info.width, reader.info.height) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--context-guidance-scale", "3"), "context_guidance_scale, but one window knows no frames"),
        (("--begin", "BEGIN", "--num-frames", "1"), "expected more"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, aligned: Path
) -> None:
    write_image(torch.rand(3, 16, 12), tmp_path / "begin.png")
    given = [tmp_path / "begin.png" if argument == "BEGIN" else argument for argument in arguments]
    done = generate(tmp_path / "o.mp4", "--model", "video-ldm", "--checkpoint", aligned, "--num-frames", 4, *given)
    assert done.code == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["begin.png"]


def test_what_a_model_cannot_do_is_said(tmp_path: Path, weights: Path) -> None:
    done = generate(tmp_path / "o.mp4", "--checkpoint", weights, "--interpolations", 1)
    assert done.code == 2
    assert "LVDMNet takes no interpolations" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_never_overwrites_what_the_video_begins_with(tmp_path: Path, weights: Path) -> None:
    write_image(torch.rand(3, 8, 12), tmp_path / "sky.png")
    before = (tmp_path / "sky.png").read_bytes()
    given = (tmp_path / "sky.mp4", "--begin", tmp_path / "sky.png", "--checkpoint", weights, "--num-frames", 4)
    done = generate(*given)
    assert done.code == 2
    assert "sky.png: is an input, expected another place" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sky.png"]
    assert generate(*given, "--sheet", 0).code == 0
    assert (tmp_path / "sky.png").read_bytes() == before
