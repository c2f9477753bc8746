"""Inception v3 (arXiv:1512.00567) in the form that FID's weights were trained in (TensorFlow, 2015).

It differs from torchvision's in its pooling: averages do not count the padding, and the last block takes the largest
value. Names are torchvision's, so the published weights (``pt_inception-2015-12-05``) load as they are.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU; the sides kept unless a stride or padding is given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | str = "same",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


def average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def largest(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, 1, 1)


class InceptionA(nn.Module):
    """1x1, 5x5, two 3x3 and pooling, side by side: 224 + ``pooled`` channels."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 64)
        self.branch5x5_1 = ConvNormRelu(channels, 48)
        self.branch5x5_2 = ConvNormRelu(48, 64, 5)
        self.branch3x3dbl_1 = ConvNormRelu(channels, 64)
        self.branch3x3dbl_2 = ConvNormRelu(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormRelu(96, 96, 3)
        self.branch_pool = ConvNormRelu(channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class InceptionB(nn.Module):
    """Half the sides: 480 more channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormRelu(channels, 384, 3, 2, 0)
        self.branch3x3dbl_1 = ConvNormRelu(channels, 64)
        self.branch3x3dbl_2 = ConvNormRelu(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormRelu(96, 96, 3, 2, 0)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """7x7 in rows and columns, ``width`` channels inside: 768 channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 192)
        self.branch7x7_1 = ConvNormRelu(channels, width)
        self.branch7x7_2 = ConvNormRelu(width, width, (1, 7))
        self.branch7x7_3 = ConvNormRelu(width, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNormRelu(channels, width)
        self.branch7x7dbl_2 = ConvNormRelu(width, width, (7, 1))
        self.branch7x7dbl_3 = ConvNormRelu(width, width, (1, 7))
        self.branch7x7dbl_4 = ConvNormRelu(width, width, (7, 1))
        self.branch7x7dbl_5 = ConvNormRelu(width, 192, (1, 7))
        self.branch_pool = ConvNormRelu(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class InceptionD(nn.Module):
    """Half the sides: 512 more channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormRelu(channels, 192)
        self.branch3x3_2 = ConvNormRelu(192, 320, 3, 2, 0)
        self.branch7x7x3_1 = ConvNormRelu(channels, 192)
        self.branch7x7x3_2 = ConvNormRelu(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNormRelu(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormRelu(192, 192, 3, 2, 0)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """3x3 as a row beside a column: 2048 channels; the last one pools by the ``largest`` value."""

    def __init__(self, channels: int, last: bool = False) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(channels, 320)
        self.branch3x3_1 = ConvNormRelu(channels, 384)
        self.branch3x3_2a = ConvNormRelu(384, 384, (1, 3))
        self.branch3x3_2b = ConvNormRelu(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNormRelu(channels, 448)
        self.branch3x3dbl_2 = ConvNormRelu(448, 384, 3)
        self.branch3x3dbl_3a = ConvNormRelu(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNormRelu(384, 384, (3, 1))
        self.branch_pool = ConvNormRelu(channels, 192)
        self.pool = largest if last else average

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        crossed = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        crossed += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *crossed, self.branch_pool(self.pool(x))], 1)


class InceptionV3(nn.Module):
    """``forward(x)``: (N, 3, H, W) in [-1, 1], at least 75 pixels a side, 299 as trained -> features (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormRelu(3, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = ConvNormRelu(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = ConvNormRelu(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormRelu(64, 80)
        self.Conv2d_4a_3x3 = ConvNormRelu(80, 192, 3, 1, 0)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048, last=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
