"""E2FGVI: published sizes and names, any size and length, gradients, half precision, compilation."""

import json

import pytest
import torch
from torch import Tensor

from vfikit import checkpoints
from vfikit.checkpoints import load_published
from vfikit.files import InputError
from vfikit.models import build
from vfikit.models.e2fgvi import E2FGVINet

from ..golden.adapters.case import DATA
from .test_adacof import on_meta, parameters

FAMILIES = {"e2fgvi": "e2fgvi", "e2fgvi-hq": "e2fgvi_hq"}
TINY = {
    "stem": (8, 8, 8, 16),
    "grouped": ((16, 1), (16, 2), (16, 4), (8, 1)),
    "decoder": (8, 8),
    "flow_levels": 2,
    "flow_widths": (4, 4),
    "deform_groups": 2,
    "hidden": 16,
    "depth": 2,
    "heads": 2,
    "window": (2, 3),
    "focal_window": (3, 3),
    "feed_forward": 4,
}


def toy(name: str = "e2fgvi-hq", **overrides: object) -> E2FGVINet:
    torch.manual_seed(0)
    net = build(name, "small", **(TINY | overrides))
    for parameter in net.parameters():  # as published, networks begin almost silent
        torch.nn.init.normal_(parameter, std=0.15)
    return net.eval()


def test_small_starts_with_features_as_large_as_its_input() -> None:
    """Published, they start thousands of times smaller, and so do the first layers' gradients."""
    torch.manual_seed(0)
    sizes = [build("e2fgvi-hq", "small", he_start=he).encode(clip(1, 1, 24, 24)).std() for he in (True, False)]
    assert 0.1 < sizes[0] < 10
    assert sizes[1] < 1e-3
    with torch.device("meta"):
        assert not build("e2fgvi-hq").config.he_start


def test_a_quiet_start_encodes_and_decodes() -> None:
    """What encoder and decoder have learned alone is not disturbed; published, the rest starts by adding noise."""
    torch.manual_seed(0)
    frames = clip(1, 3, 24, 24)
    with torch.no_grad():
        for quiet in (True, False):
            net = build("e2fgvi-hq", "small", quiet_start=quiet).eval()
            alone = net.decode(net.encode(frames))
            assert torch.allclose(net(frames).frames, alone, atol=1e-5) == quiet
    with torch.device("meta"):
        assert not build("e2fgvi-hq").config.quiet_start


def test_without_corners_a_decoder_treats_all_places_alike() -> None:
    """Upsampling that maps corners to corners moves pixels by up to half a feature, more at the edges."""
    torch.manual_seed(0)
    for corners in (False, True):
        net = build("e2fgvi-hq", "small", corners=corners).eval()
        features = torch.randn(1, 1, 32, 24, 24)
        with torch.no_grad():
            here, there = net.decode(features), net.decode(features.roll(2, dims=-1)).roll(-8, dims=-1)
        inside = (..., slice(24, 72), slice(24, 72))
        assert torch.allclose(here[inside], there[inside], atol=1e-5) != corners


