"""Stages of training a model that fills holes: what each trains, and what flows are measured by."""

import pytest
import torch

from vfikit.layers import SPyNet
from vfikit.models import build
from vfikit.models.e2fgvi import Inpainted
from vfikit.tasks.inpainting_stages import STAGES, Stage, as_seen, exact_flow_error


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_its_parts_alone(name: str) -> None:
    torch.manual_seed(0)
    model = build("e2fgvi-hq", "small", depth=1)
    stage = Stage(model, name)
    frames = torch.rand(1, 3, 3, 22, 30) * 2 - 1
    made = stage(frames, 2)
    assert made.frames.shape == frames.shape
    assert made.forward_flows.shape == (1, 0 if name in ("frames", "holes") else 1, 2, 6, 8)
    (made.frames.square().mean() + made.forward_flows.square().sum() + made.backward_flows.square().sum()).backward()
    learn = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    ends = {"encoder", "decoder"}
    parts = {"frames": ends, "holes": ends, "flow": {"flow"}}.get(name, {n for n, _ in model.named_children()})
    assert learn == parts
    assert parts == {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}


def test_a_stage_is_known() -> None:
    with pytest.raises(ValueError, match="stage is 'all', expected one of frames, holes, flow, clips"):
        Stage(build("e2fgvi-hq", "small", depth=1), "all")


def test_exact_flows_are_those_that_a_flow_network_would_find() -> None:
    """A ramp that grows by a tenth: its quarter, as the network sees it, is brought back by the exact flow so seen."""
    net, model = SPyNet(1, (4,)), build("e2fgvi-hq", "small", depth=1)
    model.flow = net
    height, width = 40, 56
    x = torch.arange(width, dtype=torch.float32)
    flow = torch.zeros(1, 1, 2, height, width)
    flow[0, 0, 0] = 0.1 * x  # what is at x goes to 1.1 x
    seen = as_seen(flow, (10, 14))
    assert seen.shape == (1, 1, 2, 10, 14)
    places = torch.linspace(0, width - 1, 14)
    assert torch.allclose(seen[0, 0, 0, 3], 0.1 * places * 13 / 55, atol=1e-5)
    made = Inpainted(torch.zeros(1, 2, 3, height, width), seen, torch.zeros_like(seen))
    assert exact_flow_error(made, (flow, torch.zeros_like(flow))) < 1e-6
    assert exact_flow_error(made, (flow, flow)) > 0.1
