"""Attention beside torch's own, at shapes that the networks have."""

from functools import partial

import pytest
import torch

from vfikit.ops import attention

from .paired import Compare
from .plain.attention import fused, spelt_out

# batch, heads, queries, keys, width of a head, aim beside torch's fused attention
SHAPES = {
    "LVDM's with text, within frames": (16, 8, 1024, 1024, 40, 1.2),
    "LVDM's with text, to the text": (16, 8, 1024, 77, 40, 1.2),
    "LVDM's, within frames": (16, 4, 1024, 1024, 64, None),
    "LVDM's, second level": (16, 4, 256, 256, 128, None),
}


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_attention(compare: Compare, name: str) -> None:
    batch, heads, queries, keys, width, target = SHAPES[name]
    torch.manual_seed(0)
    tokens = (torch.randn(batch, count, heads, width) for count in (queries, keys, keys))
    q, k, v = (t.transpose(1, 2) for t in tokens)
    torch.testing.assert_close(attention(q, k, v), fused(q, k, v), rtol=1e-4, atol=1e-5)
    compare(
        f"attention, {name}: {batch} x {heads} heads of {width}, {queries} to {keys}",
        partial(attention, q, k, v),
        {"torch's fused": partial(fused, q, k, v), "spelt out": partial(spelt_out, q, k, v)},
        {"torch's fused": target} if target else None,
        rounds=5,
    )
