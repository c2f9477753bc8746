"""Layers that mix the frames of a video inside an image network (arXiv:2304.08818).

Frames are folded into the batch, the frame fastest: row ``b * T + t`` of ``(B * T, C, H, W)``. The number of frames is
an argument of each call. Every layer ends in ``mix``, a learned weight between what came in and what the layer made.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from ..ops.attention import attend as attend_to_all
from ..ops.fold import in_turn
from ..ops.linear import Linear

Encoding = Literal["published", "standard", "none"]
ENCODINGS = ("published", "standard", "none")
MOST_ROWS = 2**15  # CUDA's attention kernels take fewer than 65,536 rows in a batch


def positional_encoding(
    length: int, dim: int, encoding: Encoding = "published", device: torch.device | None = None
) -> Tensor:
    """(length, dim), float32: sin and cos of each frame's number, in turn, at ``dim / 2`` frequencies.

    "standard" is arXiv:1706.03762's, periods from 2 pi to 2 pi * 10,000. "published" is what weights of the published
    code were trained with: the exponent is i / dim where 2 i / dim was meant, and no period is longer than 2 pi * 100.
    "none" is zeros. An odd ``dim`` raises ValueError.
    """
    if dim % 2 or encoding not in ENCODINGS:
        raise ValueError(f"positional_encoding: {encoding!r} of width {dim}, expected {ENCODINGS} of an even width")
    return _encoding(length, torch.arange(dim, device=device), dim, encoding)


def _encoding(length: int, channel: Tensor, dim: int, encoding: Encoding) -> Tensor:
    """The columns ``channel`` (C,), int64, of the table of width ``dim``."""
    if encoding == "none":
        return torch.zeros(length, len(channel), device=channel.device)
    exponents = torch.div(channel, 2, rounding_mode="floor").float() / dim
    periods = (exponents * (math.log(10000) * (2 if encoding == "standard" else 1))).exp()
    angles = torch.arange(length, device=channel.device, dtype=torch.float32)[:, None] / periods
    return torch.where(channel % 2 == 0, angles.sin(), angles.cos())


def causal_mask(num_frames: int, diagonal: bool = True, device: torch.device | None = None) -> Tensor:
    """(T, T) bool, True where frame i may see frame j: none later than itself, itself only with ``diagonal``."""
    return torch.ones(num_frames, num_frames, dtype=torch.bool, device=device).tril(0 if diagonal else -1)


def window_mask(num_frames: int, distance: int, device: torch.device | None = None) -> Tensor:
    """(T, T) bool, True where frames are at most ``distance`` apart: for more frames than were trained on."""
    frames = torch.arange(num_frames, device=device)
    return (frames[:, None] - frames).abs() <= distance


def mix(alpha: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """``alpha * x + (1 - alpha) * h`` with alpha held to [0, 1]; exactly ``x`` at 1.

    The gradient of alpha passes where it was held: the published code writes the held value into the parameter at every
    call, so that there the gradient is that of the value used. Here nothing is written; ``project`` does it by choice.
    """
    held = alpha.clamp(0, 1).detach() + (alpha - alpha.detach())
    return held * x + (1 - held) * h


@torch.no_grad()
def project(module: nn.Module) -> None:
    """Holds every ``alpha`` of ``module`` to [0, 1]: after an optimizer's step, so that none strays."""
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] == "alpha":
            parameter.clamp_(0, 1)


class Conv3DLayer(nn.Module):
    """Two rounds of norm, SiLU and a convolution over three frames: (B * T, C, H, W) -> the same.

    ``alpha`` is what it begins with. At 1, the published value, a network is the image network that it was, and in the
    first step only alpha itself gets a gradient; below 1 the layer is trained from the first step. ``groups`` are those
    of the norms, whose statistics cover a video's frames together.
    """

    def __init__(self, channels: int, alpha: float = 1.0, groups: int = 32) -> None:
        super().__init__()
        self.block1 = _frame_convolution(channels, groups)
        self.block2 = _frame_convolution(channels, groups)
        self.first_alpha = alpha
        self.alpha = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """``alpha`` as it was at the beginning."""
        nn.init.constant_(self.alpha, self.first_alpha)

    def forward(self, x: Tensor, num_frames: int, condition: Tensor | None = None) -> Tensor:
        """``condition``, shaped as ``x``, is added to what is convolved."""
        _check_frames(self, x, num_frames)
        h = x if condition is None else x + condition
        h = rearrange(h, "(b t) c h w -> b c t h w", t=num_frames)
        h = self.block2(self.block1(h))
        return mix(self.alpha, x, rearrange(h, "b c t h w -> (b t) c h w"))


def _frame_convolution(channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), FrameConvolution(channels))


