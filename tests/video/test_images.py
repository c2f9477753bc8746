from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vfikit.files import InputError
from vfikit.video import ImageReader, read_image, write_image
from vfikit.video.images import natural_key, numbered

from .clips import picture


@pytest.mark.parametrize(
    ("suffix", "bits", "tolerance"),
    [
        (".png", 8, 0.51 / 255),
        (".png", 16, 0.51 / 65535),
        (".webp", 8, 0.51 / 255),
        (".bmp", 8, 0.51 / 255),
        (".tif", 8, 0.51 / 255),
        (".ppm", 8, 0.51 / 255),
        (".jpg", 8, 6 / 255),
    ],
)
def test_write_and_read(tmp_path: Path, suffix: str, bits: int, tolerance: float) -> None:
    rgb = picture(3, 31, 17)
    write_image(rgb, tmp_path / f"a{suffix}", bits)
    assert float((read_image(tmp_path / f"a{suffix}") - rgb).abs().max()) <= tolerance


def test_hidden_files_are_no_frames(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        write_image(picture(0), tmp_path / name)
    (tmp_path / "._1.png").write_bytes(b"what macOS keeps beside a file")
    assert [path.name for path in numbered(tmp_path)] == ["1.png", "2.png"]


def test_names_are_sorted_as_numbers(tmp_path: Path) -> None:
    names = ["10.png", "9.png", "frame2.jpg", "frame10.jpg", "a1b10.png", "a1b9.png", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    expected = ["9.png", "10.png", "a1b9.png", "a1b10.png", "frame2.jpg", "frame10.jpg"]
    assert [path.name for path in numbered(tmp_path)] == expected
    assert natural_key(Path("007.png")) > natural_key(Path("6.png"))
    with pytest.raises(InputError, match="no such folder"):
        numbered(tmp_path / "none")


def test_rotation_grey_palette_and_alpha(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 8, 4)
    Image.fromarray(np.full((4, 8), 51, np.uint8)).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), torch.full((3, 4, 8), 0.2))
    Image.new("P", (8, 4), 0).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (3, 4, 8)
    Image.new("RGBA", (8, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png"), torch.ones(3, 4, 8))
    frames = list(ImageReader([tmp_path / "clear.png", tmp_path / "palette.png"], Fraction(24)))
    assert [frame.native for frame in frames] == [None, tmp_path / "palette.png"]  # only what rgb shows is copied


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((4, 8), np.float32)).save(tmp_path / "float.tif")
    one, two = Image.new("RGB", (8, 4)), Image.new("RGB", (8, 4), (255, 0, 0))
    one.save(tmp_path / "two.webp", save_all=True, append_images=[two])
    for name, message in (
        ("none.png", "no such file"),
        ("text.png", "not an image that can be read"),
        ("float.tif", "pixels are of mode F"),
        ("two.webp", "holds 2 pictures, expected one"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)
