"""The script as a user runs it, with a small random network."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vfikit import checkpoints
from vfikit.diffusion import Sampling
from vfikit.models import build
from vfikit.models.ldmvfi import VQFIGAN
from vfikit.video import VideoReader, read_image, write_image

from ..models.toys import toy
from ..test_recipes_cli import Done, recipe
from ..video.clips import audio_packets, picture, write_video

SCRIPT = Path("recipes/interpolate.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoints.save(build("adacof", "small"), path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_video(tmp_path / "in" / "clip.mp4", [picture(k) for k in range(5)], audio=True)


def interpolate(weights: Path, *arguments: object) -> Done:
    return recipe(SCRIPT, *map(str, arguments), "--checkpoint", str(weights), "--device", "cpu")


def test_a_video_with_sound_is_doubled(tmp_path: Path, weights: Path, clip: Path) -> None:
    output = tmp_path / "out" / "clip.mp4"
    done = interpolate(weights, clip, output)
    assert done.code == 0, done.stderr
    assert f"{output}: 9 frames" in done.stdout
    with VideoReader(output) as reader:
        assert [frame.time for frame in reader] == [Fraction(k, 50) for k in range(9)]
    assert audio_packets(output) == audio_packets(clip)
    assert [path.name for path in output.parent.iterdir()] == ["clip.mp4"]


def test_a_rate_and_a_gif(tmp_path: Path, weights: Path, clip: Path) -> None:
    done = interpolate(weights, clip, tmp_path / "o.mkv", "--fps", "29.97", "--halvings", "1", "--no-audio")
    assert done.code == 0, done.stderr
    with VideoReader(tmp_path / "o.mkv") as reader:
        assert [frame.time for frame in reader] == [Fraction(round(1001 * k / 30), 1000) for k in range(6)]
    done = interpolate(weights, clip, tmp_path / "o.gif")
    assert done.code == 0, done.stderr
    with VideoReader(tmp_path / "o.gif") as reader:
        assert len(list(reader)) == 9


def test_two_images_and_a_folder(tmp_path: Path, weights: Path) -> None:
    for k in range(3):
        write_image(picture(k), tmp_path / f"{k}.webp")
    images = [tmp_path / f"{k}.webp" for k in range(3)]
    done = interpolate(weights, *images[:2], tmp_path / "middle.png")
    assert done.code == 0, done.stderr
    middle = read_image(tmp_path / "middle.png")
    net = checkpoints.load(weights)
    expected = net.interpolate(read_image(images[0])[None], read_image(images[1])[None])[0]
    assert float((middle - expected).abs().max()) <= 0.51 / 255
    done = interpolate(weights, *images, tmp_path / "folder", "--factor", "4", "--images", "webp")
    assert done.code == 0, done.stderr
    made = sorted((tmp_path / "folder").iterdir())
    assert [path.name for path in made] == [f"{k:06d}.webp" for k in range(9)]
    assert made[4].read_bytes() == images[1].read_bytes()


def test_tiles_and_half_precision_run(tmp_path: Path, weights: Path) -> None:
    for k in range(2):
        write_image(picture(k, 96, 70), tmp_path / f"{k}.png")
    pair = [tmp_path / f"{k}.png" for k in range(2)]
    for name, options in (("whole", []), ("tiled", ["--tile", "64"]), ("half", ["--half"])):
        done = interpolate(weights, *pair, tmp_path / f"{name}.png", *options)
        assert done.code == 0, done.stderr
    whole, tiled, half = (read_image(tmp_path / f"{name}.png") for name in ("whole", "tiled", "half"))
    assert float((tiled - whole).abs().mean()) < 0.02
    assert float((half - whole).abs().mean()) < 0.02


def test_a_model_that_samples(tmp_path: Path) -> None:
    """Steps, sampler and seed are what the network is called with, in tiles too."""
    torch.manual_seed(0)
    net = toy("ldmvfi")
    weights = tmp_path / "ldmvfi.safetensors"
    checkpoints.save(net, weights)
    frames = torch.stack([picture(k, 40, 64) for k in range(2)])
    images = [tmp_path / f"{k}.png" for k in range(2)]
    for frame, image in zip(frames, images):
        write_image(frame, image)
    frames = torch.stack([read_image(image) for image in images])
    sampling = Sampling("unipc", 3, net.config.sampling.eta, net.config.sampling.spacing)
    for seed in (0, 5):
        pair = net.prepare(frames[:1], frames[1:])
        latent = net.sample(pair, generator=torch.Generator().manual_seed(seed), sampling=sampling)
        expected = net.decode(latent, pair).clamp(0, 1)[0].detach()
        for tile in ("0", "64"):
            arguments = ("--model", "ldmvfi", "--steps", "3", "--sampler", "unipc", "--seed", str(seed), "--tile", tile)
            done = interpolate(weights, *images, tmp_path / "middle.png", *arguments)
            assert done.code == 0, done.stderr
            assert float((read_image(tmp_path / "middle.png") - expected).abs().max()) <= 0.51 / 255
            (tmp_path / "middle.png").unlink()


@pytest.mark.parametrize("tile", [0, 64])
def test_a_tile_of_a_frame_is_encoded_once(tmp_path: Path, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three frames in two gaps, filled by halving twice: one middle of each gap is encoded, too."""
    weights, calls = tmp_path / "ldmvfi.safetensors", []
    checkpoints.save(toy("ldmvfi"), weights)
    for k in range(3):
        write_image(picture(k, 40, 112), tmp_path / f"{k}.png")
    encode = VQFIGAN.encode
    monkeypatch.setattr(VQFIGAN, "encode", lambda net, frame: (calls.append(frame.shape), encode(net, frame))[1])
    images = [tmp_path / f"{k}.png" for k in range(3)]
    arguments = ("--model", "ldmvfi", "--factor", "4", "--cut", "inf", "--repeat", "0", "--tile", tile)
    done = interpolate(weights, *images, tmp_path / "out", *arguments)
    assert done.code == 0, done.stderr
    assert len(calls) == (3 + 2) * (2 if tile else 1)


