"""Training Video-LDM on tiny clips: every stage and whose weights it moves, resuming, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from vfikit import checkpoints
from vfikit.models import build
from vfikit.tasks.video_ldm_stages import StageLoss
from vfikit.video import write_image

from ..models.toys import VIDEO_LDM
from ..test_recipes_cli import Done, recipe

SCRIPT = Path("recipes/train_video_ldm.py")
TINY = ("--size", "16", "16", "--frames", "2", "--batch-size", "1", "--device", "cpu", "--log-every", "1")
MOVES = {
    "autoencoder": "autoencoder.",
    "image": "generator.",
    "temporal": "generator.",
    "prediction": "generator.",
    "decoder": "decoder_mixers.",
    "interpolation": "interpolator.",
    "upsampler": "upsampler.denoiser.",
}


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


def train(folder: Path, *arguments: str, sizes: tuple[str, ...] = TINY) -> Done:
    AcceleratorState._reset_state(reset_partial_state=True)
    done = recipe(SCRIPT, *sizes, *arguments, folder=folder)
    assert done.code == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("stage", MOVES)
def test_every_stage_moves_its_own_network(stage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = build("video-ldm", "small")
    checkpoints.save(first, tmp_path / "first.safetensors")
    more = ("--discriminator-start", "1", "--discriminator-width", "8") if stage in ("autoencoder", "decoder") else ()
    sizes = ("--size", "32", "32", *TINY[3:]) if more or stage == "upsampler" else TINY
    arguments = ("--stage", stage, "--init", "first.safetensors", "--steps", "2", "--lr", "0.01", "--out", "run", *more)
    done = train(tmp_path, *arguments, sizes=sizes)
    assert done.stdout.splitlines()[-1] == "weights, state and log are in run"
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == 2
    assert ("discriminator" in logged[-1]) == bool(more)
    before = first.state_dict()
    after = checkpoints.load(tmp_path / "run" / "model.safetensors").state_dict()
    moved = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(MOVES[stage]) for name in moved)
    if stage in ("image", "temporal", "prediction"):
        in_space = {".spatial." in name or ".attentions." not in name for name in moved}
        assert in_space == {stage == "image"}


@pytest.mark.slow
def test_resumes_bit_exactly(tmp_path: Path) -> None:
    train(tmp_path, "--steps", "4", "--out", "whole", "--seed", "4")
    train(tmp_path, "--steps", "2", "--out", "half", "--seed", "4")
    train(tmp_path, "--resume", "half", "--steps", "4", sizes=())
    whole, half = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "half"))
    for name, value in whole["model"].items():
        assert torch.equal(value, half["model"][name]), name


def test_interpolation_refuses_clips_too_short_for_its_strides(tmp_path: Path) -> None:
    """A stride of 4 takes 17 frames."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(16):
            write_image(torch.rand(3, 16, 16), tmp_path / "data" / name / f"{index:02}.png")
    given = ("--stage", "interpolation", "--data", "data", "--steps", "1", "--out", "run")
    done = recipe(SCRIPT, *TINY, *given, "--batch-size", "8", folder=tmp_path)
    assert done.code == 2
    assert "has 16 frames, expected at least 17: 5, 4 apart" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_frames_in_bf16_with_checkpointing_are_trained(tmp_path: Path) -> None:
    done = train(tmp_path, "--mixed-precision", "bf16", "--gradient-checkpointing", "--steps", "3", "--out", "run")
    assert "skipped" not in done.stdout + done.stderr
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [0], StageLoss.forward

    def sometimes(self, *arguments):  # type: ignore[no-untyped-def]
        calls[0] += 1
        losses, made = plain(self, *arguments)
        return ({**losses, "loss": losses["loss"] * torch.nan} if calls[0] == 2 else losses), made

    monkeypatch.setattr(StageLoss, "forward", sometimes)
    done = train(tmp_path, "--steps", "3", "--out", "run")
    assert "step 2: loss nan, gradient nan: skipped" in done.stdout + done.stderr
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert all(value.isfinite().all() for part in ("model", "average") for value in state[part].values())


def test_prediction_needs_a_model_that_is_told_of_known_frames(tmp_path: Path) -> None:
    bare = replace(VIDEO_LDM, unet=replace(VIDEO_LDM.unet, planes=0), interpolation=False, upsampling=False)
    checkpoints.save(build(bare), tmp_path / "bare.safetensors")
    arguments = ("--stage", "prediction", "--init", "bare.safetensors", "--out", "run")
    done = recipe(SCRIPT, *TINY, *arguments, folder=tmp_path)
    assert done.code == 2
    assert "this model is not told of known frames (its planes are 0)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--preset", "large"), "no preset 'large'"),
        (("--init", "none.safetensors"), "none.safetensors: no such file"),
        (("--stage", "decoder", "--discriminator-start", "0"), "frames of 16 pixels, expected at least 24"),
        (("--stage", "decoder"), "frames of 16 pixels, expected at least 24"),
        (("--stage", "decoder", "--discriminator-start", "-1", "--data", "nowhere"), "nowhere: no such folder"),
        (
            ("--stage", "decoder", "--size", "32", "32", "--crop", "30"),
            "frames of 30 x 30 pixels, expected multiples of 4",
        ),
        (("--stage", "autoencoder", "--size", "16", "18"), "frames of 16 x 18 pixels, expected multiples of 4"),
        (("--stage", "upsampler", "--crop", "10"), "frames of 10 x 10 pixels, expected multiples of 4"),
        (("--steps", "0"), "--steps is 0, expected at least 1"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = recipe(SCRIPT, *TINY, *arguments, folder=tmp_path)
    assert done.code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
