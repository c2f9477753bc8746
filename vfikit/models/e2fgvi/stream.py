"""Filling a clip of any length, frame by frame in and out.

Each frame is encoded once, and each flow found once, however many windows they are in; frames without a hole are never
decoded, nor is more of the others than holds a window's holes; what no window will see again is forgotten.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...inference import WHOLE, Box, check_video, dilate, pad_to_multiple, surroundings
from .published import published_padding
from .windows import Settings, Window

if TYPE_CHECKING:
    from .net import E2FGVINet


def inpaint(net: "E2FGVINet", frames: Tensor, masks: Tensor, settings: Settings) -> Tensor:
    """``stream`` over tensors (N, T, 3, H, W) in [0, 1] and (N, T or 1, 1, H, W); the result is like ``frames``."""
    check_video("inpaint", "frames", frames)
    count, length, _, height, width = frames.shape
    if not isinstance(masks, Tensor):
        raise TypeError(f"inpaint: masks is of type {type(masks).__name__}, expected a tensor (N, T or 1, 1, H, W)")
    if masks.ndim != 5 or masks.shape[1] not in (1, length) or masks.shape != (count, masks.shape[1], 1, height, width):
        expected = f"({count}, {length} or 1, 1, {height}, {width})"
        raise ValueError(f"inpaint: masks are {tuple(masks.shape)}, expected {expected}")
    box = WHOLE if settings.crop is None else surroundings(masks > 0, settings.crop + settings.dilation)
    pairs = zip(frames.unbind(1), masks.expand(-1, length, -1, -1, -1).unbind(1), strict=True)
    return torch.stack(list(stream(net, pairs, settings, box)), dim=1)


@torch.no_grad()
def stream(
    net: "E2FGVINet",
    pairs: Iterable[tuple[Tensor, Tensor]],
    settings: Settings | None = None,
    box: Box = WHOLE,
    start: int = 0,
) -> Iterator[Tensor]:
    """Filled frames (N, 3, H, W), one for each of ``pairs``: a frame in [0, 1] and its mask (N, 1, H, W), more than 0.

    It reads ahead as far as a window reaches. Only what lies in ``box`` is seen and filled. What comes before frame
    ``start``, a multiple of the settings' stride, is read but neither filled nor given back: to go on where a run
    was stopped.
    """
    settings = settings or Settings()
    if start % settings.stride:
        raise ValueError(f"stream: start is {start}, expected a multiple of the stride {settings.stride}")
    clip = _Clip(net, iter(pairs), settings, box)
    centre, done = max(0, start - settings.stride), start
    while clip.read(centre) > centre:
        clip.fill(settings.window(centre, clip.length))
        for index in range(done, centre):
            yield clip.finished(index)
        done = max(done, centre)
        centre += settings.stride
        clip.forget(centre)
    for index in range(done, clip.length):
        yield clip.finished(index)


@dataclass
class _Frame:
    original: Tensor  # (N, 3, H, W)
    hole: Tensor  # (N, 1, h, w) of the box, grown
    features: Tensor | None = None  # (N, C, h / 4, w / 4)
    filled: Tensor | None = None  # (N, 3, h, w) in [0, 1], in holes: the sum of what all windows made, or their blend
    visits: int = 0


class _Clip:
    """The frames that windows still need, with what was made of them."""

    def __init__(self, net: "E2FGVINet", pairs: Iterator[tuple[Tensor, Tensor]], settings: Settings, box: Box) -> None:
        self.net, self.pairs, self.settings, self.box = net, pairs, settings, box
        self.frames: dict[int, _Frame] = {}
        self.flows: dict[int, tuple[Tensor, Tensor]] = {}  # from frame k to k + 1, and back
        self.length = 0
        self.like = next(net.parameters())

    def read(self, centre: int) -> int:
        """Reads as far as the window around ``centre`` reaches, and returns how many frames there were until there.

        Only those are kept that this window or a later one may look at.
        """
        reach = self.settings.reach
        while reach is None or self.length <= centre + reach:
            pair = next(self.pairs, None)
            if pair is None:
                break
            original, mask = pair
            if original.ndim != 4 or mask.shape != (original.shape[0], 1, *original.shape[2:]):
                got = f"frame {self.length} is {tuple(original.shape)}, its mask {tuple(mask.shape)}"
                raise ValueError(f"stream: {got}, expected (N, 3, H, W) and (N, 1, H, W)")
            if self.settings.keeps(self.length, centre):
                hole = dilate((mask > 0).to(self.like.device), self.settings.dilation)
                self.frames[self.length] = _Frame(original, hole[..., self.box[0], self.box[1]])
            self.length += 1
        return self.length

    def forget(self, centre: int) -> None:
        self.frames = {k: frame for k, frame in self.frames.items() if self.settings.keeps(k, centre)}
        self.flows = {k: flow for k, flow in self.flows.items() if k >= centre - self.settings.stride}

    def fill(self, window: Window) -> None:
        """One pass of the network; frames without a hole are seen, not made."""
        wanted = [k for k in window.local if self.frames[k].hole.any()]
        if not wanted:
            return
        self.encode([*window.local, *window.references])
        features = torch.stack([self.features(k) for k in window.local], dim=1)
        features = self.net.propagation(features, *self.flows_of(window.local))
        features = torch.cat([features, *(self.features(k)[:, None] for k in window.references)], dim=1)
        last = wanted[-1] - window.local[0] + 1
        features = features[:, :last] + self.net.attend(features, last)
        box = surroundings(torch.stack([self.frames[index].hole for index in wanted]), 0)
        made = self.net.decode(features[:, [index - window.local[0] for index in wanted]], box)
        for index, part in zip(wanted, made.unbind(1), strict=True):
            self.blend(self.frames[index], part, box)

    def features(self, index: int) -> Tensor:
        features = self.frames[index].features
        assert features is not None
        return features

    def encode(self, indices: Iterable[int]) -> None:
        missing = [index for index in indices if self.frames[index].features is None]
        if missing:
            features = self.net.encode(torch.stack([self.prepared(index) for index in missing], dim=1))
            for index, each in zip(missing, features.unbind(1), strict=True):
                self.frames[index].features = each.clone()  # a view would hold all of them

    def prepared(self, index: int) -> Tensor:
        """What the network sees of a frame: in [-1, 1], holes 0, padded."""
        frame = self.frames[index]
        seen = (2 * frame.original[..., self.box[0], self.box[1]].to(self.like) - 1) * ~frame.hole
        return published_padding(seen) if self.settings.padding == "published" else pad_to_multiple(seen, 4)

    def flows_of(self, local: range) -> tuple[Tensor, Tensor]:
        missing = [k for k in local[:-1] if k not in self.flows]
        if missing:
            seen = torch.stack([self.prepared(k) for k in range(missing[0], local[-1] + 1)], dim=1)
            for k, *both in zip(range(missing[0], local[-1]), *(flow.unbind(1) for flow in self.net.flows(seen))):
                self.flows[k] = (both[0], both[1])
        if len(local) == 1:
            return self.net.flows(self.prepared(local[0])[:, None])
        ahead, back = zip(*(self.flows[k] for k in local[:-1]))
        return torch.stack(ahead, dim=1), torch.stack(back, dim=1)

    def blend(self, frame: _Frame, made: Tensor, box: Box) -> None:
        """All windows count alike; published, each as much as all before it, in whole grey levels."""
        made = ((made + 1) / 2).float()
        if frame.filled is None:
            frame.filled = made.new_zeros(*made.shape[:2], *frame.hole.shape[2:])
        filled = frame.filled[..., box[0], box[1]]
        if self.settings.padding == "published":
            made = (255 * made).floor() / 255
            filled.copy_((filled + made) / 2 if frame.visits else made)
            frame.visits = 1
        else:
            filled.add_(made)
            frame.visits += 1

    def finished(self, index: int) -> Tensor:
        """The frame as it came, but for its holes."""
        frame = self.frames[index]
        if frame.filled is None:
            return frame.original
        result = frame.original.clone()
        place = result[..., self.box[0], self.box[1]]
        filled, hole = (x.to(result.device) for x in (frame.filled / frame.visits, frame.hole))
        place.copy_(torch.where(hole, filled.to(result.dtype), place))
        frame.filled = None
        return result
