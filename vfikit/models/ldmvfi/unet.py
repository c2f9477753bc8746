"""LDMVFI's denoising U-Net (arXiv:2303.09508, section 3.3): the noise in a latent, given its neighbours' latents.

The U-Net of guided diffusion with multi-axis attention. The neighbours' latents come in beside the noisy one
("concat", published), or as the context of cross-attention.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ...layers.attention import HeadAttention, SpatialTransformer
from ...layers.embeddings import timestep_embedding
from ...layers.maxvit import MaxAttention, MaxCrossAttention
from ...layers.norms import group_norm
from ...layers.resnet import Downsample, TimeResBlock, Upsample, zero
from ...layers.unet import UNetBody, UNetParts


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


class DenoisingUNet(UNetBody):
    """``forward(x (N, in_channels, h, w), t (N,), context=None)`` -> (N, out_channels, h, w).

    ``t`` counts steps of the schedule; ``context`` is (N, context_channels, h, w), where the config attends to one.
    """

    def __init__(self, config: UNetConfig) -> None:
        time = 4 * config.width
        stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        scales = config.attention_scales
        super().__init__(stem, config.width, config.multipliers, config.blocks, scales, parts(config, time))
        self.config = config
        self.time_embed = nn.Sequential(nn.Linear(config.width, time), nn.SiLU(), nn.Linear(time, time))
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
        return self.out(self.body(x, emb, context))


def parts(config: UNetConfig, time: int) -> UNetParts:
    """The config's blocks, as functions of widths."""

    def block(in_channels: int, out_channels: int, resample: str = "none") -> TimeResBlock:
        return TimeResBlock(
            in_channels, out_channels, time, config.dropout, config.scale_shift, resample, groups=config.groups
        )

    def smaller(width: int) -> nn.Module:
        return block(width, width, "down") if config.resample_blocks else Downsample(width)

    def larger(width: int) -> nn.Module:
        return block(width, width, "up") if config.resample_blocks else Upsample(width)

    return UNetParts(block, partial(attention, config), smaller, larger)


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
