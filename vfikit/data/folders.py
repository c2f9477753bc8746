"""What lies in a folder of frames: its images by name, numbered ones in order, its folders in natural order."""

import re
from pathlib import Path

from .images import is_image


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A sorting key that puts 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, hidden ones left out."""
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)


def images(folder: Path) -> dict[str, Path]:
    """The images of a folder by stem."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file() and is_image(path)}


def numbered_frames(folder: Path) -> list[Path]:
    """The images of ``folder`` whose names end in a number, in the order of those numbers; empty if there is none."""
    if not folder.is_dir():
        return []
    frames = [path for path in images(folder).values() if re.search(r"\d+$", path.stem)]
    return sorted(frames, key=natural)
