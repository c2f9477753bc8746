"""Attention of videos a few frames or pixels at a time: the same numbers as of all at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import HeadAttention, SpaceTimeAttention, SpaceTimeTransformer, TemporalAttentionLayer, attention
from vfikit.layers.attention import GatedFeedForward
from vfikit.ops import fold


def text() -> Tensor:
    return torch.randn(2, 3, 12)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[], tuple[object, ...]]]] = {
    "heads": (lambda: HeadAttention(16, 8, 4), (3, 16, 4, 4), tuple),
    "space and time": (lambda: SpaceTimeAttention(16, 2, 5, groups=4), (2, 16, 5, 4, 4), tuple),
    "transformer": (lambda: SpaceTimeTransformer(16, 0, 2, 5, groups=4), (2, 16, 5, 4, 4), tuple),
    "transformer with text": (
        lambda: SpaceTimeTransformer(16, 12, 2, 5, groups=4),
        (2, 16, 5, 4, 4),
        lambda: (text(),),
    ),
    "frames": (lambda: TemporalAttentionLayer(16, 2, alpha=0.5), (10, 16, 4, 4), lambda: (5,)),
    "feed-forward": (lambda: GatedFeedForward(16), (2, 9, 16), tuple),
}


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_in_turn(name: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape, more = LAYERS[name]
    torch.manual_seed(0)
    layer, x, others = make().double(), torch.randn(shape, dtype=torch.float64), more()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    others = tuple(other.double() if isinstance(other, Tensor) else other for other in others)
    if last and x.ndim > 3:
        x = x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    whole = layer(x, *others)
    for module in (fold, attention):
        monkeypatch.setattr(module, "AT_ONCE", 64)
    torch.testing.assert_close(layer(x, *others), whole, rtol=1e-10, atol=1e-10)
