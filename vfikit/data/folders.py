"""What lies in a folder of frames: its images by name, numbered ones in order, its folders in natural order.

A .zip of frames, as video inpainting's prepared data sets have them, is such a folder, too.
"""

import re
import zipfile
from pathlib import Path
from typing import TypeVar, cast

from ..files import InputError
from .images import is_image

Place = Path | zipfile.Path  # a file or folder on disk, or in an archive
Somewhere = TypeVar("Somewhere", bound=Place)


def opened(path: Path) -> Place:
    """A folder as it is; what lies in a .zip, or in its only folder."""
    if path.suffix.lower() != ".zip":
        return path
    try:
        root = zipfile.Path(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as a .zip of frames ({error})") from error
    inner = list(root.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else root


def natural(path: Place) -> list[tuple[int, int, str]]:
    """A sorting key that puts 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, hidden ones left out."""
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)


def images(folder: Somewhere) -> dict[str, Somewhere]:
    """The images of a folder by stem."""
    inside = cast("list[Somewhere]", sorted(folder.iterdir(), key=lambda path: path.name))
    return {path.stem: path for path in inside if path.is_file() and is_image(path)}


def numbered_frames(folder: Somewhere) -> list[Somewhere]:
    """The images of ``folder`` whose names end in a number, in the order of those numbers; empty if there is none."""
    if not folder.is_dir():
        return []
    frames = [path for path in images(folder).values() if re.search(r"\d+$", path.stem)]
    return sorted(frames, key=natural)


def clips(root: Path) -> list[Path]:
    """What in ``root`` holds numbered frames: folders, and .zip files."""
    inside = [*folders(root), *(path for path in sorted(root.glob("*.zip"), key=natural) if path.is_file())]
    return [path for path in inside if numbered_frames(opened(path))]
