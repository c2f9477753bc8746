"""HSPG, DHSPG and HESSO beside the golden trajectories: resuming, momentum of the dead, exact counts, errors."""

import copy

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import DHSPG, HESSO, HSPG, Units, couple, of_groups, slice_channels

SGD = {"lr": 0.05, "lambda_": 0.1, "target": 0.4, "start": 2, "momentum": 0.9}
ADAM = {"lr": 0.02, "target": 0.4, "betas": (0.9, 0.99), "weight_decay": 0.01}
FADE = {"lr": 0.05, "pruning_steps": 9, "target": 0.5, "start": 3, "periods": 2}
MAKERS = {
    "hspg": lambda named, units, layers: HSPG(named, units, lr=0.1, lambda_=0.05, n_prox=4, weights="sqrt"),
    "dhspg": lambda named, units, layers: DHSPG(named, units, layers=layers, **SGD),
    "dhspg adam": lambda named, units, layers: DHSPG(named, units, layers=layers, **ADAM),
    "hesso": lambda named, units, layers: HESSO(named, units, layers=layers, **FADE),
}


def net_and_units():
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)
    net = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU(), last)
    groups = couple(net, (torch.rand(1, 3, 12, 12),)).groups
    return net, groups, *of_groups(groups, dict(net.named_parameters()))


def train(net: nn.Module, optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.rand(2, 3, 12, 12, generator=generator)
        optimizer.zero_grad()
        (net(x) - x[:, :2, 2:-2, 2:-2]).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_resuming_is_bit_exact(name):
    whole, _, units, layers = net_and_units()
    optimizer = MAKERS[name](whole.named_parameters(), units, layers)
    train(whole, optimizer, range(7))
    resumed = copy.deepcopy(whole)
    state = copy.deepcopy(optimizer.state_dict())
    train(whole, optimizer, range(7, 20))
    other = MAKERS[name](resumed.named_parameters(), units, layers)
    other.load_state_dict(state)
    train(resumed, other, range(7, 20))
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="expected"):
        other.load_state_dict({key: value for key, value in state.items() if key != "sparsity"})


@pytest.mark.parametrize("name", ["dhspg", "dhspg adam", "hesso"])
def test_target_is_met_exactly_and_dead_units_stay_dead(name):
    net, _, units, layers = net_and_units()
    optimizer = MAKERS[name](net.named_parameters(), units, layers)
    train(net, optimizer, range(12))
    if name != "hesso":  # a wide half-space ends it in few steps
        optimizer.eps = 0.999
    train(net, optimizer, range(12, 60))
    assert int(optimizer.zero().sum()) == optimizer.wanted == {"hesso": 7}.get(name, 6)
    assert optimizer.sparsity == optimizer.wanted / len(units)
    dead = optimizer.zero()
    train(net, optimizer, range(60, 64))
    assert torch.equal(dead, optimizer.zero())
    for i, x in enumerate(optimizer.inside):
        mask = optimizer.units.spread((~dead).double(), i, x, 1.0).expand_as(x) == 0
        for value in optimizer.state[x].values():
            assert not isinstance(value, Tensor) or not value[mask].any()


def test_slicing_what_died_changes_nothing():
    net, groups, units, layers = net_and_units()
    optimizer = HESSO(net.named_parameters(), units, lr=0.05, pruning_steps=6, target=0.5, layers=layers)
    train(net, optimizer, range(8))
    net = net.double().eval()
    alive = ~optimizer.zero()
    keep = {g: alive[layer].nonzero()[:, 0].tolist() for g, layer in zip(groups, layers, strict=True)}
    small = slice_channels(net, keep)
    x = torch.rand(1, 3, 14, 12, dtype=torch.float64)
    assert torch.allclose(net(x), small(x), rtol=0, atol=1e-13)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters()) / 1.5


def test_units_reject_what_does_not_fit():
    x = {"a": torch.zeros(4, 2)}
    with pytest.raises(ValueError, match="unit 0 names b"):
        Units(x, [[("b", 0, [0])]])
    with pytest.raises(ValueError, match="along axes 0, 1, expected one axis"):
        Units(x, [[("a", 0, [0])], [("a", 1, [0])]])
    with pytest.raises(ValueError, match="unit 1 has channels of a that another has"):
        Units(x, [[("a", 0, [0, 1])], [("a", 0, [1])]])


def test_bad_arguments():
    net, _, units, _ = net_and_units()
    named = list(net.named_parameters())
    for make, message in (
        (lambda: HSPG(named, units, lr=0.1, eps=1.0), "HSPG: eps is 1.0, expected 0 <= eps < 1"),
        (lambda: HSPG(named, units, lr=-1.0), "HSPG: lr is -1.0, expected at least 0"),
        (lambda: HSPG(named, units, lr=0.1, weights=[1.0]), "got 1 weights, expected one for each of 14 units"),
        (lambda: DHSPG(named, units, lr=0.1, start=3, half_start=2), "expected start <= half_start"),
        (lambda: HESSO(named, units, lr=0.1, pruning_steps=2, periods=3), "1 <= periods <= pruning_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
