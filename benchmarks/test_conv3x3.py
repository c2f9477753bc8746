"""3x3 convolutions beside torch's own, at shapes that the networks have."""

from functools import partial

import pytest
import torch

from vfikit.ops import conv3x3

from .paired import Compare
from .plain.conv3x3 import conv2d

# input, outputs, groups, channels-last, aim
SHAPES = {
    "E2FGVI's propagation": ((1, 128, 60, 108), 128, 1, True, 1.3),
    "E2FGVI's encoder": ((1, 640, 60, 108), 512, 2, True, 1.3),
    "E2FGVI's encoder, 4 groups": ((1, 768, 60, 108), 384, 4, True, 1.3),
    "E2FGVI's decoder": ((1, 64, 240, 432), 64, 1, True, 1.3),
    "AdaCoF's heads": ((1, 64, 128, 224), 64, 1, True, 1.3),
    "LVDM's finest level": ((4, 256, 32, 32), 256, 1, False, 1.3),
    "LDMVFI's heads": ((1, 25, 256, 256), 25, 1, False, 1.3),
    "LDMVFI's heads, compressed": ((1, 8, 256, 256), 2, 1, False, 1.3),
    "LVDM's third level": ((4, 768, 8, 8), 768, 1, False, None),
}


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_conv3x3(compare: Compare, name: str) -> None:
    shape, outputs, groups, last, target = SHAPES[name]
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(outputs, shape[1] // groups, 3, 3) / shape[1] ** 0.5
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
    inputs = (x, weight, torch.randn(outputs))
    torch.testing.assert_close(conv3x3(*inputs, groups=groups), conv2d(*inputs, groups), rtol=1e-4, atol=1e-4)
    compare(
        f"conv3x3, {name}: {shape} to {outputs}, groups {groups}",
        partial(conv3x3, *inputs, groups=groups),
        {"torch": partial(conv2d, *inputs, groups)},
        {"torch": target} if target else None,
        rounds=9,
    )
