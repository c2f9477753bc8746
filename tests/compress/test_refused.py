"""What is not understood keeps its channels and says why; a net that cannot be traced is refused by name, in time."""

import time

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import CouplingError, check_groups, couple

from .nets import Chain, conv


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.cumsum(self.a(x), dim=1))


class Halved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).unflatten(1, (4, 2))[:, :, 0])


class Constant(nn.Module):
    """As many numbers as channels, in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) * torch.arange(8.0, device=x.device)[:, None, None])


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Unknown, "cumsum"),
        (Halved, "a reshape that cuts the channels apart"),
        (Constant, "joined with something that has no channels"),
    ],
)
def test_what_is_not_understood_is_kept_and_says_why(net, reason):
    coupling = couple(net(), (torch.rand(1, 3, 8, 8),))
    assert not any("a.weight" in (m.tensor, "0.weight") and m.axis == 0 for g in coupling.groups for m in g.members)
    assert any(reason in why for why in coupling.kept.values())


def test_a_layer_that_does_not_run_is_never_cut():
    class Spare(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("spare", nn.Identity())
            self.spare.layer = conv(8, 8)

    coupling = couple(Spare(), (torch.rand(1, 3, 8, 8),))
    assert len(coupling.groups) == 2
    assert "takes no part" in coupling.kept["spare.layer.weight", 0]


class Shared(nn.Sequential):
    """Two convolutions of one weight."""

    def __init__(self) -> None:
        super().__init__(conv(3, 8), conv(8, 8), conv(8, 8), conv(8, 3))
        self[2].weight = self[1].weight


def test_a_weight_that_two_modules_share_is_never_cut():
    net, inputs = Shared(), (torch.rand(1, 3, 8, 8),)
    coupling = couple(net, inputs)
    assert coupling.groups == ()
    assert check_groups(net, coupling.groups, [inputs]) == 0
    assert {coupling.kept[f"{i}.weight", axis] for i in (1, 2) for axis in (0, 1)} == {
        "a tensor that several modules share"
    }


def test_a_net_that_needs_data_is_refused_by_name():
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean().item() > 0 else -x

    net = nn.Sequential(conv(3, 4), Picky(), conv(4, 3))
    with pytest.raises(CouplingError, match=r"1 \(Picky\) does not run without data"):
        couple(net, (torch.rand(1, 3, 8, 8),))


def test_a_net_that_cannot_be_copied_is_refused_by_name():
    net = nn.Sequential(conv(3, 4), nn.Identity(), conv(4, 3))
    net[1].kept = conv(1, 1).weight * 2  # part of a graph, as the older ``weight_norm`` leaves behind
    with pytest.raises(CouplingError, match=r"1 \(Identity\) cannot be copied"):
        couple(net, (torch.rand(1, 3, 8, 8),))


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


class Stubborn(nn.Module):
    """No operation at all, and no error gets out."""

    def forward(self, x: Tensor) -> Tensor:
        turns = 0
        while True:
            try:
                turns += 1
            except Exception:
                turns = 0


@pytest.mark.parametrize("kind", [Endless, Stubborn])
def test_tracing_ends(kind):
    net = nn.Sequential(conv(3, 4), kind())
    start = time.monotonic()
    with pytest.raises(CouplingError, match=rf"took over 0.3 s; it was in 1 \({kind.__name__}\)"):
        couple(net, (torch.rand(1, 3, 8, 8),), seconds=0.3)
    assert time.monotonic() - start < 5
    assert couple(Chain(), (torch.rand(1, 3, 8, 8),), seconds=30).groups  # nothing of it is left


class Asserting(nn.Module):
    """Runs at its own width alone, by a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if y.shape[1] != 8:
            raise RuntimeError("8 channels or none")
        return self.b(y)


class Sliced(Asserting):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(torch.cat([y[:, 4:].relu(), y[:, :4].tanh()], dim=1))


class Reshaped(Asserting):
    """Channels go where a reshape puts them: into the width."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.permute(0, 2, 3, 1).reshape(x.shape[0], 8, x.shape[2], x.shape[3]))


@pytest.mark.parametrize("net", [Asserting, Sliced, Reshaped])
def test_a_net_that_runs_at_one_width_keeps_it(net):
    coupling = couple(net(), (torch.rand(1, 3, 8, 8),))
    assert coupling.groups == ()
    assert {("a.weight", 0), ("b.weight", 1)} <= coupling.kept.keys()
