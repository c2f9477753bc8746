"""Triplets in folders: the layouts in which the interpolation data sets are published.

| layout | files |
| --- | --- |
| Vimeo-90K triplets | ``sequences/NNNNN/NNNN/im{1,2,3}.png`` with ``tri_trainlist.txt`` and ``tri_testlist.txt`` |
| Vimeo-90K septuplets | ``sequences/NNNNN/NNNN/im{1..7}.png`` with ``sep_*list.txt``: 3 and 5, target 4 |
| BVI-DVC quintuplets | ``quintuplets/``: images of five tiles side by side, frames 1, 3, 5, 7, 4: 3 and 5, target 4 |
| UCF101-DVF | ``N/frame_00.png``, ``N/frame_01_gt.png``, ``N/frame_02.png`` |
| UCF101 (QVI) | ``N/frame1.png``, ``N/framet.png``, ``N/frame2.png`` |
| Middlebury | ``SCENE/frame10.png``, ``frame10i11.png``, ``frame11.png``; or ``other-data``, ``other-gt-interp`` |
| SNU-FILM | ``test-LEVEL.txt`` (easy, medium, hard, extreme) and the frames that they name |
| DAVIS as published | ``JPEGImages/480p/NAME/00000.jpg`` ...: see ``protocols`` |
| plain | ``NAME/im1``, ``im2``, ``im3`` of any image format, or one such folder |
| clips | a folder of numbered frames, or a folder of such folders (``NAME`` or ``NAME/frames``): consecutive triplets |

Every reader takes any image format.
"""

from pathlib import Path

from ..files import InputError
from .folders import folders, images, natural, numbered_frames
from .protocols import LEVELS, PROTOCOLS
from .triplets import Paths

NAMES = (
    ("im1", "im2", "im3"),
    ("frame_00", "frame_01_gt", "frame_02"),
    ("frame1", "framet", "frame2"),
    ("frame10", "frame10i11", "frame11"),
)
MIDDLEBURY = NAMES[3]
VIMEO = {"tri": NAMES[0], "sep": ("im3", "im4", "im5")}  # by their lists
SPLIT_FOLDERS = (("other-data", "other-gt-interp"), ("input", "gt"))
SPLITS = ("train", "test", "all")
QUINTUPLETS = "quintuplets"


def find_triplets(root: str | Path, split: str = "all", *, explicit: bool = True) -> list[Paths]:
    """The triplets under ``root``, in natural order; the layout is detected.

    ``split`` is ``"train"``, ``"test"``, ``"all"`` or a name of ``protocols.PROTOCOLS``. Vimeo-90K goes by its two
    lists, whole, the last line included. Layouts without lists hold out every third folder (positions 0, 3, 6, ... in
    natural order): ``"test"`` is those, ``"train"`` the others; where the caller did not ask (``explicit=False``),
    they are taken whole. Raises InputError for a missing folder, an unknown layout, a triplet with a missing file.
    """
    root = Path(root)
    if split not in SPLITS and split not in PROTOCOLS:
        raise InputError(f"{root}: part is {split!r}, expected one of {', '.join((*SPLITS, *PROTOCOLS))}")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected triplets or clips")
    if split in PROTOCOLS:
        return [paths for group in PROTOCOLS[split](root) for paths in group]
    if (root / "sequences").is_dir():
        return _vimeo(root, split)
    groups = _published(root) or _split_folders(root) or _triplet_folders(root) or _clips(root)
    if not groups:
        raise InputError(
            f"{root}: no triplets found, expected sequences/, quintuplets/, test-LEVEL.txt, NAME/im1 im2 im3, "
            "NAME/frame_00 frame_01_gt frame_02, NAME/frame1 framet frame2, SCENE/frame10 frame10i11 frame11, or "
            "folders of at least three numbered frames"
        )
    if explicit and split != "all":
        if len(groups) < 2:
            raise InputError(f"{root}: one folder of frames cannot be split into train and test, expected several")
        groups = [group for i, group in enumerate(groups) if (i % 3 == 0) == (split == "test")]
    return [paths for group in groups for paths in group]


