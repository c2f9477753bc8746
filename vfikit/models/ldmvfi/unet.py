"""LDMVFI's denoising U-Net (arXiv:2303.09508, section 3.3): the noise in a latent, given its neighbours' latents.

The U-Net of guided diffusion with multi-axis attention. The neighbours' latents come in beside the noisy one
("concat", published), or as the context of cross-attention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...layers.attention import HeadAttention, SpatialTransformer
from ...layers.embeddings import timestep_embedding
from ...layers.maxvit import MaxAttention, MaxCrossAttention
from ...layers.norms import group_norm
from ...layers.resnet import Downsample, TimeResBlock, Upsample, zero


@dataclass(frozen=True)
class UNetConfig:
    """The published U-Net, c = 256. ``attention`` is "max" or "full" self-attention, with the neighbours' latents among
    the input's channels, or "max_cross" or "cross" attention to a context of ``context_channels``.
    """

    in_channels: int = 9
    out_channels: int = 3
    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4)  # of the width, a level each; every level but the last halves the sides
    blocks: int = 2  # residual blocks a level, and one more on the way up
    attention: str = "max"
    attention_scales: tuple[int, ...] = (4, 2, 1)  # a map at 1 / scale of the latent's sides attends
    context_channels: int = 6
    head_width: int = 32
    window: int = 2  # of multi-axis attention, at every scale
    resample_blocks: bool = False  # residual blocks halve and double the sides, in place of convolutions
    scale_shift: bool = False  # the time scales and shifts norms, in place of being added
    groups: int = 32  # of every norm; -w for groups of w channels
    dropout: float = 0.0

    @property
    def crosses(self) -> bool:
        """Whether the neighbours come in as a context."""
        return self.attention in ("max_cross", "cross")

    @property
    def multiple(self) -> int:
        """What divides the sides of a latent that this can take."""
        scales = [2**level for level in range(len(self.multipliers))]
        attending = [s for s in scales if s in self.attention_scales] + scales[-1:]
        windows = max(attending) * self.window if self.attention.startswith("max") else 1
        return max(windows, scales[-1])


class DenoisingUNet(nn.Module):
    """``forward(x (N, in_channels, h, w), t (N,), context=None)`` -> (N, out_channels, h, w).

    ``t`` counts steps of the schedule; ``context`` is (N, context_channels, h, w), where the config attends to one.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        time = 4 * config.width
        self.time_embed = nn.Sequential(nn.Linear(config.width, time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks, widths = down_path(config, time)
        width = widths[-1]
        self.middle_block = Stage(block(config, width, width, time), attention(config, width))
        self.middle_block.append(block(config, width, width, time))
        self.output_blocks = up_path(config, time, widths)
        self.out = nn.Sequential(
            group_norm(config.width, config.groups, 1e-5),
            nn.SiLU(),
            nn.Conv2d(config.width, config.out_channels, 3, padding=1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.out[-1])

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        emb = self.time_embed(timestep_embedding(t, self.config.width).to(x.dtype))
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, context)
        return self.out(h)


class Stage(nn.Sequential):
    """Layers in a row, each given what it asks for: the time, the context, or the map alone."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, TimeResBlock):
                x = layer(x, emb)
            elif isinstance(layer, MaxCrossAttention | SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


def down_path(config: UNetConfig, time: int) -> tuple[nn.ModuleList, list[int]]:
    """The stages down to the smallest map, and the width of each one's output."""
    width = config.width
    stages, widths = nn.ModuleList([Stage(nn.Conv2d(config.in_channels, width, 3, padding=1))]), [width]
    for level, multiplier in enumerate(config.multipliers):
        for _ in range(config.blocks):
            stage = Stage(block(config, width, config.width * multiplier, time))
            width = config.width * multiplier
            if 2**level in config.attention_scales:
                stage.append(attention(config, width))
            stages.append(stage)
            widths.append(width)
        if level < len(config.multipliers) - 1:
            smaller = block(config, width, width, time, "down") if config.resample_blocks else Downsample(width)
            stages.append(Stage(smaller))
            widths.append(width)
    return stages, widths


def up_path(config: UNetConfig, time: int, widths: list[int]) -> nn.ModuleList:
    """The stages back up; each takes the map and the output of its counterpart on the way down."""
    stages, skips, width = nn.ModuleList(), list(widths), widths[-1]
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        for i in range(config.blocks + 1):
            stage = Stage(block(config, width + skips.pop(), config.width * multiplier, time))
            width = config.width * multiplier
            if 2**level in config.attention_scales:
                stage.append(attention(config, width))
            if level and i == config.blocks:
                larger = block(config, width, width, time, "up") if config.resample_blocks else Upsample(width)
                stage.append(larger)
            stages.append(stage)
    return stages


def block(config: UNetConfig, in_channels: int, out_channels: int, time: int, resample: str = "none") -> TimeResBlock:
    return TimeResBlock(
        in_channels, out_channels, time, config.dropout, config.scale_shift, resample, groups=config.groups
    )


def attention(config: UNetConfig, width: int) -> nn.Module:
    """Attention of the config's kind."""
    match config.attention:
        case "max":
            return MaxAttention(width, config.head_width, config.window)
        case "full":
            return HeadAttention(width, config.head_width, config.groups)
        case "max_cross":
            return MaxCrossAttention(width, config.context_channels, config.head_width, config.window)
        case "cross":
            return SpatialTransformer(width, config.context_channels, config.head_width, groups=config.groups)
    raise ValueError(f"DenoisingUNet: attention is {config.attention!r}, expected 'max', 'full', 'max_cross', 'cross'")
