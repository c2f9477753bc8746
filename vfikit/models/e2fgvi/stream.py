"""Filling a clip of any length, frame by frame in and out.

Each frame is encoded once, and each flow found once, however many windows they are in; frames without a hole are never
decoded, nor is more of the others than holds a window's holes; what no window will see again is forgotten.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...inference import WHOLE, Box, check_video, dilate, pad_to_multiple, surroundings
from .published import published_padding
from .shelf import Shelf
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
    result = torch.empty_like(frames)
    for place, filled in zip(result.unbind(1), stream(net, pairs, settings, box), strict=True):
        place.copy_(filled)
    return result


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


class _Clip:
    """The frames that windows still need, with what was made of them."""

    def __init__(self, net: "E2FGVINet", pairs: Iterator[tuple[Tensor, Tensor]], settings: Settings, box: Box) -> None:
        self.net, self.pairs, self.settings, self.box = net, pairs, settings, box
        self.originals = Shelf()  # (N, 3, H, W)
        self.holes = Shelf()  # (N, 1, h, w) of the box, grown
        self.features = Shelf()  # (N, C, h / 4, w / 4)
        self.flows = Shelf()  # from frame k to k + 1, and back: (2, N, 2, h / 4, w / 4)
        self.filled = Shelf()  # (N, 3, h, w) in [0, 1], in holes: the sum of what all windows made, or their blend
        self.visits: dict[int, int] = {}
        self.length = 0
        self.shape: torch.Size | None = None  # of all frames
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
            self.check(original, mask)
            if self.settings.keeps(self.length, centre):
                hole = dilate((mask > 0).to(self.like.device), self.settings.dilation)
                self.originals[self.length] = original
                self.holes[self.length] = hole[..., self.box[0], self.box[1]]
            self.length += 1
        return self.length

    def check(self, original: Tensor, mask: Tensor) -> None:
        if original.ndim != 4 or mask.shape != (original.shape[0], 1, *original.shape[2:]):
            got = f"frame {self.length} is {tuple(original.shape)}, its mask {tuple(mask.shape)}"
            raise ValueError(f"stream: {got}, expected (N, 3, H, W) and (N, 1, H, W)")
        self.shape = self.shape or original.shape
        if original.shape != self.shape:
            got = f"frame {self.length} is {tuple(original.shape)}"
            raise ValueError(f"stream: {got}, expected {tuple(self.shape)} like the first")

    def forget(self, centre: int) -> None:
        """What neither a window around ``centre`` nor a later one looks at, nor is still to be given back."""
        for shelf in (self.originals, self.holes, self.features):
            shelf.keep(lambda k: self.settings.keeps(k, centre))
        first = centre - self.settings.stride
        for shelf in (self.flows, self.filled):
            shelf.keep(lambda k: k >= first)
        self.visits = {k: count for k, count in self.visits.items() if k >= first}

    def fill(self, window: Window) -> None:
        """One pass of the network; frames without a hole are seen, not made."""
        wanted = [k for k in window.local if self.holes[k].any()]
        if not wanted:
            return
        self.encode([*window.local, *window.references])
        features = torch.stack([self.features[k] for k in window.local], dim=1)
        features = self.net.propagation(features, *self.flows_of(window.local))
        features = torch.cat([features, *(self.features[k][:, None] for k in window.references)], dim=1)
        last = wanted[-1] - window.local[0] + 1
        features = features[:, :last] + self.net.attend(features, last)
        box = surroundings(torch.stack([self.holes[index] for index in wanted]), 0)
        made = self.net.decode(features[:, [index - window.local[0] for index in wanted]], box)
        for index, part in zip(wanted, made.unbind(1), strict=True):
            self.blend(index, part, box)

    def encode(self, indices: Iterable[int]) -> None:
        missing = [index for index in indices if index not in self.features]
        if missing:
            features = self.net.encode(torch.stack([self.prepared(index) for index in missing], dim=1))
            for index, each in zip(missing, features.unbind(1), strict=True):
                self.features[index] = each

    def prepared(self, index: int) -> Tensor:
        """What the network sees of a frame: in [-1, 1], holes 0, padded."""
        original = self.originals[index][..., self.box[0], self.box[1]]
        seen = (2 * original.to(self.like) - 1) * ~self.holes[index]
        return published_padding(seen) if self.settings.padding == "published" else pad_to_multiple(seen, 4)

    def flows_of(self, local: range) -> tuple[Tensor, Tensor]:
        if len(local) == 1:
            return self.net.flows(self.prepared(local[0])[:, None])
        missing = [k for k in local[:-1] if k not in self.flows]
        if missing:
            seen = torch.stack([self.prepared(k) for k in range(missing[0], local[-1] + 1)], dim=1)
            both = torch.stack(self.net.flows(seen))
            for k, flows in zip(range(missing[0], local[-1]), both.unbind(2), strict=True):
                self.flows[k] = flows
        ahead, back = torch.stack([self.flows[k] for k in local[:-1]], dim=2)
        return ahead, back

    def blend(self, index: int, made: Tensor, box: Box) -> None:
        """All windows count alike; published, each as much as all before it, in whole grey levels."""
        made = ((made + 1) / 2).float()
        if index not in self.filled:
            self.filled[index] = made.new_zeros(*made.shape[:2], *self.holes[index].shape[2:])
        filled, visits = self.filled[index][..., box[0], box[1]], self.visits.get(index, 0)
        if self.settings.padding == "published":
            made = (255 * made).floor() / 255
            filled.copy_((filled + made) / 2 if visits else made)
            self.visits[index] = 1
        else:
            filled.add_(made)
            self.visits[index] = visits + 1

    def finished(self, index: int) -> Tensor:
        """The frame as it came, but for its holes."""
        result = self.originals[index].clone()
        if index in self.filled:
            place = result[..., self.box[0], self.box[1]]
            mean = self.filled[index] / self.visits[index]
            filled, hole = (x.to(result.device) for x in (mean, self.holes[index]))
            place.copy_(torch.where(hole, filled.to(result.dtype), place))
        return result
