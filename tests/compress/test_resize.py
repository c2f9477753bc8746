"""Widths in and out of models and checkpoints; slicing; rebuilding; importance."""

import json

import pytest
import torch
from torch import nn

from vfikit import checkpoints
from vfikit.compress import choose, couple, magnitude, rebuild, resize, slice_channels, taylor, widths
from vfikit.models import build

from .nets import NETS, make


@pytest.mark.parametrize("kind", NETS)
def test_widths_of_a_sliced_net_make_its_shapes(kind):
    """What ``resize`` builds from the widths takes the sliced net's tensors: plain JSON is enough to rebuild it."""
    net, inputs = make(kind)
    small = slice_channels(net, {g: list(range((g.units + 1) // 2)) for g in couple(net, inputs[0]).groups})
    stored = json.loads(json.dumps(widths(small)))
    with torch.device("meta"):
        empty = resize(NETS[kind][0]().double(), stored)
    assert widths(empty) == widths(small)
    empty.load_state_dict(small.state_dict(), assign=True)
    for case in inputs:
        for ours, theirs in zip(leaves(empty.eval()(*case)), leaves(small(*case)), strict=True):
            assert torch.equal(ours, theirs)


def leaves(output):
    return output if isinstance(output, list) else [output]


@pytest.mark.parametrize("route", ["slice", "rebuild"])
@pytest.mark.parametrize("name", ["adacof", "cdfi"])
def test_both_routes_through_a_checkpoint(tmp_path, route, name):
    torch.manual_seed(0)
    net = build(name, "small", kernel_size=3, dilation=1).eval()
    frames = torch.rand(2, 1, 3, 33, 40)
    keep = {group: range(0, group.units, 3) for group in couple(net, tuple(frames)).groups}
    small = slice_channels(net, keep)
    if route == "rebuild":
        small = rebuild(net, widths(small)).eval()
    checkpoints.save(small, tmp_path / "small.safetensors")
    again = checkpoints.load(tmp_path / "small.safetensors")
    assert widths(again) == widths(small)
    with torch.no_grad():
        assert torch.equal(again(*frames), small(*frames))


def test_unchanged_layers_keep_their_weights():
    net, inputs = make("chain")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert resize(net, widths(net)) is net
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    resize(net, {"0": {"in": 3, "out": 5, "groups": 1}, "2": {"in": 5, "out": 6, "groups": 1}})
    assert net(*inputs[0]).shape == (2, 4, 6, 8)
    assert torch.equal(net[5].weight, before["5.weight"])
    assert net[0].weight.dtype == torch.float64


def test_resize_keeps_requires_grad_and_makes_finite_weights():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.LayerNorm(8))
    net[0].weight.requires_grad_(False)
    resize(net, {"0": {"in": 4, "out": 6}, "1": {"in": 6, "out": 6}, "2": {"in": 6, "out": 6}})
    assert not net[0].weight.requires_grad
    assert net[1].running_var.tolist() == [1.0] * 6
    assert torch.isfinite(net(torch.rand(3, 4))).all()


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ({"nowhere": {"in": 3, "out": 4, "groups": 1}}, "has no convolution, linear or norm layer 'nowhere'"),
        ({"1": {"in": 3, "out": 4}}, "has no convolution, linear or norm layer '1'"),
        ({"0": {"in": 3, "out": 0, "groups": 1}}, "0 cannot have"),
        ({"0": {"in": 3, "out": 4, "groups": 2}}, "multiples of groups"),
        ({"0": {"in": 3, "out": 4}}, "expected like"),
    ],
)
def test_wrong_widths_raise_and_change_nothing(width, message):
    net, _ = make("chain")
    before = widths(net)
    with pytest.raises(ValueError, match=message):
        resize(net, {"2": {"in": 8, "out": 3, "groups": 1}, **width})
    assert widths(net) == before


def test_rebuild_is_fresh_and_leaves_the_original():
    net, inputs = make("batch norm")
    net[1].running_mean.fill_(3.0)
    new = rebuild(net, widths(net))
    assert not torch.equal(new[0].weight, net[0].weight)
    assert new[1].running_mean.abs().max() == 0
    assert net[1].running_mean.min() == 3
    assert new(*inputs[0]).shape == net(*inputs[0]).shape


def test_a_part_alone_is_rebuilt():
    net, inputs = make("batch norm")
    torch.manual_seed(5)
    new = rebuild(net, widths(net), ["1"])
    assert torch.equal(new[0].weight, net[0].weight)
    net[1].running_mean.fill_(3.0)
    assert rebuild(net, widths(net), ["1"])[1].running_mean.abs().max() == 0
    assert rebuild(net, widths(net), ["0"])[1].running_mean.min() == 3
    assert new(*inputs[0]).shape == net(*inputs[0]).shape


def test_rebuild_needs_a_way_to_start_anew():
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    net.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match="no reset_parameters"):
        rebuild(net, {})


def test_slicing_refuses_to_empty_a_group():
    net, inputs = make("chain")
    group = couple(net, inputs[0]).groups[0]
    for units in ([], [99]):
        with pytest.raises(ValueError, match="expected some of its own"):
            slice_channels(net, {group: units})


def test_slicing_works_on_meta_and_keeps_training_mode():
    net, inputs = make("additive skip")
    groups = couple(net, inputs[0]).groups
    small = slice_channels(net.to("meta").train(), {group: [0, 1] for group in groups})
    assert small.training
    assert {p.device.type for p in small.parameters()} == {"meta"}


def test_dead_writers_are_sliced_exactly():
    """A zero row and bias under ReLU: the channel is zero whatever reads it."""
    net, inputs = make("chain")
    group = couple(net, inputs[0]).groups[0]
    with torch.no_grad():
        net[0].weight[3:] = 0
        net[0].bias[3:] = 0
    small = slice_channels(net, {group: [0, 1, 2]})
    torch.testing.assert_close(small(*inputs[0]), net(*inputs[0]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("score", [lambda n, g: magnitude(n, g, 1), magnitude, taylor])
def test_importance_keeps_what_matters(score):
    net, inputs = make("chain")
    groups = couple(net, inputs[0]).groups
    with torch.no_grad():
        for unit in (1, 4):
            net[0].weight[unit] *= 1e-4
            net[0].bias[unit] *= 1e-4
    net(*inputs[0]).square().mean().backward()
    kept = choose(score(net, groups), {groups[0]: 6})[groups[0]]
    assert kept == [0, 2, 3, 5, 6, 7]


def test_taylor_is_the_first_order_change_of_the_loss():
    net, inputs = make("chain")
    group = couple(net, inputs[0]).groups[1]
    net(*inputs[0]).square().mean().backward()
    expected = [
        (net[2].weight[u] * net[2].weight.grad[u]).sum() + net[2].bias[u] * net[2].bias.grad[u] for u in range(6)
    ]
    torch.testing.assert_close(taylor(net, [group])[group], torch.stack(expected).abs().detach())
    assert (taylor(net, [group], elements=True)[group] >= taylor(net, [group])[group]).all()


def test_rebuild_starts_as_the_whole_net_would():
    """The estimator's own initialisation (He's, biases zero) comes after its layers'."""
    net = build("adacof-compressed", "small")
    first = rebuild(net, widths(net)).estimator.encoder[0][0]
    assert torch.count_nonzero(first.bias) == 0
