"""Video-LDM's temporal attention as its formulas read: queries of every pixel, its own keys and values beside them."""

from einops import rearrange
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from vfikit.layers import TemporalAttentionLayer, positional_encoding


def temporal_attention(layer: TemporalAttentionLayer, x: Tensor, frames: int, context: Tensor | None = None) -> Tensor:
    """What ``layer`` gives, of (B * T, C, H, W) and a text (B, S, D): keys and values of a text repeated per pixel."""
    height = x.shape[2]
    q = rearrange(x, "(b t) c h w -> b (h w) t c", t=frames)
    q = q + positional_encoding(frames, x.shape[1], layer.encoding, x.device)
    source = q if context is None else context[:, None].expand(-1, q.shape[1], -1, -1)
    q, k, v = (
        rearrange(linear(rows, project.weight), "b p t (n d) -> b p n t d", n=layer.heads)
        for project, rows in ((layer.q_proj, q), (layer.k_proj, source), (layer.v_proj, source))
    )
    h = rearrange(scaled_dot_product_attention(q, k, v), "b p n t d -> b p t (n d)")
    h = linear(h, layer.o_proj.weight)
    h = rearrange(h, "b (h w) t c -> (b t) c h w", h=height)
    alpha = layer.alpha.clamp(0, 1)
    return alpha * x + (1 - alpha) * h
