"""Specs: strings that name training or test data, ``synthetic``, a folder, or several joined by commas."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch.utils.data import Dataset

from ..files import InputError
from .layouts import SPLITS, find_triplets
from .synthetic import Scenes
from .triplets import Triplet, TripletFolder

_TEST_SCENES = 64
_TEST_SEED = 1_000_003  # away from every training seed in use


class Triplets(Protocol):
    """A finite source of triplets with names."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Triplet: ...
    def name(self, index: int) -> str: ...


class Mixture(Dataset[Triplet]):
    """Several sources, visited in the proportion of integer ``weights``; every item of every source is in it."""

    def __init__(self, sources: Sequence[Triplets], weights: Sequence[int]) -> None:
        self.sources, self.weights = list(sources), list(weights)
        # one round visits the sources in turn: [0, 1, 1, 1] for weights 1, 3
        self._round = [(k, turn) for k, weight in enumerate(weights) for turn in range(weight)]

    def __len__(self) -> int:
        rounds = max(-(-len(source) // weight) for source, weight in zip(self.sources, self.weights))
        return rounds * len(self._round)

    def _place(self, index: int) -> tuple[Triplets, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index}, expected 0 to {len(self) - 1}")
        rounds, place = divmod(index, len(self._round))
        source, turn = self._round[place]
        return self.sources[source], (rounds * self.weights[source] + turn) % len(self.sources[source])

    def __getitem__(self, index: int) -> Triplet:
        source, item = self._place(index)
        return source[item]

    def name(self, index: int) -> str:
        """The item's name in its source."""
        source, item = self._place(index)
        return source.name(item)


class Joined(Dataset[Triplet]):
    """Several sources one after another, each item once."""

    def __init__(self, sources: Sequence[Triplets]) -> None:
        self._items = [(source, item) for source in sources for item in range(len(source))]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Triplet:
        source, item = self._items[index]
        return source[item]

    def name(self, index: int) -> str:
        """The item's name in its source."""
        source, item = self._items[index]
        return source.name(item)


def open_triplets(
    spec: str, split: str = "train", size: int | tuple[int, int] | None = None, seed: int = 0
) -> Scenes | TripletFolder | Mixture | Joined:
    """The triplets that ``spec`` names: ``synthetic`` (of ``size``, by ``seed``), a folder (its layout is detected), or
    several joined by commas.

    - ``PATH@train`` and ``PATH@test`` take one part of a folder whatever ``split`` says, ``PATH@all`` all of it,
      ``PATH@davis`` and the like the triplets of a published evaluation (``vfikit.data.protocols``).
      Vimeo-90K has lists for that; of other layouts, every third folder in natural order (the first, fourth, ...) is
      held out as the test part. Without ``@``, Vimeo-90K follows ``split`` and other folders are taken whole.
    - ``synthetic:1,PATH:3`` mixes in that proportion for training (1 where left out); for testing each item is
      visited once and proportions are ignored. ``synthetic`` has 10,000 training and 64 other test scenes.

    Raises InputError for what is not there.
    """
    if split not in SPLITS:
        raise InputError(f"data {spec!r}: split is {split!r}, expected one of {', '.join(SPLITS)}")
    sources: list[Scenes | TripletFolder] = []
    weights = []
    for name, asked, weight in _parts(spec):
        sources.append(_open(name, asked, split, size, seed))
        weights.append(weight)
    if len(sources) == 1:
        return sources[0]
    return Mixture(sources, weights) if split == "train" else Joined(sources)


def held_out(spec: str) -> tuple[str, str]:
    """The specs of a training part and a held-out part of ``spec`` that never meet, whatever the folders' layouts."""
    train, test = [], []
    for name, asked, weight in _parts(spec):
        train_part, test_part = (asked, asked) if asked or name == "synthetic" else ("train", "test")
        train.append(f"{name}{'@' + train_part if train_part else ''}:{weight}")
        test.append(f"{name}{'@' + test_part if test_part else ''}")
    return ",".join(train), ",".join(test)


def _parts(spec: str) -> Iterator[tuple[str, str | None, int]]:
    """(name, split, weight) of each part of ``spec``."""
    for part in spec.split(","):
        match = re.fullmatch(r"(?P<name>.+?)(@(?P<split>\w+))?(:(?P<weight>\d+))?", part.strip())
        if match is None or match["weight"] == "0":
            raise InputError(f"data {spec!r}: got {part!r}, expected synthetic, or PATH[@PART][:WEIGHT]")
        yield match["name"], match["split"], int(match["weight"] or 1)


def _open(
    name: str, asked: str | None, split: str, size: int | tuple[int, int] | None, seed: int
) -> Scenes | TripletFolder:
    if name == "synthetic":
        if asked not in (None, *SPLITS):
            raise InputError(f"synthetic@{asked}: expected one of {', '.join(SPLITS)} after @")
        if (asked or split) == "train":
            return Scenes(size=size or 128, seed=seed)
        return Scenes(_TEST_SCENES, size or 128, seed + _TEST_SEED)
    return TripletFolder(find_triplets(name, asked or split, explicit=asked is not None))
