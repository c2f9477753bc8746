"""Every kind of coupling through planning, importance, compensation, and what comes after: compile, export, a file."""

import copy
import json

import pytest
import torch

from vfikit.compress import (
    choose,
    compensate,
    couple,
    density,
    input_moments,
    least_missed,
    magnitude,
    plan,
    resize,
    slice_channels,
    taylor,
    widths,
)
from vfikit.compress.plan import uniform

from .nets import NETS, make
from .test_coupling import flat


@pytest.fixture(params=NETS)
def case(request):
    net, inputs = make(request.param)
    return request.param, net, inputs, couple(net, inputs[0])


def test_plan_and_importance(case):
    _, net, inputs, coupling = case
    densities = {**density(net).layers, **uniform(coupling.groups, 0.5)}
    found = plan(net, coupling, densities, "consumer", floor=0.01)
    assert all(1 <= count <= max(1, group.units / 2) for group, count in found.counts.items())
    assert widths(slice_channels(net, {g: range(n) for g, n in found.counts.items()})) == found.widths
    sum(y.square().mean() for y in flat(net(*inputs[0]))).backward()
    for importance in (magnitude(net, coupling.groups), taylor(net, coupling.groups)):
        assert all(len(scores) == group.units for group, scores in importance.items())
        assert all(torch.isfinite(scores).all() and scores.min() >= 0 for scores in importance.values())
        small = slice_channels(net, choose(importance, found.counts))
        assert sum(p.numel() for p in small.parameters()) == found.parameters


def test_compensation_is_no_worse_than_none(case):
    _, net, inputs, coupling = case
    net = net.float()
    calls = [tuple(x.float() for x in call) for call in inputs]
    counts = {group: max(1, group.units - 1) for group in coupling.groups}
    moments = input_moments(net, calls)
    keep = least_missed(net, coupling.groups, counts, moments)
    assert {group: len(units) for group, units in keep.items()} == counts
    with torch.no_grad():
        small = slice_channels(compensate(net, keep, moments), keep)
        for ours, full in zip(flat(small(*calls[0])), flat(net(*calls[0])), strict=True):
            assert torch.isfinite(ours).all()
            assert (ours - full).abs().mean() < full.abs().mean()


@pytest.fixture
def small(case):
    kind, net, inputs, coupling = case
    torch.manual_seed(1)
    keep = {g: sorted(torch.randperm(g.units)[: (g.units + 1) // 2].tolist()) for g in coupling.groups}
    return kind, slice_channels(net, keep), inputs


def test_widths_are_enough_for_the_weights(small):
    kind, net, inputs = small
    again = resize(NETS[kind][0]().double().eval(), json.loads(json.dumps(widths(net))))
    again.load_state_dict(net.state_dict())
    for call in inputs:
        for ours, theirs in zip(flat(again(*call)), flat(net(*call)), strict=True):
            assert torch.equal(ours, theirs)


def test_small_nets_compile_and_export(small):
    _, net, inputs = small
    expected = flat(net(*inputs[0]))
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    exported = torch.export.export(net, inputs[0]).module()
    for run in (compiled, exported):
        with torch.no_grad():
            for ours, theirs in zip(flat(run(*inputs[0])), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
