"""LPIPS 0.1 on SqueezeNet 1.1, AlexNet or VGG-16 (arXiv:1801.03924): weighted distance of unit-length features."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .pixels import check_frames

_TAPS = {  # channels of the compared layers
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
}


class Fire(nn.Module):
    """SqueezeNet's block: 1x1 to ``squeeze`` channels, then 1x1 and 3x3 to ``expand`` each, side by side."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x).relu(), self.expand3x3(x).relu()), 1)


class Sliced(nn.Module):
    """A backbone in the slices whose outputs LPIPS compares; layers numbered as torchvision's features."""

    def __init__(self, slices: list[dict[str, nn.Module]]) -> None:
        super().__init__()
        for number, layers in enumerate(slices, 1):
            part = nn.Sequential()
            for name, layer in layers.items():
                part.add_module(name, layer)
            self.add_module(f"slice{number}", part)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for part in self.children():
            x = part(x)
            outputs.append(x)
        return outputs


def _squeeze() -> list[dict[str, nn.Module]]:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return [
        {"0": nn.Conv2d(3, 64, 3, stride=2), "1": nn.ReLU()},
        {"2": pool, "3": Fire(64, 16, 64), "4": Fire(128, 16, 64)},
        {"5": pool, "6": Fire(128, 32, 128), "7": Fire(256, 32, 128)},
        {"8": pool, "9": Fire(256, 48, 192)},
        {"10": Fire(384, 48, 192)},
        {"11": Fire(384, 64, 256)},
        {"12": Fire(512, 64, 256)},
    ]


def _alex() -> list[dict[str, nn.Module]]:
    pool = nn.MaxPool2d(3, 2)
    return [
        {"0": nn.Conv2d(3, 64, 11, stride=4, padding=2), "1": nn.ReLU()},
        {"2": pool, "3": nn.Conv2d(64, 192, 5, padding=2), "4": nn.ReLU()},
        {"5": pool, "6": nn.Conv2d(192, 384, 3, padding=1), "7": nn.ReLU()},
        {"8": nn.Conv2d(384, 256, 3, padding=1), "9": nn.ReLU()},
        {"10": nn.Conv2d(256, 256, 3, padding=1), "11": nn.ReLU()},
    ]


def _vgg() -> list[dict[str, nn.Module]]:
    slices: list[dict[str, nn.Module]] = []
    number, channels = 0, 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: dict[str, nn.Module] = {}
        if slices:
            layers[str(number)] = nn.MaxPool2d(2)
            number += 1
        for _ in range(convolutions):
            layers |= {str(number): nn.Conv2d(channels, width, 3, padding=1), str(number + 1): nn.ReLU()}
            number, channels = number + 2, width
        slices.append(layers)
    return slices


_BACKBONES = {"squeeze": _squeeze, "alex": _alex, "vgg": _vgg}


class LPIPS(nn.Module):
    """``weights`` is the state dict of ``lpips.LPIPS(net=backbone)``; ValueError lists what it lacks."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Mapping[str, Tensor], backbone: Literal["squeeze", "alex", "vgg"] = "squeeze") -> None:
        super().__init__()
        self.net = Sliced(_BACKBONES[backbone]())
        for number, channels in enumerate(_TAPS[backbone]):
            self.add_module(
                f"lin{number}", nn.ModuleDict({"model": nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})})
            )
        own = self.state_dict()
        wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        if wrong:
            raise ValueError(
                f"LPIPS ({backbone}) weights lack {', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}"
            )
        self.load_state_dict({name: weights[name] for name in own})
        # ImageNet's statistics, for frames in [-1, 1]; constants of the published network
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, prediction: Tensor, target: Tensor, scaled: bool = True) -> Tensor:
        """The distance of frames (N, 3, H, W) in [0, 1], at least 16 pixels a side: (N,), zero for equal ones.

        ``scaled`` maps them to [-1, 1], as the network expects. CDFI's figures were taken without (``False``): they are
        about ten times lower, and comparable among themselves only.
        """
        check_frames("lpips", prediction, target)
        return torch.stack([m.mean((1, 2)) for m in self.maps(prediction, target, scaled)]).sum(0)

    def maps(self, prediction: Tensor, target: Tensor, scaled: bool = True) -> list[Tensor]:
        """The distances before their mean, one map (N, h, w) a compared layer."""
        features = [self.net(((2 * x - 1 if scaled else x) - self.shift) / self.scale) for x in (prediction, target)]
        found = []
        for number, (a, b) in enumerate(zip(*features, strict=True)):
            weight = self.get_parameter(f"lin{number}.model.1.weight")
            found.append(((_unit(a) - _unit(b)).square() * weight).sum(1))
        return found


def _unit(x: Tensor) -> Tensor:
    """Unit length over channels; 1e-10 is added to the norm, as published."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
