"""Published evaluations whose triplets are not simply all there are: named after ``@``, as in ``PATH@davis``.

| name | data set | folder | triplets |
| --- | --- | --- | --- |
| ``davis`` | DAVIS | ``JPEGImages/480p/NAME/00000.jpg`` ..., or ``NAME/`` | of n frames: t + 2, t + 3, t + 4 for |
| | | | t = 0, 2, ... below n - 6 |
| ``vfitex`` | VFITex | ``NAME/001.png`` ... | the same; of 4K frames the middle half of either side |
| ``bvihfr`` | BVI-HFR | ``NAME/`` of frames, 120 a second | every second frame from its two neighbours |
| ``easy`` ... | SNU-FILM | ``test-LEVEL.txt``, ``test/`` | lines ``frame0 target frame1`` |

SNU-FILM's levels are easy, medium, hard and extreme. Of sequences (the first three sets), the mean is taken per
sequence, then over sequences.
"""

from collections.abc import Callable
from pathlib import Path

from ..files import InputError
from .folders import folders, numbered_frames
from .triplets import Paths

LEVELS = ("easy", "medium", "hard", "extreme")


def davis(root: Path) -> list[list[Paths]]:
    """DAVIS as LDMVFI measures it: the first and last two frames of a sequence are left out."""
    return _sequences(root, lambda n: range(2, n - 4, 2))


def vfitex(root: Path) -> list[list[Paths]]:
    """VFITex: 4K sequences at the size of the others."""
    return [[paths._replace(halved=True) for paths in group] for group in davis(root)]


def bvihfr(root: Path) -> list[list[Paths]]:
    """BVI-HFR: half of the frames are given, the other half made."""
    return _sequences(root, lambda n: range(0, n - 2, 2))


def _sequences(root: Path, starts: Callable[[int], range]) -> list[list[Paths]]:
    """A group of triplets a sequence, each the frame at a start, the next and the one after it."""
    inner = root / "JPEGImages" / "480p"
    groups = []
    for folder in folders(inner if inner.is_dir() else root):
        frames = numbered_frames(folder)
        if not frames:
            raise InputError(f"{folder}: no numbered frames, expected a sequence in every folder")
        windows = [frames[start : start + 3] for start in starts(len(frames))]
        groups.append([Paths(f"{folder.name}#{b.stem}", a, b, c) for a, b, c in windows])
    groups = [group for group in groups if group]
    if not groups:
        raise InputError(f"{root}: no sequences long enough, expected folders NAME of numbered frames")
    return groups


def snu_film(root: Path, level: str) -> list[list[Paths]]:
    """A level of SNU-FILM. Its lists give paths from where its authors keep the set: as much of their beginning is
    dropped as it takes to find the first frame under ``root``.
    """
    listing = root / f"test-{level}.txt"
    if not listing.is_file():
        raise InputError(f"{listing}: no such file, expected SNU-FILM's list of {level} triplets")
    groups, dropped = [], None
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        files = [Path(file).parts for file in line.split()]
        if not files:
            continue
        if len(files) != 3:
            raise InputError(f"{listing}: line {number} names {len(files)} files, expected frame0 target frame1")
        if dropped is None:
            found = (k for k in range(len(files[0])) if root.joinpath(*files[0][k:]).is_file())
            dropped = next(found, 0)
        paths = [root.joinpath(*parts[dropped:]) for parts in files]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: no such file, but line {number} of {listing.name} names it")
        frame0, target, frame1 = paths
        groups.append([Paths(f"{level}/{target.parent.name}/{target.stem}", frame0, target, frame1)])
    if not groups:
        raise InputError(f"{listing}: is empty, expected lines of frame0 target frame1")
    return groups


def _level(level: str) -> Callable[[Path], list[list[Paths]]]:
    return lambda root: snu_film(root, level)


PROTOCOLS: dict[str, Callable[[Path], list[list[Paths]]]] = {
    "davis": davis,
    "vfitex": vfitex,
    "bvihfr": bvihfr,
    **{level: _level(level) for level in LEVELS},
}
