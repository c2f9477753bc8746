"""Measured losses, and plans that follow them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import compensate, couple, input_moments, least_missed, plan, sensitivity, slice_channels
from vfikit.compress.budget import Budget
from vfikit.compress.compensate import removal_order
from vfikit.compress.cost import layer_macs, macs
from vfikit.compress.cuts import cuts

CALL = (torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)


class TwoPaths(nn.Module):
    """The sum of a path that makes the picture and one, of the same size, that hardly adds to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.loud, self.faint = (
            nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)) for _ in range(2)
        )
        self.faint[2].weight.data *= 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + self.faint(x)


@pytest.fixture(scope="module")
def measured():
    """The net, its groups by the path they are in, and the losses of each."""
    net = TwoPaths().eval()
    coupling = couple(net, CALL)
    groups = {group.members[0].module.split(".")[0]: group for group in coupling.groups}
    with torch.no_grad():
        whole = net(*CALL)
    moments = input_moments(net, [CALL])

    @torch.no_grad()
    def distance(cut: nn.Module) -> float:
        return float((cut(*CALL) - whole).square().mean().sqrt())

    return net, coupling, groups, dict(sensitivity(net, coupling.groups, moments, distance)), moments, distance


def test_losses_are_what_slicing_loses(measured):
    net, _, groups, losses, moments, distance = measured
    group = groups["loud"]
    for count in (8, 2):  # where it is measured
        keep = least_missed(net, [group], {group: count}, moments)
        cut = slice_channels(compensate(net, keep, moments), keep)
        assert losses[group][count] == pytest.approx(distance(cut) ** 2, rel=1e-3)


def test_losses_fall_with_what_is_kept(measured):
    *_, groups, losses, _, _ = measured
    for group in groups.values():
        assert len(losses[group]) == group.units + 1
        assert losses[group] == sorted(losses[group], reverse=True)
        assert losses[group][-1] == 0
    assert all(a > 1e4 * b for a, b in zip(losses[groups["loud"]][:-1], losses[groups["faint"]][:-1]))


def test_plan_cuts_what_hardly_matters(measured):
    net, coupling, groups, losses, _, _ = measured
    made = plan(net, coupling, {}, "sensitivity", macs_ratio=1.6, inputs=CALL, losses=losses)
    cut = slice_channels(net, {group: range(n) for group, n in made.counts.items()})
    assert macs(net, CALL) / macs(cut, CALL) == pytest.approx(1.6, rel=0.02)
    assert made.counts[groups["faint"]] <= 4  # an eighth, and what is given back to meet the target
    assert made.counts[groups["loud"]] > 12


def test_a_plan_says_what_work_it_leaves(measured):
    """Nothing is said where work falls as asked."""
    net, coupling, _, losses, _, _ = measured
    short = plan(net, coupling, {}, "sensitivity", 1.5, 20.0, CALL, losses=losses)
    assert "work falls" in (short.missed or "")
    assert "not 20: the floors leave no more" in (short.missed or "")
    assert plan(net, coupling, {}, "sensitivity", 1.5, 1.2, CALL, losses=losses).missed is None


def test_a_plan_goes_past_the_ratio_for_work(measured):
    """Parameters fall as far as work has to: both paths have as much of either."""
    net, coupling, _, losses, _, _ = measured
    made = plan(net, coupling, {}, "sensitivity", 1.5, 3.0, CALL, losses=losses)
    cut = slice_channels(net, {group: range(n) for group, n in made.counts.items()})
    assert macs(net, CALL) / macs(cut, CALL) >= 3.0
    assert sum(p.numel() for p in net.parameters()) / made.parameters > 1.5 * 1.02
    assert made.missed is None


def test_a_plan_needs_the_losses_of_all_groups(measured):
    net, coupling, groups, losses, _, _ = measured
    with pytest.raises(ValueError, match="rule is 'sensitivity', expected losses of every group"):
        plan(net, coupling, {}, "sensitivity", ratio=2, losses={groups["loud"]: losses[groups["loud"]]})


def test_removal_order_nests_what_is_least_missed(measured):
    net, _, groups, _, moments, _ = measured
    group = groups["loud"]
    order = removal_order(net, group, moments)
    assert sorted(order) == list(range(group.units))
    for count in (3, 9):
        assert least_missed(net, [group], {group: count}, moments)[group] == sorted(order[-count:])


def test_each_cut_is_the_cheapest_of_all(measured):
    """The heap gives what asking every group at every step gives."""
    net, coupling, _, losses, _, _ = measured
    work = {f"{path}.weight": n for path, n in layer_macs(net, CALL).items()}
    budget = Budget(net, coupling.groups, work, 1)
    path = cuts(budget.macs, losses, 1, 1 / 8)
    for before, after in pairwise(path):
        prices = {
            group: (losses[group][n - 1] - losses[group][n])
            / (budget.macs(before) - budget.macs({**before, group: n - 1}))
            for group, n in before.items()
            if n > 2
        }
        (gone,) = (group for group in before if after[group] != before[group])
        assert prices[gone] == pytest.approx(min(prices.values()))
