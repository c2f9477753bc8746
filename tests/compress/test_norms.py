"""Norms that see all channels at once, and weights that others make."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vfikit.compress import check_groups, couple, rebuild, resize, slice_channels, widths

from .attention_nets import tokens
from .nets import conv


class Mixer(nn.Module):
    """A token's channels normalised, widened and narrowed, on a residual stream."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = conv(3, 8), norm, conv(8, 3)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = tokens(self.first(x))
        y = y + self.down(self.up(self.norm(y)).relu())
        return self.last(y.transpose(1, 2).unflatten(2, x.shape[2:]))


def frames() -> tuple[Tensor]:
    return (torch.rand(1, 3, 6, 8, dtype=torch.float64),)


def test_layer_norm():
    """Its channels go with what it norms; the output changes by the statistics, the wide layer inside is exact."""
    torch.manual_seed(0)
    net, inputs = Mixer(nn.LayerNorm(8)).double().eval(), frames()
    stream, inside = couple(net, inputs).groups
    assert [stream.units, inside.units] == [8, 16]
    assert check_groups(net, [stream, inside], [inputs]) < 1e-12
    with torch.no_grad():
        net.down.weight[:, 4:] = 0
        exact = slice_channels(net, {inside: [0, 1, 2, 3]})
        torch.testing.assert_close(exact(*inputs), net(*inputs), rtol=1e-12, atol=1e-12)
        for weight in (net.up.weight, net.last.weight):
            weight[:, 6:] = 0
        small = slice_channels(net, {stream: range(6)})
        assert small.norm.normalized_shape == (6,)
        assert (small(*inputs) - net(*inputs)).abs().max() > 1e-6


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm(affine):
    """As a layer norm: its channels go with what it norms."""
    torch.manual_seed(0)
    net, inputs = Mixer(nn.RMSNorm(8, elementwise_affine=affine)).double().eval(), frames()
    stream, inside = couple(net, inputs).groups
    assert [stream.units, inside.units] == [8, 16]
    assert check_groups(net, [stream, inside], [inputs]) < 1e-12
    assert ("norm.weight" in {member.tensor for member in stream.members}) == affine
    small = slice_channels(net, {stream: range(6)})
    assert small.norm.normalized_shape == (6,)
    with torch.no_grad():
        normed = tokens(small.first(*inputs))
        scale = normed.square().mean(-1, keepdim=True).add(torch.finfo(torch.float64).eps).rsqrt()
        weight = net.norm.weight[:6] if affine else 1.0
        torch.testing.assert_close(small.norm(normed), normed * scale * weight)
    again = resize(Mixer(nn.RMSNorm(8, elementwise_affine=affine)).double(), widths(small))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(*inputs), small(*inputs))
    assert rebuild(net, widths(small))(*inputs).shape == (1, 3, 6, 8)


def test_group_norm_of_one_group():
    """As a layer norm: its channels go one by one, and one group it stays."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.SiLU(), nn.Conv2d(8, 2, 3)).double().eval()
    inputs = frames()
    (group,) = couple(net, inputs).groups
    assert group.units == 8
    assert check_groups(net, [group], [inputs]) < 1e-12
    small = slice_channels(net, {group: range(5)})
    assert (small[1].num_groups, small[1].num_channels) == (1, 5)
    torch.testing.assert_close(small[0](*inputs), net[0](*inputs)[:, :5])
    assert rebuild(net, widths(small))(*inputs).shape == small(*inputs).shape


class Centred(nn.Module):
    """A norm written out, without a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)


def test_a_norm_that_is_no_layer_of_ours_keeps_its_width():
    coupling = couple(Mixer(Centred()).double(), frames())
    assert [group.units for group in coupling.groups] == [16]
    assert "a sum over channels in norm (Centred)" in coupling.kept["first.weight", 0]


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_others_make_keep_their_widths(norm):
    net = nn.Sequential(conv(3, 8), nn.ReLU(), norm(conv(8, 8)), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 3)).double()
    groups = couple(net, frames()).groups
    assert [group.units for group in groups] == [6]
    assert slice_channels(net, {groups[0]: [0, 1]})(*frames()).shape == (1, 3, 6, 8)
