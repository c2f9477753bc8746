"""Video-LDM's temporal layers at the published widths beside their plain formulation; memory by frames."""

import pytest
import torch

from vfikit.layers import TemporalAttentionLayer

from .paired import Compare
from .plain.temporal import temporal_attention

FRAMES, TOKENS, TEXT = 8, 77, 768


@pytest.mark.parametrize(("channels", "side"), [(320, 32), (640, 16), (1280, 8)])
@pytest.mark.parametrize("kind", ["text", "frames"])
def test_temporal_attention(compare: Compare, kind: str, channels: int, side: int) -> None:
    torch.manual_seed(0)
    layer = TemporalAttentionLayer(channels, 8, TEXT if kind == "text" else None, alpha=0.5)
    context = torch.randn(1, TOKENS, TEXT) if kind == "text" else None
    x = torch.randn(FRAMES, channels, side, side)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, FRAMES, context), temporal_attention(layer, x, FRAMES, context), atol=1e-4, rtol=1e-4
        )
        compare(
            f"temporal attention to {kind}, {channels} channels, {FRAMES} frames of {side}x{side}",
            lambda: layer(x, FRAMES, context),
            {"keys and values a pixel": lambda: temporal_attention(layer, x, FRAMES, context)},
            targets={"keys and values a pixel": 2.0} if kind == "text" else {},
        )
