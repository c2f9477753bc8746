"""PWC-Net, optical flow by pyramid, warping and cost volume (arXiv:1709.02371).

Two images (N, 3, H, W) in [0, 1], any size, give the flow (N, 2, H, W) in pixels, channel 0 to the right, 1 downwards:
``second`` read at x + flow(x) looks like ``first`` at x.

    pyramid of both -> at each of five levels, from coarse to fine: warp, correlate, a dense block, flow -> refiner

The published weights are NVlabs' (CC BY-NC-SA 4.0, non-commercial): not shipped, ``load_published`` reads them.
"""

import itertools
import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..ops import warp

FEATURES = (16, 32, 64, 96, 128, 196)  # of levels 1 to 6
DENSE = (128, 128, 96, 64, 32)
REFINER = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1), (2, 1))  # widths, dilations
RADIUS = 4  # of the correlation
SLOPE = 0.1
SCALE = 20.0  # the network's flow times this is in pixels of the whole image
_LEVELS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")


class PWCNet(nn.Module):
    """``forward(first, second)``: flow in pixels. ``stretched`` warps as the copy that FloLPIPS uses (``backwarp``)."""

    def __init__(self, stretched: bool = False) -> None:
        super().__init__()
        widths = (3, *FEATURES)
        self.extractor = nn.ModuleList(_Stage(*pair) for pair in itertools.pairwise(widths))
        self.decoders = nn.ModuleDict({str(level): _Decoder(level, stretched) for level in (6, 5, 4, 3, 2)})
        self.refiner = _refiner(_Decoder.channels(2))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        _check(first, second)
        size = first.shape[2:]
        return to_pixels(self.raw_flow(self.pyramid(first), self.pyramid(second)), size)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Features of levels 1 to 6 of (N, 3, H, W), stretched to multiples of 64: (N, F_l, H64 / 2^l, W64 / 2^l).

        A frame that is in several pairs needs it once.
        """
        x = functional.interpolate(image, _by_64(image.shape[2:]), mode="bilinear", align_corners=False)
        features = []
        for stage in self.extractor:
            x = stage(x)
            features.append(x)
        return features

    def raw_flow(
        self, first: Sequence[Tensor], second: Sequence[Tensor], taps: dict[str, Tensor] | None = None
    ) -> Tensor:
        """From two pyramids, at a quarter of their size, in units of ``SCALE`` pixels; ``taps`` collects the inside."""
        flow = x = None
        for level, decoder in self.decoders.items():
            flow, x = decoder(first[int(level) - 1], second[int(level) - 1], flow, x, taps)
        refinement = self.refiner(x)
        if taps is not None:
            taps["refinement"] = refinement
        return flow + refinement

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Reads ``network-default.pytorch`` or -chairs-things; names that begin with net or module."""
        ours = dict(published_keys())
        given = {re.sub(r"\bmodule(?=[A-Z])", "net", key): value for key, value in state.items()}
        if given.keys() != ours.keys():
            wrong = sorted(given.keys() ^ ours.keys())
            raise ValueError(
                f"PWCNet: state dict differs by {len(wrong)} names ({', '.join(wrong[:4])}), expected none"
            )
        self.load_state_dict({ours[key]: value for key, value in given.items()})


