"""Every model of ours, cut: it comes back from its file as it was, compiles as one graph, and is exported."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vfikit import checkpoints
from vfikit.compress import couple, rebuild, slice_channels, widths
from vfikit.models import build
from vfikit.models.pretrained import Pretrained

from ..models.test_e2fgvi import clip
from ..models.test_e2fgvi import toy as inpainting
from ..models.toys import VIDEO_LDM, pair, toy

pytestmark = pytest.mark.slow


class OneStep(nn.Module):
    """LDMVFI's networks, one after the other: its sampler, which calls the denoiser, is no network."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, frame0: Tensor, frame1: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        pair = self.net.prepare(frame0, frame1)
        made: Tensor = self.net.decode(self.net.predict_noise(noisy, t, pair), pair)
        return made


class Case(NamedTuple):
    """A cut model, what it is run as, and on what."""

    small: Pretrained
    run: Callable[[Pretrained], nn.Module]
    inputs: tuple[Any, ...]


def as_it_is(net: Pretrained) -> nn.Module:
    return net


def whole(name: str) -> Case:
    """The model before it is cut."""
    match name:
        case "ldmvfi":
            latent = torch.randn(1, 3, 8, 8)
            return Case(toy(name), OneStep, (*pair(32, 32), latent, torch.tensor([7])))
        case "e2fgvi" | "e2fgvi-hq":
            return Case(inpainting(name, depth=1), as_it_is, (clip(1, 3, 16, 24),))
        case "lvdm":
            return Case(toy(name), as_it_is, (torch.rand(1, 16, 3, 8, 12),))
        case "video-ldm":
            net = build(replace(VIDEO_LDM, interpolation=False, upsampling=False))
            return Case(net, as_it_is, (torch.rand(1, 3, 3, 16, 16), torch.tensor([99]), torch.randn(1, 3, 4, 8, 8)))
    return Case(toy(name), as_it_is, tuple(pair(24, 32)))


@cache
def cut(name: str) -> Case:
    """Half of the units of every group are left."""
    torch.manual_seed(0)
    net, run, inputs = whole(name)
    net = net.eval()
    small = slice_channels(run(net), {group: range(0, group.units, 2) for group in couple(run(net), inputs).groups})
    small = cast(Any, small).net if run is OneStep else small
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in net.parameters())
    return Case(cast(Pretrained, small).eval(), run, inputs)


NAMES = ["adacof", "adacof+", "cdfi", "ldmvfi", "e2fgvi", "e2fgvi-hq", "lvdm", "video-ldm"]


@torch.no_grad()
def made(net: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    return [x for x in tree_leaves(net(*inputs)) if isinstance(x, Tensor)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert expected
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("route", ["slice", "rebuild"])
@pytest.mark.parametrize("name", NAMES)
def test_it_comes_back_from_its_file(name: str, route: str, tmp_path: Path) -> None:
    small, run, inputs = cut(name)
    small = small if route == "slice" else rebuild(small, {}).eval()
    checkpoints.save(small, tmp_path / "small.safetensors")
    again = checkpoints.load(tmp_path / "small.safetensors")
    assert widths(again) == widths(small)
    ours, theirs = again.state_dict(), small.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    close(made(run(again), inputs), made(run(small), inputs))  # to the last bits, where strides in memory differ


@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_as_one_graph(name: str) -> None:
    small, run, inputs = cut(name)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(run(small)), backend="aot_eager", fullgraph=True, dynamic=False)
    close(made(compiled, inputs), made(run(small), inputs))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exported(name: str) -> None:
    small, run, inputs = cut(name)
    with torch.no_grad():
        program = torch.export.export(run(small), inputs)
    close(made(program.module(), inputs), made(run(small), inputs))
