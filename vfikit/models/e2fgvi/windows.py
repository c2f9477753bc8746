"""Which frames are filled together: windows that slide over the clip, and frames far away to look things up in."""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Window(NamedTuple):
    """The window around ``centre``: its own frames, consecutive, and those that it looks things up in."""

    centre: int
    local: range
    references: list[int]


def windows(length: int, stride: int = 5, step: int = 10, num_ref: int = -1) -> list[Window]:
    """The published windows of a clip of ``length`` frames; see ``Settings`` for the arguments."""
    settings = Settings(stride=stride, step=step, num_ref=num_ref, nearest=None)
    return [settings.window(centre, length) for centre in range(0, length, stride)]


@dataclass(frozen=True)
class Settings:
    """How a clip is filled, window by window.

    Every ``stride`` frames a window reaches ``stride`` frames back and ahead. It looks things up in every ``step``-th
    frame of the clip outside it: in the ``nearest`` of them, so that neither time nor memory grow with the clip, or in
    all (None), as published. ``num_ref`` of 0 or more is the published demo's other rule instead: up to num_ref + 1
    frames, ``step`` apart, around the window.

    Holes grow by ``dilation`` pixels, up and down and sideways. Frames are padded as little as the network can do with
    ("minimal"); "published" pads to whole windows, cuts predictions to 8 bits and blends windows one after the other,
    as the published program does: with its references (``nearest=None``, or ``num_ref``), results equal its own. With
    ``crop``, only the surroundings of all holes, so many pixels around them, are seen and filled: much faster where
    holes are small.
    """

    stride: int = 5
    step: int = 10
    nearest: int | None = 4
    num_ref: int = -1
    dilation: int = 4
    padding: Literal["minimal", "published"] = "minimal"
    crop: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("stride", 1), ("step", 1), ("num_ref", -1), ("dilation", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"Settings: {name} is {getattr(self, name)}, expected {least} or more")
        for name in ("nearest", "crop"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"Settings: {name} is {value}, expected 0 or more, or None")
        if self.padding not in ("minimal", "published"):
            raise ValueError(f"Settings: padding is {self.padding!r}, expected 'minimal' or 'published'")

    def window(self, centre: int, length: int) -> Window:
        """The window around ``centre`` of a clip of ``length`` frames, or of which so many are known."""
        local = range(max(0, centre - self.stride), min(length, centre + self.stride + 1))
        if self.num_ref >= 0:
            reach = self.step * (self.num_ref // 2)
            places = range(max(0, centre - reach), min(length, centre + reach + 1), self.step)
            return Window(centre, local, [k for k in places if k not in local][: self.num_ref + 1])
        references = [k for k in range(0, length, self.step) if k not in local]
        if self.nearest is not None:
            references = sorted(sorted(references, key=lambda k: abs(k - centre))[: self.nearest])
        return Window(centre, local, references)

    @property
    def reach(self) -> int | None:
        """How far from its centre a window's frames can lie; None: anywhere."""
        if self.num_ref >= 0:
            return max(self.stride, self.step * (self.num_ref // 2))
        return None if self.nearest is None else self.stride + self.step * self.nearest

    def keeps(self, frame: int, centre: int) -> bool:
        """Whether a window around ``centre`` or a later one may look at ``frame``."""
        if frame >= centre - self.stride:
            return True
        near = self.reach is None or frame >= centre - self.reach
        return near and (self.num_ref >= 0 or frame % self.step == 0)
