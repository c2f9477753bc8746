"""Image networks inflated without memory for their weights, which come later: numbers are the same."""

import pytest
import torch

from vfikit.layers import TemporalAttentionLayer, inflate
from vfikit.layers.inflate import published_name

from .test_inflate import call, toy


@pytest.mark.parametrize("assign", [True, False])
def test_on_meta_first_and_then_loaded_it_is_the_same(assign: bool) -> None:
    net = inflate(toy(), alpha=0.5, attention="both")
    published = {published_name(k): v for k, v in net.state_dict().items() if not k.endswith(".channel")}
    with torch.device("meta"):
        other = inflate(toy(), alpha=0.5, attention="both")
    if not assign:
        other.to_empty(device="cpu")
        for buffer in other.buffers():
            buffer.fill_(7)  # as memory may be
    other.load_state_dict(published, assign=assign)
    with torch.no_grad():
        torch.testing.assert_close(call(other), call(net))


def test_temporal_layers_on_meta_begin_anew_beside_an_image_checkpoint() -> None:
    image = toy()
    with torch.device("meta"):
        net = inflate(toy(), alpha=1.0, attention="both")
    layers = [module for module in net.modules() if isinstance(module, TemporalAttentionLayer)]
    assert layers
    for layer in layers:
        layer.to_empty(device="cpu")
        layer.channel.fill_(7)
        layer.reset_parameters()
        assert layer.channel.tolist() == list(range(layer.code_width))
        assert layer.alpha == 1
    net.load_state_dict(image.state_dict(), strict=False, assign=True)
    assert not any(buffer.is_meta for buffer in net.buffers())
