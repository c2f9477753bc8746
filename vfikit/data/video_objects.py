"""YouTube-VOS and DAVIS: where their clips lie, which are for training, and their objects as holes.

- DAVIS: frames in ``JPEGImages/480p/NAME/00000.jpg``, objects in ``Annotations/480p/NAME/00000.png``, parts in
  ``ImageSets/2017/train.txt`` and ``val.txt`` (or 2016).
- YouTube-VOS: ``train/JPEGImages/ID/`` and ``train/Annotations/ID/``; the test part is ``test`` or ``valid``.
- Prepared for video inpainting: ``JPEGImages/NAME.zip`` or ``NAME/``, parts in ``train.json`` and ``test.json``, whose
  keys (or items) are the names; holes to measure with in ``test_masks/NAME/``.
"""

import json
import random
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..files import InputError
from .folders import clips, folders, images, numbered_frames
from .images import read_image


def sequences(root: Path, split: str) -> list[Path]:
    """The clips of a part ("train", "test" or "all") of a data set at ``root``, folders or .zip files.

    Empty where it has no such layout.
    """
    if split == "all":
        return sorted({*sequences(root, "train"), *sequences(root, "test")})
    for part in ("train",) if split == "train" else ("test", "valid"):
        if (root / part / "JPEGImages").is_dir():
            return clips(root / part / "JPEGImages")
    inner = root / "JPEGImages" / "480p" if (root / "JPEGImages" / "480p").is_dir() else root / "JPEGImages"
    names = _named(root, split) if inner.is_dir() else None
    return [] if names is None else [folder for folder in clips(inner) if folder.stem in names]


def _named(root: Path, split: str) -> set[str] | None:
    """The names that a part's list has; None where there is no list."""
    lists = [root / "ImageSets" / year / f"{'train' if split == 'train' else 'val'}.txt" for year in ("2017", "2016")]
    for path in lists:
        if path.is_file():
            return set(path.read_text(encoding="utf-8").split())
    path = root / f"{split}.json"
    if not path.is_file():
        return None
    try:
        return set(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a list of clips ({error})") from error


def test_masks(clip: Path) -> list[Path]:
    """The holes that a clip of a prepared data set, ``JPEGImages/NAME``, is measured with, in order; or none."""
    folder = clip.parent.parent / "test_masks" / clip.stem
    return numbered_frames(folder) if clip.parent.name == "JPEGImages" else []


class ObjectMasks:
    """The objects of a data set's annotations, or of folders of masks, as holes that move as objects do."""

    def __init__(self, root: str | Path, split: str = "train") -> None:
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder, expected YouTube-VOS, DAVIS, or folders of masks")
        found = [Path(str(folder).replace("JPEGImages", "Annotations")) for folder in sequences(root, split)]
        found = [folder for folder in found if folder.is_dir()] or folders(root)
        self.folders = [folder for folder in found if images(folder)]
        if not self.folders:
            raise InputError(f"{root}: no masks found, expected Annotations, or folders of masks")

    def draw(self, length: int, height: int, width: int, draw: random.Random) -> Tensor:
        """A run of one clip's objects, mirrored or not: (T, 1, H, W) of 0 and 1; the last mask repeats if need be."""
        files = list(images(draw.choice(self.folders)).values())
        start = draw.randint(0, max(0, len(files) - length))
        chosen = [files[min(start + step, len(files) - 1)] for step in range(length)]
        masks = torch.stack([(read_image(path) > 0).any(0, keepdim=True).float() for path in chosen])
        masks = functional.interpolate(masks, (height, width), mode="nearest-exact")
        return masks.flip(-1) if draw.random() < 0.5 else masks
