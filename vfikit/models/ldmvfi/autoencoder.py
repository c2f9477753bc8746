"""VQ-FIGAN, LDMVFI's autoencoder (arXiv:2303.09508, section 3.2): a frame to a latent, and back beside its neighbours.

The encoder halves a frame's sides once a level and gives, beside the latent, the features of every level. The decoder
goes back up from a quantised latent; at every level it attends to the features of both neighbours. What comes out is
no picture but kernels, offsets and a mask that sample the neighbours themselves, and a residual.

Frames are (N, 3, H, W), RGB in [-1, 1], their sides multiples of ``config.multiple``.
"""

from dataclasses import dataclass
from math import lcm
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ...layers.attention import LinearAttention, PixelAttention
from ...layers.maxvit import MaxAttention, MaxCrossAttention
from ...layers.norms import group_norm
from ...layers.quantize import VectorQuantizer
from ...layers.resnet import Downsample, ResnetBlock, Upsample
from ...layers.separable_synthesis import SeparableSynthesis
from ...ops import Conv3x3


@dataclass(frozen=True)
class AutoencoderConfig:
    """The published autoencoder, f = 32. Its ablations: f by the length of ``multipliers``; decoders V2 (``direct``)
    and V1 (``direct`` and no ``cross_attention``); other attention, with ``resolution`` and ``attention_resolutions``
    saying at which sizes, beside the middle.
    """

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2, 2, 4)  # of the width, a level each; every level halves the sides
    blocks: int = 1  # residual blocks a level
    latent_channels: int = 3  # the encoder's and decoder's
    code_width: int = 3  # the latent's
    codes: int = 8192
    resolution: int = 256  # of the frames that it is trained on
    attention: str = "max"  # "max", "vanilla", "linear" or "none"
    attention_resolutions: tuple[int, ...] = ()
    cross_attention: bool = True
    direct: bool = False  # the decoder ends in the frame itself
    window: int = 8  # at most; a level of smaller maps, at ``resolution``, has smaller windows
    head_width: int = 32  # of cross-attention
    taps: int = 5
    head_widths: tuple[int, int] = (64, 32)  # hidden ones of the heads that predict kernels and offsets
    groups: int = 32  # of every norm; -w for groups of w channels
    dropout: float = 0.0

    @property
    def factor(self) -> int:
        """How many times a latent's sides are smaller than the frame's."""
        return 2 ** len(self.multipliers)

    def window_at(self, level: int) -> int:
        """The window at a map of 1 / 2^level of the frame's sides."""
        return max(1, min(self.window, self.resolution >> level))

    @property
    def multiple(self) -> int:
        """What divides the sides of a frame that this can take: every map whole windows."""
        return lcm(*(2**level * self.window_at(level) for level in range(1, len(self.multipliers) + 1)))


class Encoded(NamedTuple):
    """What is known of a frame: its latent (N, code_width, h, w), not quantised, and its features, finest first."""

    latent: Tensor
    features: list[Tensor]


class Decoded(NamedTuple):
    """A frame (N, 3, H, W) in about [-1, 1], the neighbours sampled for it (none where it was made directly), maps."""

    frame: Tensor
    sampled: tuple[Tensor, ...]
    maps: dict[str, Tensor]


class Reconstruction(NamedTuple):
    """What training the autoencoder reads off one pass."""

    decoded: Decoded
    codebook_loss: Tensor
    indices: Tensor  # (N * h * w,)
    warped: tuple[Tensor, ...] = ()  # both neighbours as sampled, but without the mask


class VQFIGAN(nn.Module):
    """``forward(frame, frame0, frame1)`` -> ``Reconstruction`` of the frame between two, from its own latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_width, 1)
        self.quantize = VectorQuantizer(config.codes, config.code_width)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def forward(self, frame: Tensor, frame0: Tensor, frame1: Tensor) -> Reconstruction:
        latent, loss, indices = self.quantize(self.encode(frame).latent)
        neighbours = self.encode(frame0), self.encode(frame1)
        return Reconstruction(self.decode_codes(latent, *neighbours, frame0, frame1), loss, indices)

    def encode(self, frame: Tensor) -> Encoded:
        latent, features = self.encoder(frame)
        return Encoded(self.quant_conv(latent), features)

    def decode(self, latent: Tensor, encoded0: Encoded, encoded1: Encoded, frame0: Tensor, frame1: Tensor) -> Decoded:
        """The frame of a latent that is quantised first."""
        codes = self.quantize(latent).latent
        return self.decode_codes(codes, encoded0, encoded1, frame0, frame1)

    def decode_codes(
        self, codes: Tensor, encoded0: Encoded, encoded1: Encoded, frame0: Tensor, frame1: Tensor
    ) -> Decoded:
        return self.decoder(self.post_quant_conv(codes), encoded0.features, encoded1.features, frame0, frame1)


class Encoder(nn.Module):
    """(N, 3, H, W) -> the latent (N, latent_channels, h, w), and the output of every level, finest first."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = Conv3x3(3, config.width)
        inputs = [config.width, *widths]
        self.down = nn.ModuleList(DownLevel(config, i, inputs[i], width) for i, width in enumerate(widths))
        self.mid = Middle(config, widths[-1])
        self.norm_out = group_norm(widths[-1], config.groups)
        self.conv_out = Conv3x3(widths[-1], config.latent_channels)

    def forward(self, frame: Tensor) -> tuple[Tensor, list[Tensor]]:
        h, features = self.conv_in(fast_layout(frame)), []
        for level in self.down:
            h = level(h)
            features.append(h)
        return self.conv_out(functional.silu(self.norm_out(self.mid(h)))), features


