"""Image files as tensors: Pillow decodes, errors name the file."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import InputError, atomic

SUFFIXES = frozenset({".png", ".webp", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".gif"})


def is_image(path: Path | zipfile.Path) -> bool:
    """Whether the file's name says that it is an image (hidden files are not)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(path: str | Path | zipfile.Path) -> Tensor:
    """The picture in ``path`` as RGB, uint8 (3, H, W); transparency is dropped, 16-bit greys are scaled to 8 bits.

    Raises InputError, naming the file, where it is missing, no image, or damaged.
    """
    from PIL import Image

    place = Path(path) if isinstance(path, str) else path
    try:
        with place.open("rb") as stream, Image.open(stream) as file:
            if file.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it to 255
                grey = np.asarray(file, dtype=np.float64) * (255 / 65535)
                pixels = np.repeat(np.clip(grey + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            else:
                pixels = np.array(file.convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def write_image(frame: Tensor, path: str | Path) -> None:
    """Writes a frame (3, H, W) in [0, 1] as 8 bits, rounded to nearest, in the format that the suffix names."""
    from PIL import Image

    pixels = (frame.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary)
