import pytest
import torch
from torch import nn

from vfikit.layers import SpectralConv3d, TemporalPatchDiscriminator


def test_it_has_the_published_size_and_any_input() -> None:
    with torch.device("meta"):
        net = TemporalPatchDiscriminator()
        assert net(torch.empty(2, 5, 3, 240, 432)).shape == (2, 5, 128, 4, 7)
    assert sum(p.numel() for p in net.parameters()) == 4_461_728
    with pytest.raises(ValueError, match=r"frames are \(2, 3, 8, 8\), expected \(B, T, 3, H, W\)"):
        net(torch.empty(2, 3, 8, 8))


def test_spectral_norm_converges_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    layer, x = SpectralConv3d(3, 8, (1, 3, 3), (1, 1, 1), (0, 1, 1)), torch.rand(1, 3, 2, 8, 8)
    for _ in range(200):
        layer(x)
    truth = torch.linalg.svdvals(layer.weight_orig.flatten(1))[0]
    torch.testing.assert_close(layer.sigma(), truth, rtol=1e-4, atol=0)
    before = layer.eval().weight_u.clone()
    layer(x)
    assert torch.equal(layer.weight_u, before)


def test_spectral_norm_agrees_with_torch_and_allows_two_calls_before_backward() -> None:
    torch.manual_seed(0)
    layer, plain = SpectralConv3d(2, 4, (3, 3, 3), (1, 1, 1), (1, 1, 1)), nn.Conv3d(2, 4, 3, padding=1, bias=False)
    theirs = nn.utils.spectral_norm(plain)
    theirs.load_state_dict(layer.state_dict())
    x = torch.rand(1, 2, 3, 5, 5)
    ours, other = layer(x).square().sum() + layer(2 * x).sum(), theirs(x).square().sum() + theirs(2 * x).sum()
    torch.testing.assert_close(ours, other)
    ours.backward()
    other.backward()
    torch.testing.assert_close(layer.weight_orig.grad, theirs.weight_orig.grad)
