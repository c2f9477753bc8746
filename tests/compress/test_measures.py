"""Density, cost, distillation, and the report they end in."""

import json

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import (
    Cost,
    Measured,
    conditions,
    costs,
    density,
    distill,
    distill_features,
    fade,
    features,
    lambda_for,
    report,
    table,
    widths,
)
from vfikit.compress.cost import layer_macs, macs, peak_mib
from vfikit.compress.distill import sampling
from vfikit.models import build

from .nets import make


def test_density_counts_weights_by_layer_and_everything_for_the_model():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 5))
    with torch.no_grad():
        net[0].weight[1:] = 0
        net[0].bias.zero_()
        net[2].weight.view(-1)[:5] = 0
        net[2].bias.fill_(1)
    net[1].bias.requires_grad_(False)
    found = density(net)
    assert found.layers == {"0": 0.25, "2": 0.75}
    assert found.sizes == {"0": 8, "2": 20}
    assert found.model == (2 + 0 + 4 + 15 + 5) / (8 + 4 + 4 + 20 + 5)
    assert "0.250" in found.table()


def test_lambda_for_is_the_one_that_reaches_the_share():
    params = [nn.Parameter(torch.arange(1.0, 101).view(10, 10)), nn.Parameter(torch.full((3,), 1e9))]
    assert lambda_for(params, lr=0.5, steps=4, keep=0.25) == pytest.approx(75 / 2)
    with pytest.raises(ValueError, match="expected 0 < keep"):
        lambda_for(params, 0.5, 4, 0.0)


def test_macs_are_those_of_the_arithmetic():
    net, inputs = make("chain")
    by_hand = {"0": 2 * 12 * 16 * 3 * 8 * 9, "2": 2 * 12 * 16 * 8 * 6 * 9, "5": 2 * 6 * 8 * 6 * 4 * 9}
    assert layer_macs(net, inputs[0]) == by_hand
    assert macs(net, inputs[0]) == sum(by_hand.values())


def test_the_sampling_op_counts_too():
    net = build("adacof", "small", kernel_size=3)
    frames = (torch.rand(1, 3, 32, 32),) * 2
    assert macs(net, frames) > sum(layer_macs(net, frames).values())


def test_peak_memory_is_what_lives_at_once():
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(5):
                x = x + 1  # two alive at a time, each 1 MiB; the input is the caller's
            return x

    assert peak_mib(Wide(), (torch.zeros(2**18),)) == pytest.approx(2, abs=0.01)
    assert peak_mib(nn.Linear(512, 512, bias=False), (torch.zeros(1, 512),)) == pytest.approx(1, abs=0.01)


def test_costs_keep_the_mode_and_compare():
    net, inputs = make("chain")
    big = nn.Sequential(*(nn.Conv2d(3, 3, 7, padding=3).double() for _ in range(6))).train()
    small_cost, big_cost = costs([net, big], inputs[0], rounds=3)
    assert small_cost.parameters == sum(p.numel() for p in net.parameters())
    assert big.training
    assert big_cost.latency_ms > 0
    assert "threads, input 2x3x12x16 float64" in conditions(inputs[0])


def test_distill_is_charbonnier_to_a_constant():
    a, b = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    loss = distill([a, a], [b, b])
    torch.testing.assert_close(loss, ((a - b) ** 2 + 1e-6).sqrt().mean())
    loss.backward()
    assert a.grad is not None
    assert b.grad is None
    with pytest.raises(ValueError, match="expected the same"):
        distill(a, torch.rand(4))


def test_features_are_those_of_the_modules_named():
    net, inputs = make("additive skip")
    with features(net, ["first", "down"]) as found:
        net(*inputs[0])
    assert torch.equal(found["first"], net.first(*inputs[0]))
    assert found.keys() == {"first", "down"}
    assert not net.first._forward_hooks
    with pytest.raises(ValueError, match="Additive has no module 'nowhere'"), features(net, ["nowhere"]):
        pass
    with pytest.raises(ValueError, match="makes a list"), features(net, [""]):
        net(*inputs[0])
    assert not net._forward_hooks


def test_features_of_other_widths_can_be_compared():
    """By where they are large, not how large: another width, another scale, the same places."""
    torch.manual_seed(0)
    narrow, places = torch.rand(2, 3, 4, 5), torch.rand(2, 1, 4, 5) + 0.1
    wide = places * torch.ones(1, 6, 1, 1)
    assert float(distill_features({"a": 3 * places.expand(2, 3, 4, 5)}, {"a": wide})) == pytest.approx(0, abs=1e-12)
    a, b = (x.square().mean(1).flatten(1) for x in (narrow, wide))
    by_hand = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square().sum(1).mean()
    student, teacher = narrow.requires_grad_(), wide.clone().requires_grad_()
    loss = distill_features({"a": student}, {"a": teacher})
    torch.testing.assert_close(loss.detach(), by_hand)
    loss.backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None
    tokens = torch.rand(2, 20, 6)
    assert float(distill_features({"a": tokens[..., :3]}, {"a": tokens})) < 1
    for ours, theirs in (({"a": narrow}, {"b": wide}), ({}, {}), ({"a": narrow}, {"a": wide[..., :2]})):
        with pytest.raises(ValueError, match="expected the same"):
            distill_features(ours, theirs)


def test_sampling_terms_forgive_another_order_of_taps():
    torch.manual_seed(0)
    weight = torch.rand(2, 9, 4, 4).softmax(1)
    maps = {"weight1": weight, "alpha1": torch.randn(2, 9, 4, 4), "beta1": torch.randn(2, 9, 4, 4)}
    order = torch.randperm(9)
    same = {name: x[:, order] for name, x in maps.items()}
    floor = float(sampling(maps, maps))
    assert float(sampling(same, maps)) == pytest.approx(floor, abs=1e-6)
    moved = {**maps, "alpha1": maps["alpha1"] + 0.5}
    assert float(sampling(moved, maps)) > floor + 0.1


def test_fade_ends_at_nothing():
    assert [fade(0.5, step, 4) for step in range(6)] == [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]


def test_report_has_the_keys_and_pictures(tmp_path):
    net, _ = make("chain")
    before = Measured(Cost(100, 1000, 8.0, 2.0), 35.0, 0.95)
    after = Measured(Cost(10, 300, 4.0, 1.0), 34.9, 0.94)
    facts = {"model": "chain", "route": "slice", "seed": 0, "checkpoint": "x.safetensors"}
    path = report(tmp_path, facts, before, after, density(net), widths(net), widths(net))
    content = json.loads(path.read_text())
    keys = {"parameters", "macs", "latency_ms", "peak_mib", "psnr", "ssim"}
    assert set(content) == {"model", "route", "seed", "checkpoint", "before", "after", "layers"}
    assert set(content["before"]) == set(content["after"]) == keys
    assert content["layers"][0] == {
        "name": "0",
        "density": 1.0,
        "width_before": 8,
        "width_after": 8,
        "in_before": 3,
        "in_after": 3,
    }
    assert "| parameters | 100 | 10 | 10.00x less |" in (tmp_path / "report.md").read_text()
    assert "-0.100" in table(before, after)
    for name in ("density.png", "report.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
