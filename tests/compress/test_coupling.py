"""Groups of channels: every kind of coupling alone, proved by permutation and by removal."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import CouplingError, Group, Member, check_groups, couple, slice_channels, unobserved
from vfikit.models import build

from .nets import KINDS, NETS, Additive, Sampling, make


@pytest.mark.parametrize("kind", NETS)
def test_permuting_a_group_changes_nothing(kind):
    net, inputs = make(kind)
    coupling = couple(net, inputs[0])
    assert len(coupling.groups) == NETS[kind][2]
    assert check_groups(net, coupling.groups, inputs) < 1e-12
    for group in coupling.groups:
        assert unobserved(net, group, inputs[0]) == []


@pytest.mark.parametrize("kind", NETS)
def test_what_is_removed_unread_is_not_missed(kind):
    """In float64: where all that reads a unit is zero, the smaller net gives the same output, at every size."""
    net, inputs = make(kind, seed=1)
    groups = couple(net, inputs[0]).groups
    keep = {group: sorted(torch.randperm(group.units)[: max(1, group.units // 2)].tolist()) for group in groups}
    tensors = dict(net.named_parameters())
    with torch.no_grad():
        for group, units in keep.items():
            for member in group.members:
                if member.role == "in":
                    for unit in set(range(group.units)) - set(units):
                        tensors[member.tensor].data.index_fill_(member.axis, torch.tensor(member.indices[unit]), 0.0)
        small = slice_channels(net, keep)
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
        for case in inputs:
            for ours, full in zip(flat(small(*case)), flat(net(*case)), strict=True):
                torch.testing.assert_close(ours, full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_channels_that_are_cut_apart(kind):
    """Whole heads, the same places of every part: so many units, of so many channels."""
    net, inputs = make(kind)
    assert [[g.units, g.unit_size] for g in couple(net, inputs[0]).groups] == KINDS[kind][1]


def test_a_number_of_heads_that_is_kept_falls_with_them():
    net, inputs = make("heads")
    heads = next(group for group in couple(net, inputs[0]).groups if group.sizes)
    small = slice_channels(net, {heads: [1, 3]})
    assert small.layer.heads == 2
    assert small.layer.q.weight.shape == (6, 8)
    assert net.layer.heads == 4
    torch.testing.assert_close(small.layer.q.weight[:3], net.layer.q.weight[3:6])


def test_heads_that_are_a_number_in_the_code_stay():
    kept = couple(make("heads as a number")[0], (torch.rand(1, 3, 8, 8, dtype=torch.float64),)).kept
    assert "cuts the channels apart in layer (LiteralHeads)" in kept["layer.q.weight", 0]


def flat(output: Tensor | list[Tensor]) -> list[Tensor]:
    return output if isinstance(output, list) else [output]


@pytest.mark.parametrize("kind", ["chain", "additive skip", "concatenation", "batch norm", "group norm", "sampling"])
def test_a_group_without_one_of_its_members_is_rejected(kind):
    net, inputs = make(kind)
    for group in (group for group in couple(net, inputs[0]).groups if group.units > 1):
        for left_out in group.members:
            wrong = Group(tuple(member for member in group.members if member is not left_out))
            with pytest.raises(CouplingError, match="permuting channels changed the output"):
                check_groups(net, [wrong], inputs)


def test_a_group_with_a_stranger_is_rejected():
    net, inputs = make("chain")
    first, second = couple(net, inputs[0]).groups
    stranger = second.members[0]
    part = Group(tuple(Member(m.tensor, m.axis, m.role, m.indices[: second.units]) for m in first.members))
    assert check_groups(net, [part], inputs) < 1e-12
    with pytest.raises(CouplingError):
        check_groups(net, [Group((*part.members, stranger))], inputs)


def test_members_in_another_order_are_rejected():
    net, inputs = make("chain")
    member, *others = couple(net, inputs[0]).groups[0].members
    turned = Member(member.tensor, member.axis, member.role, member.indices[::-1])
    with pytest.raises(CouplingError):
        check_groups(net, [Group((turned, *others))], inputs)


def test_a_default_norm_does_not_hide_a_forgotten_member():
    """Scales of 1 and shifts of 0 are the same in any order; the check randomises them first."""
    net, inputs = make("batch norm")
    group = couple(net, inputs[0]).groups[0]
    wrong = Group(tuple(member for member in group.members if member.role != "norm"))
    with pytest.raises(CouplingError):
        check_groups(net, [wrong], inputs)


def test_images_and_outputs_are_never_cut():
    for kind in NETS:
        net, inputs = make(kind)
        coupling = couple(net, inputs[0])
        before = [tuple(x.shape) for x in flat(net(*inputs[0]))]
        small = slice_channels(net, {group: [0] for group in coupling.groups})
        assert [tuple(x.shape) for x in flat(small(*inputs[0]))] == before


def test_an_image_inside_a_concatenation_is_not_cut():
    coupling = couple(make("concatenation")[0], (torch.rand(1, 3, 8, 8, dtype=torch.float64),))
    read = {m.indices for g in coupling.groups for m in g.members if m.tensor == "both.weight" and m.axis == 1}
    assert {index for indices in read for unit in indices for index in unit} == {0, 1, 2, 3, 4, 8, 9, 10, 11}


def test_heads_that_steer_sampling_keep_their_outputs():
    coupling = couple(Sampling(), (torch.rand(1, 3, 8, 8),))
    for head in range(6):
        assert f"heads.{head}.2.weight" in {tensor for tensor, axis in coupling.kept if axis == 0}
    sampled = next(group for group in coupling.groups if group.modules("out") == ["features"])
    (member,) = (m for m in sampled.members if m.role == "in")
    assert member.indices == tuple((6 + c, 11 + c) for c in range(5))  # both samplings of a feature go with it


def test_the_model_is_not_touched():
    net = Additive().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    couple(net, (torch.rand(1, 3, 8, 8),))
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not net._forward_hooks


def test_excluding_modules():
    net = Additive()
    coupling = couple(net, (torch.rand(1, 3, 8, 8),)).without(["down"])
    assert [group.modules("out") for group in coupling.groups] == []


@pytest.mark.parametrize("name", ["adacof", "adacof+", "adacof-compressed", "adacof+-compressed"])
def test_adacof_has_the_published_feature_tensors(name):
    """48 tensors between convolutions, as in the published table; the heads' last outputs stay."""
    with torch.device("meta"):
        net = build(name, "published")
    coupling = couple(net, (torch.rand(1, 3, 40, 33), torch.rand(1, 3, 40, 33)))
    assert len(coupling.groups) == 48
    written = [path for group in coupling.groups for path in group.modules("out")]
    assert len(written) == len(set(written)) == 59 - 7
    assert not any(path.endswith(".7") for path in written)


