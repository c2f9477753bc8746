"""The script as a user runs it, with a small random network."""

from pathlib import Path

import pytest
import torch

from vfikit import checkpoints
from vfikit.video import read_image, write_image

from ..models.test_e2fgvi import toy
from ..test_recipes_cli import Done, recipe
from ..video.clips import audio_packets, picture, write_video

SCRIPT = Path("recipes/inpaint.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    checkpoints.save(toy(), path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    hole = torch.zeros(3, 32, 48)
    hole[:, 8:16, 20:30] = 1
    write_image(hole, tmp_path / "mask.png")
    return tmp_path / "mask.png"


def inpaint(weights: Path, *arguments: object) -> Done:
    return recipe(SCRIPT, *map(str, arguments), "--checkpoint", str(weights), "--device", "cpu")


def test_a_video(tmp_path: Path, weights: Path, mask: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", [picture(k) for k in range(6)], audio=True)
    output = tmp_path / "out" / "clip.mp4"
    done = inpaint(weights, clip, mask, output)
    assert done.code == 0, done.stderr
    assert f"{output}: 6 frames in" in done.stdout
    assert audio_packets(output) == audio_packets(clip)
    assert [path.name for path in output.parent.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("references", "nearest"), [(("--references", "-1"), {"nearest": None}), (("--num-ref", "2"), {"num_ref": 2})]
)
def test_a_folder_is_what_the_model_makes(
    tmp_path: Path, weights: Path, mask: Path, references: tuple[str, ...], nearest: dict[str, int | None]
) -> None:
    (tmp_path / "in").mkdir()
    for k in range(5):
        write_image(picture(k), tmp_path / "in" / f"{k}.png")
    frames = torch.stack([read_image(tmp_path / "in" / f"{k}.png") for k in range(5)])[None]
    masks = (read_image(mask)[None, None, :1] > 0).float()
    rule = {"stride": 2, "step": 2, "dilation": 1, "crop": 6}
    flags = [part for name, value in rule.items() for part in (f"--{name}", value)]
    done = inpaint(weights, tmp_path / "in", mask, tmp_path / "out", *flags, *references)
    assert done.code == 0, done.stderr
    expected = checkpoints.load(weights).inpaint(frames, masks, **nearest, **rule)
    made = torch.stack([read_image(path) for path in sorted((tmp_path / "out").iterdir())])
    assert (made - expected[0]).abs().max() <= 0.51 / 255
    done = inpaint(weights, tmp_path / "in", mask, tmp_path / "half", "--precision", "bfloat16")
    assert done.code == 0, done.stderr


def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path: Path, weights: Path, mask: Path) -> None:
    clip, out = write_video(tmp_path / "clip.mp4", [picture(k) for k in range(3)]), tmp_path / "out"
    write_image(torch.zeros(3, 8, 8), tmp_path / "small.png")
    cases: list[tuple[list[object], str]] = [
        ([clip, tmp_path / "none.png", out / "o.mp4"], "none.png: no such file"),
        ([tmp_path / "none.mp4", mask, out / "o.mp4"], "none.mp4: no such file"),
        ([clip, tmp_path / "small.png", out / "o.mp4"], "the mask is 8x8, expected 48x32"),
        ([clip, mask, out / "o.xyz"], "output .xyz: unknown"),
        ([clip, mask, out / "o.mp4", "--stride", "0"], "stride is 0"),
        ([clip, mask, out / "o.mp4", "--references", "-2"], "--references is -2"),
        ([clip, mask, out / "o.mp4", "--num-ref", "-2"], "num_ref is -2"),
        ([clip, mask, out / "o.mp4", "--padding", "published"], "a side of 48 pixels cannot be mirrored"),
        ([clip, mask, out / "o.mp4", "--crop", "-1"], "--crop is -1"),
    ]
    for arguments, message in cases:
        done = inpaint(weights, *arguments)
        assert done.code == 2, (arguments, done)
        assert message in done.stderr, (arguments, done.stderr)
        assert len([line for line in done.stderr.splitlines() if line.strip() and "frames:" not in line]) == 1
        assert not out.exists() or not list(out.iterdir()), arguments


def test_a_model_that_does_not(tmp_path: Path, mask: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", [picture(0)])
    done = recipe(SCRIPT, str(clip), str(mask), str(tmp_path / "o.mp4"), "--model", "adacof")
    assert done.code == 2
    assert "adacof: does not inpaint" in done.stderr
