"""Clips to train video models on: synthetic scenes, folders of videos or of frames, WebVid's lists.

A clip is longer than what is read of it: ``read`` takes so many frames at such a stride from some place in it.
"""

import csv
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.data import Dataset

from ..files import InputError
from .folders import clips, folders, numbered_frames, opened
from .images import read_image
from .synthetic import Scenes
from .video_objects import sequences

VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".gif"})
_HELD_OUT = 64  # synthetic clips; of a folder, every tenth
_PARTS = (("sky_train", "sky_test"), ("train", "test"))  # as Sky Timelapse and TaiChi are published
_SCENE = 24  # frames of a synthetic clip, where they are picked
_TEST_SEED = 1_000_003  # away from every training seed in use


class TooShort(InputError):
    """A clip has fewer frames than are to be read of it."""


class Clips(Protocol):
    """A finite source of clips."""

    def __len__(self) -> int: ...
    def name(self, index: int) -> str:
        """What the clip is called in reports."""

    def caption(self, index: int) -> str:
        """What is said of it; "" if nothing is."""

    def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
        """Frames (T, 3, H, W) in [0, 1], ``stride`` apart; ``place`` from 0 to 1 says where in the clip."""


class SyntheticClips(Dataset[Tensor]):
    """Scenes of textured planes that move evenly, of ``size`` (side, or height and width); exact flow is known.

    ``motion`` is the median shift in pixels over four frames. Frames stand around the scene's middle time, wherever the
    ``place``: a scene has no end.
    """

    def __init__(
        self, length: int = 10_000, size: int | tuple[int, int] = 64, seed: int = 0, motion: float = 3.0
    ) -> None:
        self.scenes = Scenes(length, size, seed, motion)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(index, 8)

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def caption(self, index: int) -> str:
        return ""

    def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
        return self.scenes.scene(index).frames(times(num_frames, stride))

    def pick(self, index: int, choose: Callable[[int], Sequence[int]]) -> Tensor:
        """The frames that ``choose`` names, told that there are 24."""
        seen = times(_SCENE)
        return self.scenes.scene(index).frames([seen[frame] for frame in choose(_SCENE)])

    def flows(self, index: int, choose: Callable[[int], Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The exact flows (T - 1, 2, H, W) in pixels between the frames that ``pick`` gives: ahead, and back."""
        seen, scene = times(_SCENE), self.scenes.scene(index)
        pairs = list(itertools.pairwise(seen[frame] for frame in choose(_SCENE)))
        return torch.stack([scene.flow(a, b) for a, b in pairs]), torch.stack([scene.flow(b, a) for a, b in pairs])


def times(num_frames: int, stride: int = 1) -> list[float]:
    """When a synthetic scene is seen: a quarter of its unit of time a frame, around its middle."""
    return [0.5 + (k - (num_frames - 1) / 2) * stride / 4 for k in range(num_frames)]


class Source(NamedTuple):
    """A video file, or the folder or .zip of a clip's frames, and what is said of it."""

    path: Path
    caption: str = ""


class FileClips(Dataset[Tensor]):
    """Clips from files, scaled to cover ``size`` (height, width) and cropped to its middle; None leaves them."""

    def __init__(self, sources: Sequence[Source], size: tuple[int, int] | None = None) -> None:
        self.sources, self.size = list(sources), size

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(index, 8)

    def name(self, index: int) -> str:
        return self.sources[index].path.stem

    def caption(self, index: int) -> str:
        return self.sources[index].caption

    def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
        """A clip too short for the stride is read at a smaller one, one too short for that raises TooShort."""

        def choose(count: int) -> range:
            if count < num_frames:
                raise TooShort(f"{self.sources[index].path}: has {count} frames, expected at least {num_frames}")
            step = max(1, min(stride, (count - 1) // max(1, num_frames - 1)))
            first = round(place * (count - 1 - (num_frames - 1) * step))
            return range(first, first + (num_frames - 1) * step + 1, step)

        return self.pick(index, choose)

    def pick(self, index: int, choose: Callable[[int], Sequence[int]]) -> Tensor:
        """The frames that ``choose`` names, told how many the clip has."""
        path = self.sources[index].path
        if files := numbered_frames(opened(path)):
            frames = torch.stack([read_image(files[i]).float() / 255 for i in choose(len(files))])
        else:
            frames = _video_frames(path, choose(_frames_in(path)))
        return frames if self.size is None else cover(frames, self.size)


def long_enough(data: Clips, num_frames: int) -> Clips:
    """``data`` without folders of fewer frames, of which it warns; how long a video is shows when it is read."""
    if not isinstance(data, FileClips):
        return data
    counts = [len(numbered_frames(opened(source.path))) or num_frames for source in data.sources]
    kept = [source for source, count in zip(data.sources, counts, strict=True) if count >= num_frames]
    if not kept:
        raise InputError(f"{data.sources[0].path.parent}: no clip has {num_frames} frames, expected some")
    if left_out := len(counts) - len(kept):
        warnings.warn(f"{left_out} of {len(counts)} clips have fewer than {num_frames} frames: left out", stacklevel=2)
    return FileClips(kept, data.size)


def cover(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (T, 3, H, W) scaled until they cover ``size`` (height, width), the middle cut out."""
    height, width = frames.shape[2:]
    scale = max(size[0] / height, size[1] / width)
    if scale != 1:
        target = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
        frames = functional.interpolate(frames, target, mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (frames.shape[2] - size[0]) // 2, (frames.shape[3] - size[1]) // 2
    return frames[:, :, top : top + size[0], left : left + size[1]]


def open_clips(
    spec: str, split: str = "train", size: tuple[int, int] | None = (64, 64), seed: int = 0
) -> SyntheticClips | FileClips:
    """The clips that ``spec`` names, each ``size`` (height, width); None: files' own, of synthetic ones 64.

    ``synthetic``; a folder of videos, or of folders or .zip files of numbered frames, at any depth: UCF-101, Sky
    Timelapse and TaiChi as they are published (frames are read at the stride asked for, where LVDM's readers take
    neighbours); YouTube-VOS, DAVIS, or either as prepared for video inpainting; a list as WebVid's, a ``.csv`` whose
    columns are ``videoid``, ``page_dir`` and ``name`` (the caption), the videos beside it in ``videos/``, or ``path``
    and ``caption``. ``split`` is "train", "test" or "all": of Sky Timelapse (``sky_train``, ``sky_test``), TaiChi
    (``train``, ``test``) and what else has such parts, these; of other files, every tenth is for "test". Raises
    InputError.
    """
    if split not in ("train", "test", "all"):
        raise InputError(f"clips {spec!r}: split is {split!r}, expected train, test or all")
    if spec == "synthetic":
        held_out = split == "test"
        return SyntheticClips(_HELD_OUT if held_out else 10_000, size or 64, seed + held_out * _TEST_SEED)
    path = Path(spec)
    if path.is_dir() and (found := sequences(path, split)):
        return FileClips([Source(folder) for folder in found], size)
    parts = _parts(path, split)
    sources = [source for part in parts for source in (_listed(part) if part.suffix == ".csv" else _found(part))]
    if split != "all" and parts == [path]:
        sources = [source for index, source in enumerate(sources) if (index % 10 == 0) == (split == "test")]
    if not sources:
        raise InputError(f"{spec}: holds no {split} clips, expected more than one clip (every tenth is held out)")
    return FileClips(sources, size)


def _parts(root: Path, split: str) -> list[Path]:
    """The folders of a part where ``root`` has parts; else ``root``."""
    for train, test in ((root / train, root / test) for train, test in _PARTS):
        if train.is_dir() and test.is_dir() and not numbered_frames(train):
            return {"train": [train], "test": [test], "all": [train, test]}[split]
    return [root]


def _found(root: Path) -> list[Source]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected clips, a .csv list, or synthetic")
    found = list(_walk(root))
    if not found:
        raise InputError(f"{root}: no clips found, expected videos or folders of numbered frames")
    return [Source(path) for path in found]


def _walk(folder: Path) -> Iterator[Path]:
    """Videos and folders of numbered frames at any depth: UCF-101's classes, Sky Timelapse's and TaiChi's parts."""
    yield from sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
    held = clips(folder)
    yield from held
    for inner in folders(folder):
        if inner not in held:
            yield from _walk(inner)


def _listed(path: Path) -> list[Source]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a list of clips ({error})") from error
    sources = []
    for row in rows:
        if row.get("videoid"):
            file_path = path.parent / "videos" / (row.get("page_dir") or "") / f"{row['videoid']}.mp4"
        elif row.get("path"):
            file_path = path.parent / row["path"]
        else:
            raise InputError(f"{path}: a row without videoid or path, expected columns videoid, page_dir, name")
        if file_path.exists():  # published lists name many videos that can no longer be had
            sources.append(Source(file_path, row.get("name") or row.get("caption") or ""))
    if not sources:
        raise InputError(f"{path}: none of its {len(rows)} videos is there, expected them under {path.parent}/videos")
    return sources


def _video_frames(path: Path, wanted: Sequence[int]) -> Tensor:
    from ..video.reader import VideoReader  # needs the extra that reads videos

    with VideoReader(path) as reader:
        frames = {i: frame.rgb for i, frame in enumerate(itertools.islice(reader, max(wanted) + 1)) if i in wanted}
    if len(frames) < len(set(wanted)):
        raise InputError(f"{path}: ends before frame {max(wanted)}, which its container promises")
    return torch.stack([frames[i] for i in wanted])


def _frames_in(path: Path) -> int:
    """How many frames a video has; where its container does not say, it is read once."""
    from ..video.reader import VideoReader

    with VideoReader(path) as reader:
        return reader.info.count or sum(1 for _ in reader)