@pytest.mark.parametrize("name", ["adacof", "cdfi"])
def test_groups_of_the_models_pass(name):
    torch.manual_seed(0)
    net = build(name, "small", kernel_size=3, dilation=1)
    inputs = [tuple(torch.rand(2, n, 3, *size)) for n, size in ((1, (32, 40)), (2, (20, 17)))]
    coupling = couple(net, inputs[0])
    assert check_groups(net, coupling.groups, inputs) < 1e-9
    keep = {group: range(0, group.units, 2) for group in coupling.groups}
    small = slice_channels(net, keep)
    for case in inputs:
        assert small(*case).shape == net(*case).shape
    shared = max(coupling.groups, key=lambda group: len(group.members))
    assert unobserved(net, shared, inputs[0]) == []


def test_torch_pruning_agrees_on_plain_layers():
    """Where its tracer is right (convolutions, additions), ours finds the same groups."""
    pruning = pytest.importorskip("torch_pruning")
    net = Additive()
    x = torch.rand(1, 3, 8, 8)
    ours = {
        frozenset((m.module, m.role) for m in group.members if m.role != "norm") for group in couple(net, (x,)).groups
    }
    graph = pruning.DependencyGraph().build_dependency(net, example_inputs=x)
    names = {module: name for name, module in net.named_modules()}
    theirs = set()
    for group in graph.get_all_groups(ignored_layers=list(net.heads), root_module_types=[nn.Conv2d]):
        members = set()
        for dependency, _ in group:
            module = dependency.target.module
            if isinstance(module, nn.Conv2d):
                members.add((names[module], "out" if "out_channels" in dependency.handler.__name__ else "in"))
        theirs.add(frozenset(members))
    assert ours == theirs
