"""LVDM's denoising U-Net over latent clips (N, C, T, h, w): residual blocks in space, attention in space and time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...layers.embeddings import timestep_embedding
from ...layers.norms import group_norm
from ...layers.resnet import zero
from ...layers.unet import UNetBody, UNetParts
from ...layers.video_attention import JointSpaceTimeAttention, SpaceTimeAttention, SpaceTimeTransformer
from ...layers.video_resnet import FrameConv3d, VideoDownsample, VideoResBlock, VideoUpsample

ATTENTIONS = ("space_time", "joint", "transformer")
LEVEL_EMBEDDINGS = ("none", "label", "per_frame")


@dataclass(frozen=True)
class VideoUNetConfig:
    """The published U-Net for short clips.

    ``attention`` is "space_time" (within frames, then along time), "joint" (over both at once) or "transformer" (with
    a context of ``context_channels``, say of words). ``level_embedding`` says how a network that is given some latents
    learns how noisy they are: "none", "label" (one number a clip), "per_frame" (of the given frames alone).
    """

    in_channels: int = 4  # of the latent, and one more where a mask of given latents comes with it
    out_channels: int = 4
    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 3, 4)  # of the width, a level each; every level but the last halves the sides
    blocks: int = 3  # residual blocks a level, and one more on the way up
    attention: str = "space_time"
    attention_scales: tuple[int, ...] = (8, 4, 2)  # a map at 1 / scale of the latent's sides attends
    heads: int = 4
    length: int = 4  # in latents, of a training clip; relative positions reach as far
    relative: str = "published"  # positions in "space_time" attention: see RelativeAttention
    context_channels: int = 0
    level_embedding: str = "none"
    levels: int = 251  # noise levels that a "label" knows
    scale_shift: bool = True  # the time scales and shifts norms, in place of being added
    kernel_t: int = 1  # of convolutions, along time
    resample_blocks: bool = False  # residual blocks halve and double the sides, in place of convolutions
    groups: int = 32  # of every norm; -w for groups of w channels
    dropout: float = 0.0

    @property
    def multiple(self) -> int:
        """What divides the sides of a latent that this can take."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def conditional(self) -> bool:
        """Whether a mask of given latents comes in with the latent."""
        return self.in_channels > self.out_channels


class VideoUNet(UNetBody):
    """``forward(x (N, in_channels, T, h, w), t (N,), context=None, level=None, given=None)`` -> (N, out_channels, ...).

    ``t`` counts steps of the schedule and may be fractional; ``context`` is (N, M, context_channels). ``level`` (N,) is
    the time of the noise in given latents, -1 where none are given, and ``given`` (N, 1, T, h, w) is their mask, which
    only "per_frame" levels need.
    """

    def __init__(self, config: VideoUNetConfig) -> None:
        for field, known in (("attention", ATTENTIONS), ("level_embedding", LEVEL_EMBEDDINGS)):
            if getattr(config, field) not in known:
                raise ValueError(f"VideoUNet: {field} is {getattr(config, field)!r}, expected one of {known}")
        time = 4 * config.width
        stem = FrameConv3d(config.in_channels, config.width, 3, config.kernel_t)
        scales = config.attention_scales
        super().__init__(stem, config.width, config.multipliers, config.blocks, scales, parts(config, time))
        self.config = config
        self.time_embed = time_embedding(config.width, time)
        self.time_embed_cond = time_embedding(config.width, time) if config.level_embedding == "per_frame" else None
        self.label_emb = nn.Embedding(config.levels, time) if config.level_embedding == "label" else None
        self.out = nn.Sequential(
            group_norm(config.width, config.groups, 1e-5),
            nn.SiLU(),
            FrameConv3d(config.width, config.out_channels, 3, config.kernel_t),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zero(self.out[-1])

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        level: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        if x.shape[3] % self.config.multiple or x.shape[4] % self.config.multiple:
            got = f"{x.shape[3]} x {x.shape[4]}"
            raise ValueError(f"VideoUNet: a latent of {got}, expected multiples of {self.config.multiple}")
        if context is None and self.config.context_channels:
            raise ValueError(
                f"VideoUNet: got no context, expected (N, M, {self.config.context_channels}), say of words"
            )
        emb = self.time_embed(self.embedded(t, x))
        if level is not None:
            emb = self.with_level(emb, x, level, given)
        return self.out(self.body(x, emb, context))

    def embedded(self, t: Tensor, x: Tensor) -> Tensor:
        return timestep_embedding(t, self.config.width).to(x.dtype)

    def with_level(self, emb: Tensor, x: Tensor, level: Tensor, given: Tensor | None) -> Tensor:
        """The embedding (N, E) with that of the noise level: added, or (N, T, E) in place of it where given."""
        known = (level >= 0).to(x.dtype)[:, None]
        if self.label_emb is not None:
            return emb + known * self.label_emb(level.clamp(min=0))
        if self.time_embed_cond is None:
            raise ValueError("VideoUNet: got a noise level, expected none: level_embedding is 'none'")
        if given is None:
            raise ValueError("VideoUNet: got a noise level without a mask, expected the mask of the given latents")
        share = given[:, 0, :, :1, 0].to(x.dtype) * known[:, None]  # (N, T, 1)
        return torch.lerp(emb[:, None], self.time_embed_cond(self.embedded(level, x))[:, None], share)


def time_embedding(width: int, time: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))


def parts(config: VideoUNetConfig, time: int) -> UNetParts:
    """The config's blocks, as functions of widths."""

    def block(in_channels: int, out_channels: int, resample: str = "none") -> VideoResBlock:
        dropout, groups = config.dropout, config.groups
        return VideoResBlock(
            in_channels, out_channels, time, dropout, config.scale_shift, resample, config.kernel_t, groups
        )

    def attention(width: int) -> nn.Module:
        if config.attention == "joint":
            return JointSpaceTimeAttention(width, config.heads, config.groups)
        if config.attention == "transformer":
            return SpaceTimeTransformer(
                width, config.context_channels, config.heads, config.length, groups=config.groups
            )
        return SpaceTimeAttention(width, config.heads, config.length, config.relative, config.groups)

    def smaller(width: int) -> nn.Module:
        return block(width, width, "down") if config.resample_blocks else VideoDownsample(width, config.kernel_t)

    def larger(width: int) -> nn.Module:
        return block(width, width, "up") if config.resample_blocks else VideoUpsample(width, config.kernel_t)

    return UNetParts(block, attention, smaller, larger)
