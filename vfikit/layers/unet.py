"""The frame of guided diffusion's U-Nets (arXiv:2105.05233): which blocks stand where, whatever the blocks are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import SpatialTransformer
from .maxvit import MaxCrossAttention
from .resnet import TimeResBlock
from .video_attention import SpaceTimeTransformer


@dataclass(frozen=True)
class UNetParts:
    """What a U-Net is made of: a residual block from some width to another; the others keep the width they are given.

    ``smaller`` halves the sides and ``larger`` doubles them.
    """

    block: Callable[[int, int], TimeResBlock]
    attention: Callable[[int], nn.Module]
    smaller: Callable[[int], nn.Module]
    larger: Callable[[int], nn.Module]


class UNetBody(nn.Module):
    """From the first convolution ``stem`` to the last residual block; subclasses add what embeds times, and the end.

    Level i is ``width * multipliers[i]`` wide, has ``blocks`` residual blocks, one more on the way up, and attention
    after each where ``attention_scales`` has 2^i; all levels but the last halve the sides.
    """

    def __init__(
        self,
        stem: nn.Module,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_scales: Sequence[int],
        parts: UNetParts,
    ) -> None:
        super().__init__()
        self.input_blocks, widths = down_path(stem, width, multipliers, blocks, attention_scales, parts)
        last = widths[-1]
        self.middle_block = Stage(parts.block(last, last), parts.attention(last), parts.block(last, last))
        self.output_blocks = up_path(widths, width, multipliers, blocks, attention_scales, parts)

    def body(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, in, ...) -> (N, width * multipliers[0], ...), given the embedding of times and a context, if any."""
        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, context)
        return h

    def checkpoint_blocks(self, enabled: bool = True) -> None:
        """Whether training recomputes residual blocks and transformers in its backward pass, to save their memory."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.checkpointed = enabled


class Stage(nn.Sequential):
    """Layers in a row, each given what it asks for: the time, the context, or the map alone."""

    checkpointed = False

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, TimeResBlock):
                x = self.through(layer, x, emb)
            elif isinstance(layer, MaxCrossAttention | SpatialTransformer | SpaceTimeTransformer):
                x = self.through(layer, x, context)
            else:
                x = layer(x)
        return x

    def through(self, layer: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.checkpointed and self.training:
            made: Tensor = checkpoint(layer, x, condition, use_reentrant=False)
            return made
        return layer(x, condition)


def down_path(
    stem: nn.Module,
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention_scales: Sequence[int],
    parts: UNetParts,
) -> tuple[nn.ModuleList, list[int]]:
    """The stages down to the smallest map, and the width of each one's output."""
    stages, widths = nn.ModuleList([Stage(stem)]), [width]
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            stage = Stage(parts.block(widths[-1], width * multiplier))
            if 2**level in attention_scales:
                stage.append(parts.attention(width * multiplier))
            stages.append(stage)
            widths.append(width * multiplier)
        if level < len(multipliers) - 1:
            stages.append(Stage(parts.smaller(widths[-1])))
            widths.append(widths[-1])
    return stages, widths


def up_path(
    widths: Sequence[int],
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention_scales: Sequence[int],
    parts: UNetParts,
) -> nn.ModuleList:
    """The stages back up; each takes the map and the output of its counterpart on the way down."""
    stages, skips, wide = nn.ModuleList(), list(widths), widths[-1]
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for i in range(blocks + 1):
            stage = Stage(parts.block(wide + skips.pop(), width * multiplier))
            wide = width * multiplier
            if 2**level in attention_scales:
                stage.append(parts.attention(wide))
            if level and i == blocks:
                stage.append(parts.larger(wide))
            stages.append(stage)
    return stages
