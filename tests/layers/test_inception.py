"""Inception v3: the published sizes, and FID's pooling."""

import torch

from vfikit.layers.inception import InceptionE, InceptionV3, average, largest


def test_published_size() -> None:
    """Parameters and maps of Inception v3 without its classifiers."""
    with torch.device("meta"):
        net, x = InceptionV3(), torch.empty(1, 3, 299, 299)
        shapes = {}
        for name, block in net.named_children():
            block.register_forward_hook(lambda _, __, y, name=name: shapes.update({name: tuple(y.shape[1:])}))
        assert net(x).shape == (1, 2048)
    assert sum(p.numel() for p in net.parameters()) == 21_785_568
    assert shapes["Conv2d_4a_3x3"] == (192, 71, 71)
    assert [shapes[f"Mixed_{block}"] for block in ("5b", "5d", "6e", "7a", "7c")] == [
        *((256, 35, 35), (288, 35, 35), (768, 17, 17), (1280, 8, 8), (2048, 8, 8))
    ]


def test_pooling() -> None:
    """Averages leave the padding out; the last block takes the largest value."""
    x = torch.rand(1, 2, 3, 3)
    assert torch.allclose(average(x)[..., 0, 0], x[..., :2, :2].mean((2, 3)))
    assert torch.equal(largest(x)[..., 0, 0], x[..., :2, :2].amax((2, 3)))
    assert InceptionE(4).pool is average
    assert InceptionE(4, last=True).pool is largest
