"""The kernel estimator: sizes, what each activation promises, additive skips."""

import pytest
import torch

from vfikit.layers import KernelEstimator
from vfikit.layers.kernel_estimator import TapSoftmax

HEADS = {"weight": ((5, 4), 9, "softmax"), "offset": ((3,), 9, "none"), "mask": ((4, 4), 1, "sigmoid")}


def estimator(**arguments) -> KernelEstimator:
    torch.manual_seed(2)
    parts = {"in_channels": 6, "encoder": [(4, 4), (5, 6), (7,)], "decoder": [(8, 6), (5,)], "heads": HEADS}
    return KernelEstimator(**parts | arguments).double()


@pytest.mark.parametrize("size", [(8, 8), (16, 40)])
def test_maps(size: tuple[int, int]) -> None:
    maps = estimator()(torch.rand(2, 6, *size, dtype=torch.float64))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        name: (2, outputs, *size) for name, (_, outputs, _) in HEADS.items()
    }
    torch.testing.assert_close(maps["weight"].sum(1), torch.ones(2, *size, dtype=torch.float64))
    assert maps["weight"].min() > 0
    assert 0 < maps["mask"].min() <= maps["mask"].max() < 1
    assert maps["offset"].min() < 0 or maps["offset"].max() > 1


def test_maps_leave_in_one_layout() -> None:
    """As the convolutions write them: the softmax does not copy to planes what the sampling reads as it is."""
    net = estimator().to(memory_format=torch.channels_last)
    maps = net(torch.rand(2, 6, 8, 8, dtype=torch.float64))
    for name in ("weight", "offset"):
        assert maps[name].is_contiguous(memory_format=torch.channels_last)
    logits = torch.rand(2, 9, 5, 4, dtype=torch.float64)
    for given in (logits, logits.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(TapSoftmax()(given), logits.softmax(1))


def test_encode_and_predict_are_forward() -> None:
    net, pair = estimator(), torch.rand(1, 6, 8, 16, dtype=torch.float64)
    features = net.encode(pair)
    assert [tuple(x.shape[1:]) for x in features] == [(4, 8, 16), (6, 4, 8), (7, 2, 4)]
    for name, value in net.predict(features).items():
        assert torch.equal(value, net(pair)[name])


def test_skips_are_added() -> None:
    """With the decoder silenced, the heads see the second encoder stage alone."""
    net, pair = estimator(), torch.rand(1, 6, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for up in net.upsample:
            up[1].weight.zero_()
            up[1].bias.zero_()
    skip = net.encode(pair)[1]
    torch.testing.assert_close(net(pair)["mask"], net.heads["mask"](skip))


def test_every_parameter_learns() -> None:
    net = estimator()
    maps = net(torch.rand(1, 6, 16, 16, dtype=torch.float64))
    sum((value * torch.rand_like(value)).sum() for value in maps.values()).backward()
    assert not [key for key, parameter in net.named_parameters() if not parameter.grad.any()]


def test_stages_must_fit() -> None:
    with pytest.raises(ValueError, match="3 decoder stages, expected 2"):
        estimator(decoder=[(8,), (5,), (4,)])
