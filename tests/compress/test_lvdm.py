"""LVDM is cut as a whole: its latent stays as it is, its U-Nets stay consistent, and it still makes videos."""

import pytest
import torch

from vfikit import compress
from vfikit.models import LVDMNet

from ..models.toys import toy


@pytest.mark.slow
def test_cut_and_generated() -> None:
    net = toy("lvdm")
    assert isinstance(net, LVDMNet)
    inputs = (torch.rand(1, 16, 3, 8, 12),)
    coupling = compress.couple(net, inputs)
    compress.check_groups(net, coupling.groups, [inputs, (torch.rand(1, 8, 3, 12, 8),)])
    densities = compress.density(net).layers
    plan = compress.plan(net, coupling, densities, "consumer", ratio=2.0, inputs=inputs)
    small = compress.rebuild(net, plan.widths)
    assert compress.parameters(small) < 0.6 * compress.parameters(net)
    assert small.encode(inputs[0], mode=True).shape == net.encode(inputs[0], mode=True).shape
    assert small.generate(num_frames=18, num_inference_steps=1).shape == (1, 18, 3, 8, 12)