def _vimeo(root: Path, split: str) -> list[Paths]:
    parts = ("train", "test") if split == "all" else (split,)
    kind = "sep" if any(root.glob("sep_*list.txt")) else "tri"
    triplets = []
    for part in parts:
        listing = root / f"{kind}_{part}list.txt"
        if not listing.is_file():
            raise InputError(
                f"{listing}: no such file, expected Vimeo-90K's list of {part} triplets (tri_) or septuplets (sep_)"
            )
        for line in listing.read_text(encoding="utf-8").split():
            folder = root / "sequences" / line
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder, but {listing.name} names it")
            triplets.append(_complete(line, images(folder), VIMEO[kind], folder))
    return triplets


def _complete(name: str, found: dict[str, Path], stems: tuple[str, str, str], folder: Path) -> Paths:
    for stem in stems:
        if stem not in found:
            raise InputError(f"{folder / stem}.*: no such image, expected {', '.join(stems)} in each folder")
    first, middle, last = (found[stem] for stem in stems)
    return Paths(name, first, middle, last)


def _published(root: Path) -> list[list[Paths]]:
    """Sets known by a file or folder of theirs: BVI-DVC quintuplets, SNU-FILM (all levels), DAVIS."""
    if (root / QUINTUPLETS).is_dir() or root.name == QUINTUPLETS:
        return _quintuplets(root / QUINTUPLETS if (root / QUINTUPLETS).is_dir() else root)
    if any((root / f"test-{level}.txt").is_file() for level in LEVELS):
        return [group for level in LEVELS for group in PROTOCOLS[level](root)]
    return PROTOCOLS["davis"](root) if (root / "JPEGImages" / "480p").is_dir() else []


def _quintuplets(root: Path) -> list[list[Paths]]:
    """Every image of the folder and of the folders in it: the second, fifth and third tile, in time's order."""
    found = [
        (folder.name if folder != root else "", path) for folder in [root, *folders(root)] for path in _sheets(folder)
    ]
    if not found:
        raise InputError(f"{root}: no images found, expected quintuplets: images of five tiles side by side")
    return [[Paths(f"{name}/{path.stem}".lstrip("/"), path, path, path, (1, 4, 2))] for name, path in found]


def _sheets(folder: Path) -> list[Path]:
    return sorted(images(folder).values(), key=natural)


def _split_folders(root: Path) -> list[list[Paths]]:
    for inputs, targets in SPLIT_FOLDERS:
        if (root / inputs).is_dir() and (root / targets).is_dir():
            groups = []
            for folder in folders(root / inputs):
                truth = root / targets / folder.name
                if truth.is_dir():  # other-data also holds scenes whose middle frame is not published
                    found = images(folder) | images(truth)
                    groups.append([_complete(folder.name, found, MIDDLEBURY, truth)])
            return groups
    return []


def _triplet_folders(root: Path) -> list[list[Paths]]:
    found = [(folder, images(folder)) for folder in [root, *folders(root)]]
    for stems in NAMES:
        if any(stills.keys() >= set(stems) for _, stills in found):
            holding = [(folder, stills) for folder, stills in found if stills.keys() & set(stems)]
            return [[_complete(folder.name, stills, stems, folder)] for folder, stills in holding]
    return []


def _clips(root: Path) -> list[list[Paths]]:
    groups = []
    single = numbered_frames(root) or numbered_frames(root / "frames")
    for folder in [root] if single else folders(root):
        frames = single or numbered_frames(folder) or numbered_frames(folder / "frames")
        windows = zip(frames, frames[1:], frames[2:])
        groups.append([Paths(f"{folder.name}/{window[1].stem}", *window) for window in windows])
    return [group for group in groups if group]
