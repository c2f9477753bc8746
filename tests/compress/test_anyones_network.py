"""docs/compress-your-model.md: two networks that vfikit has never seen, through all six steps as a reader runs them."""

import json
import re

import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import CouplingError, check_groups, couple, resize, slice_channels, widths

from ..repo import ROOT
from ..test_readme import BLOCKS, run_page

PAGE = ROOT / "docs" / "compress-your-model.md"
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder, threads = tmp_path_factory.mktemp("page"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        names = run_page(PAGE, folder, monkeypatch, ("python slow",))
    names |= {"folder": folder}
    torch.set_num_threads(threads)
    return names


NETS = {  # full, small, how many frames they take
    "unet": ("unet", "small_unet", 1),
    "flow_net": ("flow_net", "small_flow_net", 2),
}


@pytest.fixture(params=NETS)
def nets(page, request):
    full, small, inputs = NETS[request.param]
    torch.manual_seed(0)
    return page[full], page[small], tuple(torch.rand(inputs, 2, 3, 32, 48))


def test_the_unet_has_sixty_lines():
    first = next(block for block in BLOCKS if block.page == PAGE)
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 60


@pytest.mark.parametrize("name", NETS)
def test_the_report_says_what_was_saved(page, name):
    found = json.loads((page["folder"] / "runs" / name / "report.json").read_text())
    before, after = found["before"], found["after"]
    assert before["parameters"] / after["parameters"] == pytest.approx(3, rel=0.05)
    assert before["macs"] / after["macs"] > 1.5
    assert after["psnr"] > found["psnr_before_fine_tuning"]
    assert after["psnr"] > before["psnr"] - 0.5
    convolutions = {path for path, module in page[name].named_modules() if isinstance(module, CONVOLUTIONS)}
    assert {layer["name"] for layer in found["layers"]} == convolutions
    for picture in ("density.png", "report.png"):
        assert (page["folder"] / "runs" / name / picture).stat().st_size > 1000


def test_groups_are_right_and_removal_is_exact(nets):
    """In float64: what nothing reads is not missed, whole groups of norms and whole heads included."""
    full, _, inputs = nets
    full = full.double()
    inputs = tuple(x.double() for x in inputs)
    groups = couple(full, inputs).groups
    assert check_groups(full, groups, [inputs, tuple(x[:1, :, :16, :24] for x in inputs)]) < 1e-9
    keep = {group: list(range(0, group.units, 2)) for group in groups}
    with torch.no_grad():
        masked = slice_channels(full, {})
        tensors = dict(masked.named_parameters())
        for group in groups:
            for member in (member for member in group.members if member.role == "in"):
                dead = [index for unit in range(1, group.units, 2) for index in member.indices[unit]]
                tensors[member.tensor].data.index_fill_(member.axis, torch.tensor(dead, dtype=torch.long), 0.0)
        expected = masked(*inputs)
        assert (expected - full(*inputs)).abs().max() > 1e-3
        torch.testing.assert_close(slice_channels(masked, keep)(*inputs), expected, rtol=1e-11, atol=1e-11)
    full.float()


def test_what_goes_together_in_the_unet(page):
    groups = couple(page["unet"], (torch.rand(1, 3, 32, 32),)).groups
    heads = next(group for group in groups if "middle.1.qkv" in group.modules("out"))
    assert (heads.units, heads.unit_size) == (4, 3 * 18)
    assert [size.tensor for size in heads.sizes] == ["middle.1.heads"]
    skip = next(group for group in groups if "down1.conv2" in group.modules("out"))
    assert (skip.units, skip.unit_size) == (3, 8)
    assert {"first", "down1.conv2"} == set(skip.modules("out"))
    assert {"up1.conv1", "up1.skip"} <= set(skip.modules("in"))
    assert "up1.norm1" in skip.modules("norm")


def test_what_steers_sampling_stays(page):
    net = page["flow_net"]
    kept = couple(net, (torch.rand(1, 3, 32, 32),) * 2).kept
    for block in range(2):
        assert (f"blocks.{block}.up.0.weight", 1) in kept
    small = page["small_flow_net"]
    assert [block.up[0].out_channels for block in small.blocks] == [20, 20]
    assert small.features[1][0].out_channels < net.features[1][0].out_channels


def test_saved_and_loaded_it_is_the_same(nets):
    full, small, inputs = nets
    stored = json.loads(json.dumps(widths(small)))
    assert stored != widths(full)
    again = resize(type(full)(), stored)
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(*inputs), small(*inputs))
        assert torch.equal(resize(again, stored)(*inputs), small(*inputs))


def test_small_nets_compile(nets):
    _, small, inputs = nets
    with torch.no_grad():
        compiled = torch.compile(small, backend="aot_eager", fullgraph=True)(*inputs)
        torch.testing.assert_close(compiled, small(*inputs), rtol=1e-4, atol=1e-5)


def test_small_nets_export(nets):
    _, small, inputs = nets
    exported = torch.export.export(small, inputs).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(*inputs), small(*inputs), rtol=1e-4, atol=1e-5)


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def test_the_error_is_as_the_page_shows_it(page):
    net = page["UNet"]()
    net.middle[1] = Picky()
    with pytest.raises(CouplingError) as caught:
        couple(net, (torch.rand(1, 3, 32, 32),))
    (shown,) = (block.text.strip() for block in BLOCKS if block.page == PAGE and block.fence == "text")
    assert str(caught.value) == re.sub(r"\s+", " ", shown)