class Decoder(nn.Module):
    """A latent, the features of both neighbours and the neighbours themselves -> ``Decoded``."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = Conv3x3(config.latent_channels, widths[-1])
        self.mid = Middle(config, widths[-1])
        self.up = nn.ModuleList(UpLevel(config, i, inputs[i], width) for i, width in enumerate(widths))
        self.norm_out = group_norm(widths[0], config.groups)
        self.conv_out = Conv3x3(widths[0], 3 if config.direct else widths[0])
        self.synthesis = (
            None if config.direct else SeparableSynthesis(widths[0], config.taps, hidden=config.head_widths)
        )

    def forward(
        self, latent: Tensor, features0: list[Tensor], features1: list[Tensor], frame0: Tensor, frame1: Tensor
    ) -> Decoded:
        h = self.mid(self.conv_in(fast_layout(latent)))
        for level, feature0, feature1 in reversed(list(zip(self.up, features0, features1))):
            h = level(h, feature0, feature1)
        h = self.conv_out(functional.silu(self.norm_out(h)))
        if self.synthesis is None:
            return Decoded(h, (), {})
        made = self.synthesis(h, frame0, frame1)
        return Decoded(made.frame, (made.sampled0, made.sampled1), made.maps)


class DownLevel(nn.Module):
    """Residual blocks, each with attention where the config has it at this size, then half the sides."""

    def __init__(self, config: AutoencoderConfig, index: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.block = residual_blocks(config, in_channels, width)
        self.attn = level_attentions(config, index, width)
        self.downsample = Downsample(width, asymmetric=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(through(x, self.block, self.attn))


class UpLevel(nn.Module):
    """Residual blocks with attention as below, cross-attention to both neighbours' features, then twice the sides."""

    def __init__(self, config: AutoencoderConfig, index: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.block = residual_blocks(config, in_channels, width)
        self.attn = level_attentions(config, index, width)
        window, cross = config.window_at(index + 1), config.cross_attention
        self.cross_attn = MaxCrossAttention(width, 2 * width, config.head_width, window) if cross else None
        self.upsample = Upsample(width)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Half of what the context is expanded to starts as differences of the neighbours, which its norm makes large.

        And attention starts local. Otherwise what moves drowns in what stays, and a training from scratch rests for
        thousands of steps at the average of both frames.
        """
        if self.cross_attn is None:
            return
        expand: Tensor = self.cross_attn.proj_in[0].weight  # type: ignore[assignment]
        of0, of1 = expand[::2].chunk(2, dim=1)
        of1.copy_(-of0)
        for attend in (self.cross_attn.attn_block, self.cross_attn.attn_grid):
            attend.fn.start_local()

    def forward(self, x: Tensor, feature0: Tensor, feature1: Tensor) -> Tensor:
        x = through(x, self.block, self.attn)
        if self.cross_attn is not None:
            x = self.cross_attn(x, torch.cat([feature0, feature1], dim=1))
        return self.upsample(x)


class Middle(nn.Module):
    """At the smallest size: residual block, attention, residual block."""

    def __init__(self, config: AutoencoderConfig, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width, dropout=config.dropout, groups=config.groups)
        self.attn_1 = attention(config, width, config.window_at(len(config.multipliers)))
        self.block_2 = ResnetBlock(width, width, dropout=config.dropout, groups=config.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def fast_layout(x: Tensor) -> Tensor:
    """Channels last on a CPU: oneDNN's convolutions are faster so, backward above all."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def residual_blocks(config: AutoencoderConfig, in_channels: int, width: int) -> nn.ModuleList:
    inputs = [in_channels] + [width] * (config.blocks - 1)
    return nn.ModuleList(ResnetBlock(n, width, dropout=config.dropout, groups=config.groups) for n in inputs)


def level_attentions(config: AutoencoderConfig, index: int, width: int) -> nn.ModuleList:
    """One attention a block, or none at this level."""
    attends = config.resolution >> index in config.attention_resolutions
    window = config.window_at(index)
    return nn.ModuleList(attention(config, width, window) for _ in range(config.blocks if attends else 0))


def through(x: Tensor, blocks: nn.ModuleList, attentions: nn.ModuleList) -> Tensor:
    for i, block in enumerate(blocks):
        x = block(x)
        if len(attentions):
            x = attentions[i](x)
    return x


def attention(config: AutoencoderConfig, width: int, window: int) -> nn.Module:
    """Self-attention of the config's kind; the multi-axis one has a single head, as wide as the map."""
    match config.attention:
        case "max":
            return MaxAttention(width, width, window)
        case "vanilla":
            return PixelAttention(width, config.groups)
        case "linear":
            return LinearAttention(width)
        case "none":
            return nn.Identity()
    raise ValueError(f"VQFIGAN: attention is {config.attention!r}, expected 'max', 'vanilla', 'linear' or 'none'")