class _Stage(nn.Sequential):
    """Halves the size; the last activation belongs to the features."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for i, width in enumerate((inputs, outputs, outputs)):
            layers += [nn.Conv2d(width, outputs, 3, 1 if i else 2, 1), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers)


class _Decoder(nn.Module):
    """One level: what the coarser one found is upsampled, the second image's features warped by it and compared."""

    def __init__(self, level: int, stretched: bool) -> None:
        super().__init__()
        self.level, self.stretched = level, stretched
        if level < len(FEATURES):
            self.up_flow = nn.ConvTranspose2d(2, 2, 4, 2, 1)
            self.up_features = nn.ConvTranspose2d(self.channels(level + 1), 2, 4, 2, 1)
        width = self.inputs(level)
        self.dense = nn.ModuleList()
        for more in DENSE:
            self.dense.append(nn.Conv2d(width, more, 3, padding=1))
            width += more
        self.flow = nn.Conv2d(width, 2, 3, padding=1)

    @staticmethod
    def inputs(level: int) -> int:
        volume = (2 * RADIUS + 1) ** 2
        return volume if level == len(FEATURES) else volume + FEATURES[level - 1] + 4

    @staticmethod
    def channels(level: int) -> int:
        return _Decoder.inputs(level) + sum(DENSE)

    def forward(
        self, first: Tensor, second: Tensor, flow: Tensor | None, x: Tensor | None, taps: dict[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        found: dict[str, Tensor] = {}
        if flow is None or x is None:
            volume = correlation(first, second)
            stack = functional.leaky_relu(volume, SLOPE)
        else:
            up_flow, up_features = self.up_flow(flow), self.up_features(x)
            warped = backwarp(second, up_flow * (SCALE / 2**self.level), self.stretched)
            volume = correlation(first, warped)
            stack = torch.cat([functional.leaky_relu(volume, SLOPE), first, up_flow, up_features], dim=1)
            found = {"upflow": up_flow, "warped": warped}
        for conv in self.dense:
            stack = torch.cat([functional.leaky_relu(conv(stack), SLOPE), stack], dim=1)  # the new ones come first
        flow = self.flow(stack)
        if taps is not None:
            found |= {"volume": volume, "decoder": stack, "flow": flow, "features": first}
            taps |= {f"{name}_{self.level}": value for name, value in found.items()}
        return flow, stack


def _refiner(inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, dilation in REFINER:
        layers += [nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(SLOPE)]
        inputs = width
    return nn.Sequential(*layers[:-1])


def correlation(first: Tensor, second: Tensor, radius: int = RADIUS) -> Tensor:
    """Mean product over channels of ``first`` (N, C, H, W) with ``second`` moved by up to ``radius`` pixels.

    Channel (dy + radius) * (2 radius + 1) + dx + radius compares with ``second`` at (y + dy, x + dx), zero outside:
    (N, (2 radius + 1)^2, H, W). One shift at a time: never C * (2 radius + 1)^2 channels.
    """
    if first.shape != second.shape or first.ndim != 4:
        got = f"first is {tuple(first.shape)}, second {tuple(second.shape)}"
        raise ValueError(f"correlation: {got}, expected two (N, C, H, W) of one shape")
    height, width = first.shape[2:]
    padded, side = functional.pad(second, [radius] * 4), 2 * radius + 1
    shifts = [(dy, dx) for dy in range(side) for dx in range(side)]
    return torch.stack([(first * padded[:, :, y : y + height, x : x + width]).mean(1) for y, x in shifts], dim=1)


def backwarp(features: Tensor, flow: Tensor, stretched: bool = False) -> Tensor:
    """``features`` (N, C, H, W) read at x + flow(x), zero where any part of the sample lies outside.

    ``stretched`` multiplies the displacement by size / (size - 1), as FloLPIPS's published copy of the network does;
    its scores depend on it. In half precision positions and the test of what lies outside are computed in float32.
    """
    if stretched:
        height, width = features.shape[2:]
        if min(height, width) < 2:
            raise ValueError(f"backwarp: features are {tuple(features.shape)}, expected at least 2 pixels a side")
        flow = flow * flow.new_tensor([width / (width - 1), height / (height - 1)])[:, None, None]
    inside = torch.ones_like(features[:, :1], dtype=torch.promote_types(flow.dtype, torch.float32))
    with torch.no_grad():  # the mask has no gradient; rounding must not mask what lies on the border
        mask = warp(inside, flow) > 0.999
    return torch.where(mask, warp(features, flow), 0.0)


def to_pixels(flow: Tensor, size: Sequence[int]) -> Tensor:
    """A raw flow (N, 2, H64 / 4, W64 / 4) at the image's ``size`` and in its pixels: (N, 2, H, W)."""
    height, width = _by_64(size)
    flow = SCALE * functional.interpolate(flow, tuple(size), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]


def _by_64(size: Sequence[int]) -> tuple[int, int]:
    return -(-size[0] // 64) * 64, -(-size[1] // 64) * 64


def _check(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
        got = f"first is {tuple(first.shape)}, second {tuple(second.shape)}"
        raise ValueError(f"PWCNet: {got}, expected two (N, 3, H, W) of one shape")


def published_keys() -> list[tuple[str, str]]:
    """Pairs (published name, ours)."""
    modules = [
        (f"netExtractor.net{_LEVELS[level]}.{i}", f"extractor.{level}.{i}") for level in range(6) for i in (0, 2, 4)
    ]
    for level in range(2, 7):
        theirs, ours = f"net{_LEVELS[level - 1]}", f"decoders.{level}"
        if level < 6:
            modules += [(f"{theirs}.netUpflow", f"{ours}.up_flow"), (f"{theirs}.netUpfeat", f"{ours}.up_features")]
        modules += [(f"{theirs}.net{_LEVELS[i]}.0", f"{ours}.dense.{i}") for i in range(len(DENSE))]
        modules.append((f"{theirs}.netSix.0", f"{ours}.flow"))
    modules += [(f"netRefiner.netMain.{2 * i}", f"refiner.{2 * i}") for i in range(len(REFINER))]
    return [(f"{theirs}.{part}", f"{ours}.{part}") for theirs, ours in modules for part in ("weight", "bias")]
