"""Propagation, soft split and composition, windows of heads: E2FGVI's channels are coupled through all of them."""

import torch

from vfikit import checkpoints
from vfikit.compress import check_groups, couple, density, parameters, plan, rebuild, slice_channels, widths

from ..models.test_e2fgvi import clip, toy


def test_every_part_is_cut(tmp_path) -> None:
    net = toy(depth=1).double()
    frames = clip(1, 3, 16, 24).double()
    coupling = couple(net, (frames,))
    producers = {member.tensor for group in coupling.groups for member in group.members if member.role == "out"}
    for name in (
        "flow.levels.1.2",
        "encoder.layers.1",
        "propagation.forward_branch.align",
        "propagation.backward_branch.align.conv_offset.2",
        "propagation.fusion",
        "split.embedding",
        "blocks.0.attn.qkv",
        "blocks.0.mlp.conv1",
        "compose.embedding",
        "refine",
        "decoder.6",
    ):
        assert f"{name}.weight" in producers, name
    for name in ("flow.levels.1.4", "propagation.forward_branch.align.conv_offset.6", "decoder.8"):
        assert f"{name}.weight" not in producers, f"{name} makes flows, offsets or pixels"
    assert check_groups(net, coupling.groups, [(frames,), (frames[..., :9, :20],)]) < 1e-9

    planned = plan(net, coupling, density(net).layers, ratio=2.0, inputs=(frames,), round_to=1)
    small = slice_channels(net, {group: range(count) for group, count in planned.counts.items()})
    assert parameters(small) < 0.6 * parameters(net)
    checkpoints.save(small, tmp_path / "small.safetensors")
    again = checkpoints.load(tmp_path / "small.safetensors")
    with torch.no_grad():
        assert torch.allclose(again(frames).frames, small(frames).frames, atol=1e-10)
    assert widths(rebuild(net, planned.widths)) == widths(small)
