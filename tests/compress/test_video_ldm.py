"""Video-LDM is compressed as a whole: encoder, inflated U-Net, decoder, each temporal layer with what it stands in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vfikit import checkpoints, compress
from vfikit.models import build

from ..models.toys import VIDEO_LDM


@pytest.mark.slow
def test_channels_are_coupled_cut_and_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build(replace(VIDEO_LDM, interpolation=False, upsampling=False)).eval()
    inputs = (torch.rand(1, 3, 3, 16, 16),)
    coupling = compress.couple(net, inputs)
    assert compress.check_groups(net, coupling.groups, [inputs, (inputs[0][:, :2, :, :, :12],)]) < 1e-7
    named = {tensor for group in coupling.groups for member in group.members for tensor in (member.tensor,)}
    assert any(".temporal.q_proj." in name for name in named)
    assert any(".over_frames.channel" in name for name in named), "positions would be those of other channels"
    assert any(".conv3d." in name for name in named)
    plan = compress.plan(net, coupling, compress.density(net).layers, ratio=2.0, inputs=inputs)
    importance = compress.magnitude(net, coupling.groups)
    small = compress.slice_channels(net, compress.choose(importance, plan.counts))
    assert compress.parameters(small) < 0.55 * compress.parameters(net)
    checkpoints.save(small, tmp_path / "small.safetensors")
    loaded = checkpoints.load(tmp_path / "small.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(*inputs), small(*inputs))
    assert loaded.generate(num_frames=5, generator=torch.Generator().manual_seed(0)).shape == (1, 5, 3, 16, 12)
    rebuilt = compress.rebuild(net, plan.widths)
    assert rebuilt(*inputs).shape == inputs[0].shape


@pytest.mark.parametrize("kind", ["interpolation", "upsampling"])
def test_networks_that_are_not_traced_are_refused(kind: str) -> None:
    net = build(replace(VIDEO_LDM, **{"interpolation": False, "upsampling": False, kind: True}))
    said = {"interpolation": "interpolator", "upsampling": "upsampler"}[kind]
    with pytest.raises(compress.CouplingError, match=f"leaves out {said}, whose channels .* without"):
        compress.couple(net, (torch.rand(1, 3, 3, 16, 16),))