def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path: Path, weights: Path, clip: Path) -> None:
    out = tmp_path / "out"
    image, small = tmp_path / "a.png", tmp_path / "b.png"
    write_image(picture(0), image)
    write_image(picture(0, 20, 20), small)
    (tmp_path / "text.mp4").write_text("no video")
    cases: list[tuple[list[object], str]] = [
        ([clip], "expected INPUT... OUTPUT"),
        ([tmp_path / "none.mp4", out / "o.mp4"], "none.mp4: no such file"),
        ([tmp_path / "text.mp4", out / "o.mp4"], "not a video that can be read"),
        ([image, small, out / "o.png"], "b.png: is 20x20, expected 48x32"),
        ([image, out / "o.png"], "one image, expected from two"),
        ([clip, out / "o.xyz"], "output .xyz: unknown"),
        ([clip, clip], "is an input"),
        ([clip, out / "o.webm"], "its audio (aac) can't be copied into .webm"),
        ([clip, out / "o.mp4", "--fps", "fast"], "--fps is 'fast'"),
        ([clip, out / "o.mp4", "--fps", "0"], "--fps is 0, expected more than 0"),
        ([clip, out / "o.mp4", "--factor", "33"], "--factor is 33, expected 2 to 32"),
        ([clip, out / "o.gif", "--factor", "4"], "a GIF holds at least 2/100 s"),
        ([clip, out / "o.mp4", "--tile", "8"], "--tile is 8"),
        ([clip, out / "o.mp4", "--model", "nothing"], "nothing"),
        ([clip, out / "o.mp4", "--steps", "4"], "--steps: got 4 for adacof, expected a model that samples"),
        ([clip, out / "o.mp4", "--seed", "1"], "--seed: got 1 for adacof"),
    ]
    for arguments, message in cases:
        done = interpolate(weights, *arguments)
        lines = [line for line in done.stderr.splitlines() if "frame" not in line or "error" in line]
        assert done.code == 2, (arguments, done)
        assert message in done.stderr, (arguments, done.stderr)
        assert len([line for line in lines if line.strip()]) == 1, (arguments, done.stderr)
        assert not out.exists() or not list(out.iterdir()), arguments
