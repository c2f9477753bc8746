"""The discriminator of video inpainting: it judges patches of whole clips."""

from itertools import pairwise

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class TemporalPatchDiscriminator(nn.Module):
    """Temporal PatchGAN (arXiv:1904.10247) with spectral norm: clips (B, T, 3, H, W) -> scores (B, T, 4 width, h, w).

    Six convolutions 3x5x5 of stride (1, 2, 2); there are 4 ``width`` scores of each patch, as published. h and w are
    about H / 64 and W / 64. The first convolution is padded by 1 on every axis, as published.
    """

    def __init__(self, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.conv = nn.Sequential()
        for index, (wide, narrow) in enumerate(pairwise([in_channels, *widths])):
            padding = (1, 1, 1) if index == 0 else (1, 2, 2)
            self.conv.append(SpectralConv3d(wide, narrow, (3, 5, 5), (1, 2, 2), padding))
            self.conv.append(nn.LeakyReLU(0.2))
        self.conv.append(nn.Conv3d(widths[-1], 4 * width, (3, 5, 5), (1, 2, 2), (1, 2, 2)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """From N(0, 0.02), as published."""
        for module in self.conv:
            if isinstance(module, SpectralConv3d):
                nn.init.normal_(module.weight_orig, std=0.02)
            elif isinstance(module, nn.Conv3d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor) -> Tensor:
        if frames.ndim != 5:
            raise ValueError(f"TemporalPatchDiscriminator: frames are {tuple(frames.shape)}, expected (B, T, 3, H, W)")
        return self.conv(frames.transpose(1, 2)).transpose(1, 2)


class SpectralConv3d(nn.Module):
    """3-D convolution without bias whose weight is divided by its largest singular value (arXiv:1802.05957).

    That is estimated by one step of power iteration a call in training (``weight_u``, ``weight_v`` move), none in
    evaluation; the names are those of PyTorch's first spectral norm.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight_orig = nn.Parameter(torch.empty(out_channels, in_channels, *kernel_size))
        nn.init.kaiming_uniform_(self.weight_orig, a=5**0.5)
        self.register_buffer("weight_u", functional.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("weight_v", functional.normalize(torch.randn(self.weight_orig[0].numel()), dim=0))

    def sigma(self) -> Tensor:
        """The singular value; gradients flow through the weight only."""
        matrix = self.weight_orig.flatten(1)  # no matrix products: autocast would make halves of them
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(functional.normalize((matrix * self.weight_u[:, None]).sum(0), dim=0))
                self.weight_u.copy_(functional.normalize((matrix * self.weight_v).sum(1), dim=0))
        # clones: another call before the backward pass moves the buffers
        return ((matrix * self.weight_v.clone()).sum(1) * self.weight_u.clone()).sum()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_orig / self.sigma()
        return functional.conv3d(x, weight, None, self.stride, self.padding)
