"""GridNet (arXiv:1707.07958): a grid of residual rows at three resolutions, joined by down- and upsampling columns."""

from torch import Tensor, nn

from ..ops import Conv3x3


class GridNet(nn.Module):
    """``forward(x (N, in_channels, H, W)) -> (N, out_channels, H, W)``; H and W are multiples of 4.

    ``widths`` are the channels of the three rows, finest first. Six columns: the first three go down, the others up.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: tuple[int, int, int]):
        super().__init__()
        columns = 6
        self.lateral_init = Lateral(in_channels, widths[0])
        for row, width in enumerate(widths):
            for column in range(columns - 1):
                self.add_module(f"lateral_{row}_{column}", Lateral(width, width))
        for row in range(2):
            for column in range(columns // 2):
                self.add_module(f"down_{row}_{column}", Down(widths[row], widths[row + 1]))
        for row in range(2):
            for column in range(columns // 2):
                self.add_module(f"up_{row}_{column}", Up(widths[row + 1], widths[row]))
        self.lateral_final = Lateral(widths[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        part = self.get_submodule
        fine = self.lateral_init(x)
        middle = part("down_0_0")(fine)
        coarse = part("down_1_0")(middle)
        for column in (1, 2):
            fine = part(f"lateral_0_{column - 1}")(fine)
            middle = part(f"down_0_{column}")(fine) + part(f"lateral_1_{column - 1}")(middle)
            coarse = part(f"down_1_{column}")(middle) + part(f"lateral_2_{column - 1}")(coarse)
        for column in (3, 4, 5):
            coarse = part(f"lateral_2_{column - 1}")(coarse)
            middle = part(f"up_1_{column - 3}")(coarse) + part(f"lateral_1_{column - 1}")(middle)
            fine = part(f"up_0_{column - 3}")(middle) + part(f"lateral_0_{column - 1}")(fine)
        return self.lateral_final(fine)


class Lateral(nn.Module):
    """Two convolutions and a shortcut; the shortcut is a convolution where the widths differ."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.f = nn.Sequential(
            nn.PReLU(), conv3x3(in_channels, out_channels), nn.PReLU(), conv3x3(out_channels, out_channels)
        )
        self.conv = conv3x3(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x) + (x if self.conv is None else self.conv(x))


class Down(nn.Module):
    """Halves the size, without a shortcut."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.f = nn.Sequential(
            nn.PReLU(), conv3x3(in_channels, out_channels, 2), nn.PReLU(), conv3x3(out_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


class Up(nn.Module):
    """Doubles the size, without a shortcut."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.f = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.PReLU(),
            conv3x3(in_channels, out_channels),
            nn.PReLU(),
            conv3x3(out_channels, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    if stride == 1:
        return Conv3x3(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
