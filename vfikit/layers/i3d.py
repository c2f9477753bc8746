"""I3D (arXiv:1705.07750): Inception whose kernels are inflated over time. Video distances compare its features."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

Triple = tuple[int, int, int]
# of each Mixed block: 1x1x1; 1x1x1 then 3x3x3; 1x1x1 then 3x3x3; after pooling 1x1x1
WIDTHS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Video (N, 3, T, H, W) in [-1, 1] -> logits (N, classes) of actions; 12.7 million parameters for 400 classes.

    ``features`` stops at ``Mixed_5c``: (N, 1024, T / 8, H / 32, W / 32), rounded up. Names are those of the weights
    that circulate, so that plain ``load_state_dict`` takes them. ``epsilon`` is of the norms: 1e-3 as trained and in
    E2FGVI's VFID, 1e-5 in LVDM's FVD. Logits need at least 9 frames of 193 pixels a side.
    """

    def __init__(self, classes: int = 400, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, (7, 7, 7), (2, 2, 2), epsilon)
        self.MaxPool3d_2a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64, (1, 1, 1), epsilon=epsilon)
        self.Conv3d_2c_3x3 = Unit(64, 192, (3, 3, 3), epsilon=epsilon)
        self.MaxPool3d_3a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, widths in WIDTHS.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = SamePool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = SamePool((2, 2, 2), (2, 2, 2))
            self.add_module(name, Mixed(channels, widths, epsilon))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.stages = tuple(self._modules)
        self.pool = nn.AvgPool3d((2, 7, 7), stride=1)
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(channels, classes, 1)})

    def features(self, video: Tensor) -> Tensor:
        """What ``Mixed_5c`` gives."""
        for name in self.stages:
            video = self.get_submodule(name)(video)
        return video

    def forward(self, video: Tensor) -> Tensor:
        return self.logits["conv3d"](self.pool(self.features(video))).mean((2, 3, 4))


class Mixed(nn.Module):
    """Four ways side by side: 1x1x1; two times 1x1x1 then 3x3x3; pooling then 1x1x1."""

    def __init__(self, channels: int, widths: tuple[int, ...], epsilon: float) -> None:
        super().__init__()
        self.b0 = Unit(channels, widths[0], (1, 1, 1), epsilon=epsilon)
        self.b1a = Unit(channels, widths[1], (1, 1, 1), epsilon=epsilon)
        self.b1b = Unit(widths[1], widths[2], (3, 3, 3), epsilon=epsilon)
        self.b2a = Unit(channels, widths[3], (1, 1, 1), epsilon=epsilon)
        self.b2b = Unit(widths[3], widths[4], (3, 3, 3), epsilon=epsilon)
        self.b3a = SamePool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(channels, widths[5], (1, 1, 1), epsilon=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class Unit(nn.Module):
    """Convolution without bias, padded as ``same``, batch norm, ReLU."""

    def __init__(
        self, channels: int, width: int, kernel: Triple, stride: Triple = (1, 1, 1), epsilon: float = 1e-3
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, width, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=epsilon, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))).relu()


class SamePool(nn.Module):
    """Maxima of windows, padded by zeros as ``same``: that counts, where features are negative."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(same(x, self.kernel, self.stride), self.kernel, self.stride)


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """(N, C, T, H, W) with zeros around, so that each side becomes ceil(side / stride); the odd one comes last."""
    padding: list[int] = []
    for side, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1]):
        missing = max(k - (side % s or s), 0)
        padding += [missing // 2, missing - missing // 2]
    return functional.pad(x, padding) if any(padding) else x
