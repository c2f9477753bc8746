"""Deformable convolution, as an op of its own with its own weights: grouped, with groups of offsets."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfikit.compress import check_groups, couple, density, plan, report, resize, slice_channels, unobserved, widths
from vfikit.compress import rules as compress_rules
from vfikit.compress.cost import Cost
from vfikit.compress.report import Measured

from .nets import conv


@torch.library.custom_op("vfikit_test::deform_conv2d", mutates_args=())
def deform(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
    """3x3, padding 1; offsets (n, dg * 9 * 2, h, w) as (y, x), mask (n, dg * 9, h, w)."""
    n, c, h, w = input.shape
    groups = mask.shape[1] // 9
    y, x = torch.meshgrid(*(torch.arange(s, dtype=input.dtype) for s in (h, w)), indexing="ij")
    columns = []
    for g in range(groups):
        part = input[:, g * c // groups : (g + 1) * c // groups]
        for k in range(9):
            dy, dx = offset[:, 2 * (9 * g + k)], offset[:, 2 * (9 * g + k) + 1]
            place = torch.stack([x + k % 3 - 1 + dx, y + k // 3 - 1 + dy], dim=-1)
            place = (2 * place + 1) / torch.tensor([w, h], dtype=input.dtype) - 1
            columns.append(F.grid_sample(part, place, align_corners=False) * mask[:, 9 * g + k, None])
    taps = torch.stack(columns, 1).unflatten(1, (groups, 9)).transpose(2, 3).reshape(n, c * 9, h, w)
    return F.conv2d(taps, weight.reshape(len(weight), -1, 1, 1), bias, groups=c // weight.shape[1])


@deform.register_fake
def _(input, offset, weight, bias, mask):
    return input.new_empty(len(input), len(weight), *input.shape[2:])


class Deformable(nn.Module):
    """Modulated; offsets and masks from one convolution, which steer and are never cut."""

    def __init__(self, inputs: int, outputs: int, groups: int, offset_groups: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, 3, 3) / 5)
        self.bias = nn.Parameter(torch.randn(outputs))
        self.steer = conv(inputs, 27 * offset_groups)

    def forward(self, x: Tensor) -> Tensor:
        steering = self.steer(x)
        taps = steering.shape[1] // 3
        offset, mask = steering.split([2 * taps, taps], dim=1)
        return deform(x, offset.tanh(), self.weight, self.bias, mask.sigmoid())


def net(groups: int, offset_groups: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 8), Deformable(8, 12, groups, offset_groups), nn.ReLU(), conv(12, 3)).double().eval()


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(compress_rules, "DEFORMABLE", ("vfikit_test::deform_conv2d",))


@pytest.mark.parametrize(
    ("groups", "offset_groups", "units"), [(1, 1, [8, 12]), (1, 4, [2, 12]), (2, 1, [4, 6]), (2, 4, [2, 6])]
)
def test_deformable_convolution(groups, offset_groups, units):
    full = net(groups, offset_groups)
    inputs = [(torch.rand(2, 3, 6, 8, dtype=torch.float64),), (torch.rand(1, 3, 5, 5, dtype=torch.float64),)]
    found = couple(full, inputs[0])
    assert [group.units for group in found.groups] == units
    assert ("1.steer.weight", 0) in found.kept
    assert check_groups(full, found.groups, inputs) < 1e-12
    assert all(unobserved(full, group, inputs[0]) == [] for group in found.groups)
    assert found.groups[0].modules("in") == ["1", "1.steer"]
    keep = {group: range((group.units + 1) // 2) for group in found.groups}
    with torch.no_grad():
        tensors = dict(full.named_parameters())
        for group, kept in keep.items():
            for member in (member for member in group.members if member.role == "in"):
                dead = [i for unit in range(len(kept), group.units) for i in member.indices[unit]]
                tensors[member.tensor].data.index_fill_(member.axis, torch.tensor(dead), 0.0)
    small = slice_channels(full, keep)
    again = resize(net(groups, offset_groups), json.loads(json.dumps(widths(small))))
    again.load_state_dict(small.state_dict())
    assert (small[1].in_channels, small[1].out_channels) == (4, 6)
    for case in inputs:
        torch.testing.assert_close(small(*case), full(*case), rtol=1e-12, atol=1e-12)
        assert torch.equal(again(*case), small(*case))


def test_it_is_planned_and_reported(tmp_path):
    full = net(1, 1)
    found = couple(full, (torch.rand(1, 3, 6, 8, dtype=torch.float64),))
    densities = density(full)
    assert set(densities.layers) == {"0", "1", "1.steer", "3"}
    halved = plan(full, found, dict.fromkeys(densities.layers, 0.5))
    assert halved.widths["1"]["weight.0"] == 6
    measured = Measured(Cost(2, 2, 1.0, 1.0), 30.0, 0.9)
    path = report(tmp_path, {}, measured, measured, densities, widths(full), halved.widths)
    layer = json.loads(path.read_text())["layers"][1]
    assert (layer["width_before"], layer["width_after"], layer["in_before"], layer["in_after"]) == (12, 6, 8, 4)
