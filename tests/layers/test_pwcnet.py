"""PWC-Net beside its golden cases: published names, sizes, errors."""

import pytest
import torch

from vfikit.layers import PWCNet
from vfikit.layers.pwcnet import backwarp, correlation, published_keys


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return PWCNet().eval()


def test_parameters_and_published_names(net):
    assert sum(p.numel() for p in net.parameters()) == 9_374_274
    state = dict(net.state_dict())
    theirs = {published.replace("net", "module"): state[ours] + 1 for published, ours in published_keys()}
    other = PWCNet()
    other.load_published(theirs)
    assert all(torch.equal(other.state_dict()[name], value + 1) for name, value in state.items())
    with pytest.raises(ValueError, match=r"PWCNet: state dict differs by 1 names \(netTwo\.netSix\.0\.bias\)"):
        other.load_published({key: value for key, value in theirs.items() if key != "moduleTwo.moduleSix.0.bias"})


def test_any_size(net):
    with torch.no_grad():
        assert net(*torch.rand(2, 1, 3, 37, 70)).shape == (1, 2, 37, 70)
    with pytest.raises(ValueError, match="expected two"):
        net(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))


def test_correlation_finds_the_shift():
    torch.manual_seed(0)
    x = torch.randn(1, 32, 12, 12)
    volume = correlation(x, torch.roll(x, (2, -3), (2, 3)))
    assert volume.shape == (1, 81, 12, 12)
    assert (volume[..., 4:-4, 4:-4].argmax(1) == 9 * (2 + 4) + (-3 + 4)).all()


def test_backwarp_keeps_the_border_at_rest_and_masks_outside():
    x = torch.rand(1, 3, 6, 9)
    for stretched in (False, True):
        assert torch.allclose(backwarp(x, torch.zeros(1, 2, 6, 9), stretched), x, atol=1e-5)
        assert not backwarp(x, torch.full((1, 2, 6, 9), 20.0), stretched).any()
    with pytest.raises(ValueError, match="at least 2 pixels"):
        backwarp(x[..., :1], torch.zeros(1, 2, 6, 1), stretched=True)