def clip(count: int, length: int, height: int, width: int) -> Tensor:
    return torch.rand(count, length, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", FAMILIES)
def test_published_sizes_and_names(name: str) -> None:
    spec = json.loads((DATA / f"{FAMILIES[name]}.keys.json").read_text())
    net = on_meta(name)
    assert parameters(net) == spec["parameters"] == {"e2fgvi": 41_799_743, "e2fgvi-hq": 41_117_887}[name]
    composition = parameters(net.compose) + parameters(net.refine)
    sizes = [parameters(part) for part in (net.encoder, net.decoder, net.propagation, net.split, net.blocks, net.flow)]
    parts = ("encoder", "decoder", "feat_prop_module", "ss", "transformer", "update_spynet")
    assert [*sizes, composition] == [spec["parts"][part] for part in (*parts, "sc")]
    state = {key: torch.empty(shape, device="meta") for key, shape in spec["keys"].items()}
    load_published(net, state)  # with the constants that published files carry
    load_published(net, {key: value for key, value in state.items() if key not in spec["left"]})
    assert {ours for _, ours in net.published_keys()} == set(net.state_dict())
    assert 1e6 < parameters(on_meta(name, "small")) < 2e6


def test_the_other_familys_checkpoint_is_refused() -> None:
    spec = json.loads((DATA / "e2fgvi.keys.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in spec["keys"].items()}
    with pytest.raises(InputError, match=r"2 missing: sc.bias_conv.*1 unknown: sc.bias"):
        load_published(on_meta("e2fgvi-hq"), state)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (16, 24), (37, 50)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        made = toy(name)(clip(2, 4, *size), 3)
    assert made.frames.shape == (2, 4, 3, *size)
    quarter = [-(-side // 4) for side in size]
    assert list(made.forward_flows.shape) == list(made.backward_flows.shape) == [2, 2, 2, *quarter]
    assert made.frames.isfinite().all()
    assert float(made.frames.std()) > 0.01 or size == (1, 1)


def test_a_batch_is_its_clips_and_one_frame_is_a_clip() -> None:
    net, frames = toy().double(), clip(2, 3, 16, 20).double()
    with torch.no_grad():
        both = net(frames, 2).frames
        alone = torch.cat([net(each[None], 2).frames for each in frames])
        assert (both - alone).abs().max() < 1e-10
        single = net(frames[:, :1])
    assert single.frames.shape == (2, 1, 3, 16, 20)
    assert single.forward_flows.shape == (2, 0, 2, 4, 5)


def test_the_bias_map_is_resized() -> None:
    net = toy("e2fgvi", bias_map=(4, 6))
    x = torch.zeros(1, 8, 4, 6)
    assert torch.equal(net.refine(x)[0], net.refine.bias)
    assert net.refine(torch.zeros(1, 8, 9, 5)).shape == (1, 8, 9, 5)


def test_every_parameter_has_a_true_gradient() -> None:
    net, frames = toy().double(), clip(1, 4, 12, 16).double()
    made = net(frames, 3)
    (made.frames.square().mean() + made.forward_flows.square().mean()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    weight = net.propagation.backward_branch.align.conv_offset[6].bias
    slope, step = weight.grad[5].item(), 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight[5] += sign * step
            made = net(frames, 3)
            values.append((made.frames.square().mean() + made.forward_flows.square().mean()).item())
            weight[5] -= sign * step
    assert abs((values[0] - values[1]) / (2 * step) - slope) < 1e-6 + 1e-3 * abs(slope)


def test_half_precision_is_near() -> None:
    net, frames = toy(), clip(1, 3, 32, 48)
    with torch.no_grad():
        exact = net(frames, 2)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(frames, 2)
        half = net.bfloat16()(frames.bfloat16(), 2)
    for made in (mixed, half):
        assert (made.frames.float() - exact.frames).abs().mean() < 0.02
        assert made.forward_flows.dtype == torch.float32


@pytest.mark.slow  # a minute
def test_compiles() -> None:
    net, frames = toy(depth=1), clip(1, 3, 16, 24)
    torch._dynamo.reset()
    with torch.no_grad():
        exact = net(frames, 2).frames
        assert torch.allclose(torch.compile(net, backend="aot_eager")(frames, 2).frames, exact, atol=1e-5)


def test_saved_and_loaded(tmp_path) -> None:
    net, frames = toy(), clip(1, 2, 16, 16)
    checkpoints.save(net, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(checkpoints.load(tmp_path / "net.safetensors")(frames).frames, net(frames).frames)


def test_wrong_input() -> None:
    net = toy()
    with pytest.raises(ValueError, match=r"E2FGVINet: frames are \(1, 3, 8, 8\), expected \(B, T, 3, H, W\)"):
        net(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="E2FGVINet: local is 3, expected 1 to 2"):
        net(torch.zeros(1, 2, 3, 8, 8), 3)
    with pytest.raises(ValueError, match="expected an even number"):
        toy(deform_groups=3)