class FrameConvolution(nn.Conv3d):
    """A convolution over three frames of every pixel, (B, C, T, H, W) -> the same.

    Of two frames on a CPU in half precision, torch 2.13 leaves the gradient of the weight unwritten: there it is
    computed in float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type != "cpu" or input.shape[2] != 2:
            return super()._conv_forward(input, weight, bias)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        if dtype.itemsize > 2:
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            made = super()._conv_forward(input.float(), weight.float(), None if bias is None else bias.float())
        return made.to(dtype)


class TemporalAttentionLayer(nn.Module):
    """Attention of every pixel to the same pixel in all frames, or to a text: (B * T, C, H, W) -> the same.

    With ``context_dim`` it attends to a text of that width, without to the frames. ``alpha`` as in ``Conv3DLayer``.
    Heads are ``channels // heads`` wide. The encoding is added to what queries are made of, and to keys and values
    where they come from the frames too: of each channel the column that ``channel`` says, so that a net that has lost
    some keeps those of the others. The published weights' ``pos_enc.dummy`` is accepted and has no use.
    """

    channel: Tensor

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        context_dim: int | None = None,
        encoding: Encoding = "published",
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        if channels % 2 or channels < heads or encoding not in ENCODINGS:
            expected = f"an even number, at least one a head, and one of {', '.join(ENCODINGS)}"
            raise ValueError(
                f"TemporalAttentionLayer: {channels} channels, {heads} heads, {encoding!r}, expected {expected}"
            )
        width = channels // heads * heads
        source = channels if context_dim is None else context_dim
        self.heads, self.cross, self.encoding = heads, context_dim is not None, encoding
        self.q_proj = Linear(channels, width, bias=False)
        self.k_proj = Linear(source, width, bias=False)
        self.v_proj = Linear(source, width, bias=False)
        self.o_proj = Linear(width, channels, bias=False)
        self.code_width, self.first_alpha = channels, alpha
        self.alpha = nn.Parameter(torch.empty(1))
        self.register_buffer("channel", torch.arange(channels))
        self.register_load_state_dict_pre_hook(_complete)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """``alpha`` as it was at the beginning, and every channel, unless the layer has lost some."""
        nn.init.constant_(self.alpha, self.first_alpha)
        if len(self.channel) == self.code_width:
            self.channel.copy_(torch.arange(self.code_width))

    def forward(self, x: Tensor, num_frames: int, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``context`` (B or B * T, S, context_dim), of which a video's first row counts; there is one with a text only.

        ``mask``, bool (True: attend) or added to the logits, is broadcast to (B, T, S) or, of frames, (T, T). A query
        that may attend to nothing gets zeros.
        """
        _check_frames(self, x, num_frames)
        if self.cross != (context is not None):
            raise ValueError(
                f"TemporalAttentionLayer: got {'a' if context is not None else 'no'} context, expected "
                f"{'one: it attends to a text' if self.cross else 'none: it attends to frames'}"
            )

        def mixed(pixels: Tensor) -> Tensor:
            tokens = rearrange(pixels, "(b t) c p -> b t p c", t=num_frames).contiguous()
            tokens = tokens + self.code(tokens)
            h = self.over_frames(tokens, mask) if context is None else self.over_text(tokens, context, mask)
            return mix(self.alpha, pixels, rearrange(self.o_proj(h), "b t p c -> (b t) c p"))

        pixels = x.flatten(2)
        return (in_turn(mixed, pixels, axis=2) if context is None else mixed(pixels)).view(x.shape)

    def over_frames(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, T, pixels, C) attend to their own pixel in every frame."""
        q, k, v = (
            rearrange(project(tokens), "b t p (n d) -> (b p) n t d", n=self.heads).split(MOST_ROWS)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        h = torch.cat([attend(*rows, mask) for rows in zip(q, k, v)])
        return rearrange(h, "(b p) n t d -> b t p (n d)", b=tokens.shape[0])

    def over_text(self, tokens: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, T, pixels, C) attend to their video's text; all pixels share keys and values, without copies."""
        videos, frames, pixels, _ = tokens.shape
        if len(context) not in (videos, videos * frames):
            raise ValueError(
                f"TemporalAttentionLayer: {len(context)} texts, expected {videos} (one a video) or {videos * frames}"
            )
        context = context[:: len(context) // videos]
        q = rearrange(self.q_proj(tokens), "b t p (n d) -> b n (t p) d", n=self.heads)
        k, v = (
            rearrange(project(context), "b s (n d) -> b n s d", n=self.heads) for project in (self.k_proj, self.v_proj)
        )
        if mask is not None:
            mask = mask.expand(*mask.shape[:-2], frames, mask.shape[-1]).repeat_interleave(pixels, dim=-2)
            mask = mask[:, None] if mask.ndim == 3 else mask
        return rearrange(attend(q, k, v, mask), "b n (t p) d -> b t p (n d)", p=pixels)

    def code(self, tokens: Tensor) -> Tensor:
        """The encoding of each frame, (T, 1, C), in the tokens' type."""
        table = _encoding(tokens.shape[1], self.channel, self.code_width, self.encoding)
        return table.to(tokens.dtype)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; a query without any key gets zeros."""
    if mask is None:
        return attend_to_all(q, k, v)
    h = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return h if mask.dtype != torch.bool else h.where(mask.any(-1, keepdim=True), 0)


def _check_frames(layer: nn.Module, x: Tensor, num_frames: int) -> None:
    if num_frames < 1 or x.shape[0] % num_frames:
        raise ValueError(
            f"{type(layer).__name__}: {x.shape[0]} rows of {num_frames} frames, expected whole videos, "
            "rows = videos x frames"
        )


def _complete(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Published and image checkpoints know nothing of ``channel``, which in them is every one.

    The module's own is not asked: it may be on ``meta``, or memory that nothing was written to yet.
    """
    state.pop(f"{prefix}pos_enc.dummy", None)
    if f"{prefix}channel" not in state:
        device = next((value.device for value in state.values() if isinstance(value, Tensor)), None)
        state[f"{prefix}channel"] = torch.arange(module.code_width, device=device)
