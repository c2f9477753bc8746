"""Still images in and out, and a folder of them as a clip."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import InputError
from .colour import from_rgb, over_white
from .frames import SRGB, Frame, Info

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
LOSSLESS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}


def read_image(path: str | Path) -> Tensor:
    """An image as float32 (3, H, W) in [0, 1], upright; 16-bit PNG in full depth, alpha laid over white.

    Raises ``InputError`` where there is no such file or it can't be decoded whole.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            if image.format == "PNG" and _png_bits(path) == 16:
                return _read_deep(path)
            pictures = getattr(image, "n_frames", 1)
            if pictures > 1:
                raise InputError(f"{path}: holds {pictures} pictures, expected one; give it as a video or .gif")
            if image.mode.startswith(("I", "F")):
                raise InputError(
                    f"{path}: pixels are of mode {image.mode}, expected 8-bit colour or grey, or 16-bit PNG"
                )
            upright = ImageOps.exif_transpose(image)
            alpha = "A" in upright.getbands() or "transparency" in upright.info
            array = np.asarray(upright.convert("RGBA" if alpha else "RGB"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an image that can be read ({error})") from error
    return over_white(torch.from_numpy(array / 255).permute(2, 0, 1)).contiguous()


def write_image(rgb: Tensor, path: str | Path, bits: int = 8) -> None:
    """Writes float (3, H, W) in [0, 1], rounded; ``bits`` 16 where the suffix is .png, else 8. Not atomic by itself."""
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() == ".png" and bits > 8:
        import av

        with av.open(f"file:{path}", "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = rgb.shape[2], rgb.shape[1], "rgb48be"
            container.mux(stream.encode(from_rgb(rgb, "rgb48be", SRGB)))
            container.mux(stream.encode(None))
        return
    array = (rgb.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(array)).save(path, **LOSSLESS.get(path.suffix.lower(), {}))


def numbered(folder: Path) -> list[Path]:
    """The images of a folder, sorted as numbers where names hold numbers: 2.png comes before 10.png.

    Hidden ones (macOS writes a ._2.png beside 2.png on foreign disks) are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    seen = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted((path for path in seen if path.suffix.lower() in IMAGES), key=natural_key)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]


class ImageReader:
    """Images as a clip of ``rate`` frames a second: ``info``, and frames by iterating, read when asked for.

    ``Frame.native`` is the path, where the file shows just what ``rgb`` holds (no alpha, no rotation by EXIF). All must
    be of the first one's size; ``InputError`` names the one that is not.
    """

    def __init__(self, paths: Sequence[Path], rate: Fraction):
        if not paths:
            raise InputError("no images given")
        self.paths = list(paths)
        first = read_image(self.paths[0])
        deep = self.paths[0].suffix.lower() == ".png" and _png_bits(self.paths[0]) == 16
        self.info = Info(
            width=first.shape[2],
            height=first.shape[1],
            pixel_format="rgb48be" if deep else "rgb24",
            bits=16 if deep else 8,
            rate=rate,
            time_base=1 / rate,
            colour=SRGB,
            count=len(self.paths),
        )

    def __enter__(self) -> "ImageReader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            native = path if _is_plain(path) else None
            yield Frame(index / self.info.rate, 1 / self.info.rate, lambda path=path: self._read(path), native)  # type: ignore[misc]

    def _read(self, path: Path) -> Tensor:
        rgb = read_image(path)
        if rgb.shape != (3, self.info.height, self.info.width):
            size, expected = f"{rgb.shape[2]}x{rgb.shape[1]}", f"{self.info.width}x{self.info.height}"
            raise InputError(f"{path}: is {size}, expected {expected} like {self.paths[0]}")
        return rgb


def _is_plain(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) != 1
            return not (turned or "A" in image.getbands() or "transparency" in image.info)
    except (OSError, SyntaxError):
        return False  # reading it will say what is wrong


def _png_bits(path: Path) -> int:
    with open(path, "rb") as file:
        header = file.read(25)
    return header[24] if len(header) == 25 and header[12:16] == b"IHDR" else 8


def _read_deep(path: Path) -> Tensor:
    """Pillow reads 16-bit colour as 8-bit; libav does not."""
    import av

    from .colour import to_rgb

    try:
        with av.open(f"file:{path}", format="png_pipe") as container:
            frame = next(container.decode(video=0), None)
    except av.FFmpegError as error:
        raise InputError(f"{path}: not an image that can be read ({error.strerror})") from error
    if frame is None:
        raise InputError(f"{path}: not an image that can be read")
    return to_rgb(frame, SRGB)
