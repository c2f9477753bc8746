"""Targets of multiply-accumulates and latency, and the rule that times layers."""

import os
import subprocess
import sys

import pytest
import torch

from vfikit.compress import couple, density, plan, slice_channels
from vfikit.compress.budget import Budget
from vfikit.compress.cost import layer_macs, macs
from vfikit.compress.cuts import by_importance, cuts
from vfikit.compress.latency import LayerTimes
from vfikit.compress.slicing import magnitude
from vfikit.compress.targets import corrected, missed, refine
from vfikit.models import build

from .nets import make

FRAMES = (torch.rand(1, 3, 32, 32),) * 2


@pytest.fixture(scope="module")
def small():
    """CDFI's small net and its groups."""
    torch.manual_seed(0)
    net = build("cdfi", "small").eval()
    return net, couple(net, FRAMES)


@pytest.mark.parametrize(("rule", "ratio"), [("consumer", 1.5), ("consumer", 4.0), ("latency", 3.0)])
def test_macs_fall_by_the_ratio(small, rule, ratio):
    net, coupling = small
    made = plan(net, coupling, density(net).layers, rule, macs_ratio=ratio, inputs=FRAMES, round_to=8)
    cut = slice_channels(net, {group: range(n) for group, n in made.counts.items()})
    assert abs(macs(net, FRAMES) / macs(cut, FRAMES) / ratio - 1) <= 0.02
    assert made.missed is None


def test_latency_is_measured_and_corrected():
    net, inputs = make("chain")
    coupling = couple(net, inputs[0])
    groups = coupling.groups
    tried = []

    def family(number: float, extra: float) -> dict:
        return {g: max(1, g.units - int(number * g.units)) for g in groups}

    def size(counts) -> float:
        return float(sum(counts.get(g, g.units) for g in groups))

    def measure(counts) -> float:  # twice as much as the size says
        tried.append(size(counts))
        return 2 * size({}) / size(counts)

    counts, reached = corrected(family, size, 4.0, [1], measure)
    assert abs(reached - 4.0) <= 0.08
    assert len(tried) > 1
    assert size(counts) == 7  # of 14


def test_refine_gives_units_back_up_to_the_target():
    net, inputs = make("chain")
    groups = couple(net, inputs[0]).groups
    counts = dict.fromkeys(groups, 1)

    def size(counts) -> float:
        return float(sum(counts.values()))

    assert size(refine(counts, size, 9.0, [4, 1], lambda more: True)) == 9
    assert refine(counts, size, 9.0, [4, 1], lambda more: False) == counts


def test_missed_says_by_how_much():
    assert missed(7.9, 8.0, "ratio of parameters") is None
    assert missed(7.0, 8.0, "ratio of parameters") == (
        "ratio of parameters is 7, not within 2% of 8: the units are too coarse"
    )


def test_cuts_are_ever_smaller_and_keep_the_floor(small):
    net, coupling = small
    budget = Budget(net, coupling.groups, {f"{p}.weight": n for p, n in layer_macs(net, FRAMES).items()}, 8)
    path = cuts(LayerTimes(net, FRAMES, budget, rounds=1), by_importance(magnitude(net, coupling.groups)), 8, 0.25)
    sizes = [budget.parameters(counts) for counts in path]
    assert sizes == sorted(sizes, reverse=True)
    assert len(path) > 10
    assert path[0] == {group: group.units for group in coupling.groups}
    assert all(n >= group.units / 4 for group, n in path[-1].items())


def test_latency_rule_runs_to_a_measured_target(small):
    net, coupling = small
    made = plan(net, coupling, {}, "latency", latency_ratio=1.3, inputs=FRAMES, round_to=8)
    assert made.parameters < sum(p.numel() for p in net.parameters())


def test_one_target_at_a_time(small):
    net, coupling = small
    with pytest.raises(ValueError, match="expected one of ratio, macs_ratio and latency_ratio"):
        plan(net, coupling, density(net).layers, ratio=2, macs_ratio=2, inputs=FRAMES)
    with pytest.raises(ValueError, match="got no inputs"):
        plan(net, coupling, density(net).layers, macs_ratio=2)


def test_plans_are_the_same_in_every_process():
    script = (
        "import torch; from vfikit.compress import couple, plan; from vfikit.compress.plan import uniform;"
        "from vfikit.models import build; torch.manual_seed(0); net = build('cdfi', 'small');"
        "c = couple(net, (torch.zeros(1, 3, 32, 32),) * 2);"
        "print(list(plan(net, c, uniform(c.groups, 0.5), ratio=3, round_to=8).counts.values()))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1
    assert made.pop().startswith("[")
