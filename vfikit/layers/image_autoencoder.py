"""The KL autoencoder of latent diffusion (arXiv:2112.10752) over images; names are those of its checkpoints."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as functional
from torch import Tensor, nn

from ..ops import Conv3x3
from .attention import PixelAttention
from .norms import group_norm
from .posterior import GaussianPosterior
from .resnet import Downsample, ResnetBlock, Upsample


class ImageAutoencoder(nn.Module):
    """``encode`` gives a posterior over latents (N, z, h, w) of images (N, 3, H, W) in [-1, 1], ``decode`` images.

    Level i is ``width * multipliers[i]`` wide; all but the last halve the sides. Neither direction scales the latent.
    ``load_state_dict`` takes diffusers' ``AutoencoderKL`` too.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        latent_channels: int = 4,
        groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        self.factor = 2 ** (len(widths) - 1)
        self.encoder = ImageEncoder(width, widths, blocks, latent_channels, groups)
        self.decoder = ImageDecoder(widths, blocks, latent_channels, groups)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.register_load_state_dict_pre_hook(_rename)

    @property
    def last_layer(self) -> Tensor:
        """The weight by whose gradients the adversarial loss is balanced."""
        return self.decoder.conv_out.weight

    def moments(self, image: Tensor) -> Tensor:
        """Means and log-variances, (N, 2 z, h, w)."""
        return self.quant_conv(self.encoder(image))

    def encode(self, image: Tensor) -> GaussianPosterior:
        return GaussianPosterior.of(self.moments(image))

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent))


class ImageEncoder(nn.Module):
    """(N, 3, H, W) -> (N, 2 z, h, w)."""

    def __init__(self, width: int, widths: Sequence[int], blocks: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.conv_in = Conv3x3(3, width)
        inputs, last = [width, *widths], len(widths) - 1
        self.down = nn.ModuleList(
            Level(inputs[i], widths[i], blocks, groups, down=i < last) for i in range(len(widths))
        )
        self.mid = Middle(widths[-1], groups)
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = Conv3x3(widths[-1], 2 * latent_channels)

    def forward(self, image: Tensor) -> Tensor:
        h = self.conv_in(image)
        for level in self.down:
            h = level(h)
        return self.conv_out(functional.silu(self.norm_out(self.mid(h))))


class ImageDecoder(nn.Module):
    """(N, z, h, w) -> (N, 3, H, W); its levels are kept finest first, as published."""

    def __init__(self, widths: Sequence[int], blocks: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.conv_in = Conv3x3(latent_channels, widths[-1])
        self.mid = Middle(widths[-1], groups)
        inputs = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(Level(inputs[i], widths[i], blocks + 1, groups, up=i > 0) for i in range(len(widths)))
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = Conv3x3(widths[0], 3)

    def forward(self, latent: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(functional.silu(self.norm_out(h)))


class Level(nn.Module):
    """Residual blocks, then half or twice the sides."""

    def __init__(
        self, in_channels: int, width: int, blocks: int, groups: int, down: bool = False, up: bool = False
    ) -> None:
        super().__init__()
        inputs = [in_channels, *[width] * (blocks - 1)]
        self.block = nn.ModuleList(ResnetBlock(n, width, groups=groups) for n in inputs)
        self.downsample = Downsample(width, asymmetric=True) if down else None
        self.upsample = Upsample(width) if up else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        resample = self.downsample or self.upsample
        return x if resample is None else resample(x)


class Middle(nn.Module):
    """Two residual blocks and attention of one head between them."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width, groups=groups)
        self.attn_1 = PixelAttention(width, groups)
        self.block_2 = ResnetBlock(width, width, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


# diffusers' names and ours; two names of a part are an older version's and today's
PARTS = (
    (r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"up_blocks\.(\d+)\.resnets\.", r"up.\1.block."),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.group_norm\.", "mid.attn_1.norm."),
    (r"mid_block\.attentions\.0\.(?:to_q|query)\.", "mid.attn_1.q."),
    (r"mid_block\.attentions\.0\.(?:to_k|key)\.", "mid.attn_1.k."),
    (r"mid_block\.attentions\.0\.(?:to_v|value)\.", "mid.attn_1.v."),
    (r"mid_block\.attentions\.0\.(?:to_out\.0|proj_attn)\.", "mid.attn_1.proj_out."),
    (r"conv_shortcut\.", "nin_shortcut."),
    (r"conv_norm_out\.", "norm_out."),
)


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of diffusers' ``AutoencoderKL`` under our names; one that has ours already stays as it is.

    Its decoder's levels are kept coarsest first, and the middle's 1x1 convolutions as matrices.
    """
    levels = [int(found[1]) for name in state if (found := re.search(r"decoder\.up_blocks\.(\d+)\.", name))]
    renamed = {}
    for name, tensor in state.items():
        own = name
        for theirs, ours in PARTS if "_block" in name or "conv_norm_out" in name else ():
            own = re.sub(theirs, ours, own)
        if own != name:
            own = re.sub(r"(decoder\.up\.)(\d+)", lambda found: f"{found[1]}{max(levels) - int(found[2])}", own)
        matrix = own != name and re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", own)
        renamed[own] = tensor[:, :, None, None] if matrix and tensor.ndim == 2 else tensor
    return renamed


def _rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    state |= {prefix + name: tensor for name, tensor in from_diffusers(own).items()}
