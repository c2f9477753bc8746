import pytest
import torch

from vfikit.layers import I3D
from vfikit.layers.i3d import same


def test_size_and_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = I3D()
    assert sum(p.numel() for p in net.parameters()) == 12_697_264
    assert net.state_dict()["Mixed_4b.b1b.conv3d.weight"].shape == (208, 96, 3, 3, 3)


@pytest.mark.parametrize(("size", "expected"), [((1, 1, 1), (1, 1, 1)), ((9, 33, 50), (2, 2, 2))])
def test_features_of_any_size(size: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        assert I3D().features(torch.empty(2, 3, *size)).shape == (2, 1024, *expected)


@pytest.mark.parametrize("side", range(1, 9))
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 1), (1, 2)])
def test_same_padding_rounds_the_size_up_and_puts_the_odd_one_last(side: int, kernel: int, stride: int) -> None:
    x = torch.ones(1, 1, side, 1, 1)
    padded = same(x, (kernel, 1, 1), (stride, 1, 1))
    assert (padded.shape[2] - kernel) // stride + 1 == -(-side // stride)
    zeros = (padded.flatten() == 0).int()
    after = int(zeros.flip(0).cumprod(0).sum())
    assert 0 <= after - (int(zeros.sum()) - after) <= 1


def test_gradients_reach_the_video() -> None:
    torch.manual_seed(0)
    video = torch.rand(1, 3, 2, 32, 32, requires_grad=True)
    I3D(5).eval().features(video).sum().backward()
    assert video.grad is not None
    assert video.grad.abs().sum() > 0
