"""E2FGVI and E2FGVI-HQ: flow-guided video inpainting (arXiv:2204.02663, CVPR 2022).

A clip (B, T, 3, H, W), RGB in [-1, 1], holes 0, any size: its first frames are consecutive, the others, far away, are
looked up only. Every frame comes back filled, with the flows between the consecutive ones.

    flows at a quarter of the size; encode every frame -> propagate along the flows, the consecutive frames only
    -> soft split -> transformer over all frames -> soft composition -> decode the sum

The two models differ in what follows the soft composition: a learned map of one size (E2FGVI), or a convolution (HQ).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ...inference import WHOLE, Box, pad_to_multiple
from ...layers.focal import FocalBlock, FusionFeedForward
from ...layers.propagation import BidirectionalPropagation, DeformableAlignment
from ...layers.spynet import SPyNet
from ...ops import Conv3x3, SoftComposition, SoftSplit
from ...ops.fold import AT_ONCE, in_turn
from ..pretrained import Pretrained
from .decoder import SLOPE, decode, decoder
from .published import published_keys
from .stream import inpaint
from .windows import Settings


@dataclass(frozen=True)
class E2FGVIConfig:
    """As published for HQ. Pairs in ``grouped`` are the channels and groups of a convolution."""

    stem: tuple[int, ...] = (64, 64, 128, 256)
    grouped: tuple[tuple[int, int], ...] = ((384, 1), (512, 2), (384, 4), (256, 8), (128, 1))
    decoder: tuple[int, int] = (128, 64)
    flow_levels: int = 6
    flow_widths: tuple[int, ...] = (32, 64, 32, 16)
    deform_groups: int = 16
    max_residue: float = 10.0  # pixels of the feature map
    own_flows: bool = False  # True: the backward branch takes each step's own flow; trained weights know the other
    patch: int = 7
    stride: int = 3
    hidden: int = 512
    depth: int = 8
    heads: int = 4
    window: tuple[int, int] = (5, 9)
    focal_window: tuple[int, int] = (5, 9)
    focal_level: int = 2
    feed_forward: int = 40  # channels of the map between its Linears
    count_twice: bool = True  # published: some tokens around a window count twice
    he_start: bool = False  # True: convolutions start as He et al. have it; published: normal, 0.02 wide
    corners: bool = True  # upsampling maps corners to corners, published; False: pixels keep their place at any size
    quiet_start: bool = False  # True: alignments start as warps, other frames and the transformer add nothing yet
    bias_map: tuple[int, int] | None = None  # E2FGVI: the size of the map; None is HQ's convolution

    @property
    def features(self) -> int:
        return self.grouped[-1][0]

    @property
    def hq(self) -> bool:
        return self.bias_map is None


class Inpainted(NamedTuple):
    """Frames in (-1, 1), and flows (B, L - 1, 2, ceil(H / 4), ceil(W / 4)) in pixels of that size."""

    frames: Tensor  # (B, T, 3, H, W)
    forward_flows: Tensor  # k: from frame k to k + 1; channel 0 to the right, 1 downwards
    backward_flows: Tensor  # k: from frame k + 1 to k


class E2FGVINet(Pretrained):
    """``forward(frames, local=None)``: (B, T, 3, H, W) in [-1, 1], holes 0, the first ``local`` (all) consecutive."""

    config_type = E2FGVIConfig

    def __init__(self, config: E2FGVIConfig = E2FGVIConfig()) -> None:
        super().__init__()
        self.config = config
        features, patches = config.features, (config.patch, config.stride, config.patch // 2)
        self.flow = SPyNet(config.flow_levels, config.flow_widths)
        self.encoder = Encoder(config.stem, config.grouped)
        self.propagation = BidirectionalPropagation(
            features, config.deform_groups, config.max_residue, config.own_flows
        )
        self.split = SoftSplit(features, config.hidden, *patches)
        self.blocks = nn.ModuleList(
            FocalBlock(
                config.hidden,
                config.heads,
                config.window,
                config.focal_window,
                config.focal_level,
                FusionFeedForward(config.hidden, config.feed_forward, *patches),
                config.count_twice,
            )
            for _ in range(config.depth)
        )
        self.compose = SoftComposition(config.hidden, features, *patches)
        self.refine = Conv3x3(features, features) if config.bias_map is None else BiasMap(features, config.bias_map)
        self.decoder = decoder(features, *config.decoder, config.corners)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As published: normal, 0.02 wide, but for the flow network and what the alignments read with.

        In narrow nets that starves the first layers of gradients: ``he_start``.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("flow."):
                if self.config.he_start and isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, SLOPE)
                else:
                    nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformableAlignment):
                module.reset_offsets()
                if self.config.quiet_start:
                    module.start_as_warp()
        if self.config.quiet_start:
            for last in (self.propagation.fusion, self.compose.embedding):
                nn.init.zeros_(last.weight)

    def forward(self, frames: Tensor, local: int | None = None) -> Inpainted:
        local = frames.shape[1] if local is None else local
        check_clip(frames, local)
        height, width = frames.shape[3:]
        frames = pad_to_multiple(frames.flatten(0, 1), 4).unflatten(0, frames.shape[:2])
        flows = self.flows(frames[:, :local])
        features = self.encode(frames)
        features = torch.cat([self.propagation(features[:, :local], *flows), features[:, local:]], dim=1)
        features = features + self.attend(features)
        return Inpainted(self.decode(features)[..., :height, :width], *flows)

    def flows(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward flows (B, T - 1, 2, H / 4, W / 4) of a clip in [-1, 1], sides multiples of 4."""
        count, length = frames.shape[:2]
        size = (frames.shape[3] // 4, frames.shape[4] // 4)
        if length == 1:  # nothing to go to
            exact = torch.promote_types(frames.dtype, torch.float32)
            return (none := frames.new_zeros(count, 0, 2, *size, dtype=exact)), none
        quarter = functional.interpolate(frames.flatten(0, 1), size, mode="bilinear", align_corners=True)
        return self.flow.between(((quarter + 1) / 2).unflatten(0, (count, length)))

    def encode(self, frames: Tensor) -> Tensor:
        """Features (B, T, C, H / 4, W / 4) of each frame by itself."""
        flat = frames.flatten(0, 1)
        return in_turn(self.encoder, flat, self.encoder.at_once(flat)).unflatten(0, frames.shape[:2])

    def attend(self, features: Tensor, keep: int | None = None) -> Tensor:
        """What the transformer adds to features (B, T, C, h, w), of the first ``keep`` frames (all: None)."""
        size = (features.shape[3], features.shape[4])
        tokens = self.split(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        for block in self.blocks[:-1]:
            tokens = block(tokens, size)
        tokens = self.blocks[-1](tokens, size, keep)
        return self.refine(self.compose(tokens.flatten(0, 1), size)).unflatten(0, tokens.shape[:2])

    def decode(self, features: Tensor, box: Box = WHOLE) -> Tensor:
        """Frames (B, T, 3, 4 h, 4 w) in (-1, 1) of features (B, T, C, h, w), or the rows and columns of ``box``."""
        last = features.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # upsampled several times as fast
        return in_turn(partial(decode, self.decoder, box=box), last).tanh().unflatten(0, features.shape[:2])

    @torch.no_grad()
    def inpaint(self, frames: Tensor, masks: Tensor, **settings: Any) -> Tensor:
        """Fills ``frames`` (N, T, 3, H, W) in [0, 1], any size and length, where ``masks`` is more than 0.

        ``masks`` (N, T, 1, H, W) or (N, 1, 1, H, W), one for the clip. What is not masked comes back as it was, bit by
        bit. The keyword arguments are the fields of ``Settings``: windows, references, dilation, padding.
        """
        return inpaint(self, frames, masks, Settings(**settings))

    def published_keys(self) -> list[tuple[str, str]]:
        return published_keys(self.config)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the constants that published checkpoints carry."""
        constant = ("valid_ind_rolled", "update_spynet.mean", "update_spynet.std")
        return {name: tensor for name, tensor in state.items() if not name.endswith(constant)}


def check_clip(frames: Tensor, local: int) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3 or 0 in frames.shape:
        raise ValueError(f"E2FGVINet: frames are {tuple(frames.shape)}, expected (B, T, 3, H, W)")
    if not 1 <= local <= frames.shape[1]:
        raise ValueError(f"E2FGVINet: local is {local}, expected 1 to {frames.shape[1]}, the number of frames")


class Encoder(nn.Module):
    """(N, 3, H, W) -> (N, C, ceil(H / 4), ceil(W / 4)); the stem's features are shown to each grouped convolution."""

    def __init__(self, stem: tuple[int, ...], grouped: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip((3, *stem), stem)):
            stride = 2 if index in (0, 2) else 1
            conv = Conv3x3(inputs, outputs) if stride == 1 else nn.Conv2d(inputs, outputs, 3, stride, 1)
            layers += [conv, nn.LeakyReLU(SLOPE, inplace=True)]
        self.stem = nn.Sequential(*layers)
        self.layers, self.concats = nn.ModuleList(), nn.ModuleList()
        self.widest = stem[-1] + max(outputs for outputs, _ in grouped)
        inputs = stem[-1]
        for outputs, groups in grouped:
            self.layers.append(Conv3x3(inputs, outputs, groups=groups))
            inputs = stem[-1] + outputs
        for _, groups in grouped[1:]:
            self.concats.append(GroupConcat(groups))

    def at_once(self, x: Tensor) -> int:
        """How many of such frames are worth a call: their widest maps count, which are a quarter of the size."""
        return max(1, 4 * AT_ONCE // (self.widest * x[0, 0].numel() // 16))

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x)
        x = functional.leaky_relu(self.layers[0](first), SLOPE)
        for concat, layer in zip(self.concats, self.layers[1:], strict=True):
            x = functional.leaky_relu(layer(concat(first, x)), SLOPE)
        return x


class GroupConcat(nn.Module):
    """Two maps in one: for each group its part of the first, then its part of the second."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        parts = zip(first.chunk(self.groups, dim=1), second.chunk(self.groups, dim=1), strict=True)
        return torch.cat([part for pair in parts for part in pair], dim=1)


class BiasMap(nn.Module):
    """Adds a learned map of one size; for maps (N, C, h, w) of another, it is resized bilinearly."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels, *size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The map begins at zero."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        return x + functional.interpolate(self.bias[None], size, mode="bilinear", align_corners=False)


SMALL = E2FGVIConfig(
    stem=(16, 16, 32, 48),
    grouped=((64, 1), (64, 2), (64, 4), (48, 4), (32, 1)),
    decoder=(32, 16),
    flow_levels=4,
    flow_widths=(16, 32, 16, 8),
    deform_groups=4,
    hidden=96,
    depth=3,
    feed_forward=12,
    own_flows=True,
    he_start=True,
    corners=False,
    quiet_start=True,
)
PRESETS = {
    "e2fgvi": {
        "published": E2FGVIConfig(bias_map=(60, 108)),
        "small": replace(SMALL, bias_map=(16, 16)),
    },
    "e2fgvi-hq": {"published": E2FGVIConfig(), "small": SMALL},
}
