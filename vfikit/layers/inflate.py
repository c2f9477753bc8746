"""Any image diffusion U-Net of diffusers, made one of videos (arXiv:2304.08818).

Every transformer of the network is wrapped: convolution over frames, the transformer as it was, attention over frames.
No code of diffusers is copied: the network calls what it always called.
"""

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .temporal import Conv3DLayer, Encoding, TemporalAttentionLayer

Attention = Literal["text", "frames", "both"]
ATTENTIONS = ("text", "frames", "both")
PARTS = ("conv3d", "condition", "spatial", "over_frames", "temporal")  # of a VideoTransformer


def inflate(
    unet: Any,
    *,
    attention: Attention = "text",
    heads: int = 8,
    alpha: float = 1.0,
    encoding: Encoding = "published",
    middle: bool = False,
    condition_channels: int = 0,
    freeze: bool = True,
) -> Any:
    """Puts temporal layers into ``unet``, diffusers' ``UNet2DConditionModel``, and returns it.

    A video of T frames is T rows: ``unet(x, t, text, cross_attention_kwargs={"num_frames": T})``. Without
    ``num_frames`` every row is an image, and the network is the image network. More keys: see ``VideoTransformer``.

    ``attention`` is to the "text" (as published: then convolutions alone mix frames), to the "frames", or "both" (the
    paper's), with ``heads``. ``alpha`` is how much of the image network each layer keeps at the beginning; 1 keeps all,
    below 1 all layers are trained from the first step. ``middle`` puts layers into the middle block too.
    ``condition_channels`` is the number of planes that the temporal layers are conditioned on. ``freeze`` leaves
    only the temporal layers to be trained. The state dict of an image network loads with only temporal keys missing
    (``strict=False``), one of the published code loads whole. Networks with other transformers than the usual raise
    ValueError.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"inflate: attention is {attention!r}, expected one of {', '.join(ATTENTIONS)}")
    downs, ups = list(unet.down_blocks), list(unet.up_blocks)
    levels = [*range(len(downs)), len(downs) - 1, *reversed(range(len(ups)))]
    blocks = [*downs, unet.mid_block, *ups]
    found = [_transformers(block) for block in blocks]  # what is refused is, before anything is changed
    if not any(found):
        raise ValueError(f"inflate: {type(unet).__name__} has no transformers to put temporal layers around")
    if freeze:
        unet.requires_grad_(False)
    for level, block in zip(levels, blocks, strict=True):
        temporal = middle or block is not unet.mid_block
        inflate_block(block, level, temporal, attention, heads, alpha, encoding, condition_channels)
    unet.register_load_state_dict_pre_hook(_rename)
    return unet


def inflate_block(
    block: Any,
    level: int = 0,
    temporal: bool = True,
    attention: Attention = "text",
    heads: int = 8,
    alpha: float = 1.0,
    encoding: Encoding = "published",
    condition_channels: int = 0,
) -> None:
    """Wraps the transformers of one block, whose maps are 2^level times smaller than the network's input."""
    for index, spatial in _transformers(block):
        wrapped = VideoTransformer(spatial)
        if temporal:
            channels, groups = spatial.norm.num_channels, spatial.norm.num_groups
            text = _text_width(spatial) if attention != "frames" else None
            wrapped.conv3d = Conv3DLayer(channels, alpha, groups)
            if attention != "text" or text is None:
                wrapped.over_frames = TemporalAttentionLayer(channels, heads, None, encoding, alpha)
            if text is not None:
                wrapped.temporal = TemporalAttentionLayer(channels, heads, text, encoding, alpha)
            if condition_channels:
                wrapped.condition = ConditionEncoder(condition_channels, channels, level)
        wrapped.to(spatial.proj_out.weight.device, spatial.proj_out.weight.dtype)
        block.attentions[index] = wrapped


def _transformers(block: Any) -> list[tuple[int, Any]]:
    """The transformers of a block, each with its place; ValueError for attention of other kinds."""
    found = [(i, each) for i, each in enumerate(getattr(block, "attentions", None) or ()) if each is not None]
    for _, each in found:
        if not hasattr(each, "transformer_blocks") or not hasattr(each, "proj_out"):
            raise ValueError(f"inflate: got {type(each).__name__}, expected a Transformer2DModel")
    return found


def _text_width(spatial: Any) -> int | None:
    """The width of the text that a transformer attends to, None if it attends to none."""
    attention = spatial.transformer_blocks[0].attn2
    return None if attention is None else attention.to_k.in_features


class VideoTransformer(nn.Module):
    """A transformer of an image network between layers that mix frames; it stands where the transformer stood.

    What ``cross_attention_kwargs`` may hold for it: ``num_frames``; ``temporal_context``, the text (B or B * T, S, D)
    for the temporal layers where it is not the transformer's (a text encoder tuned to a subject for one, the original
    for the other); ``temporal_mask``, bool (T, T), which frame may see which; ``temporal_condition`` (B * T, planes, H,
    W) at the size of the network's input. Gradient checkpointing, as diffusers switches it on, covers what it adds.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Any = None

    def __init__(self, spatial: nn.Module) -> None:
        super().__init__()
        self.conv3d: nn.Module | None = None
        self.condition: nn.Module | None = None
        self.spatial = spatial
        self.over_frames: nn.Module | None = None
        self.temporal: nn.Module | None = None

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """What diffusers' blocks pass to a transformer and expect of it."""
        others = dict(cross_attention_kwargs or {})
        frames = others.pop("num_frames", None)
        text = others.pop("temporal_context", None)
        mask, condition = others.pop("temporal_mask", None), others.pop("temporal_condition", None)
        text = encoder_hidden_states if text is None else text

        run = self._gradient_checkpointing_func if self.gradient_checkpointing and torch.is_grad_enabled() else _run

        h = hidden_states
        if frames is not None and self.conv3d is not None:
            h = run(self.conv3d, h, frames, None if self.condition is None else run(self.condition, condition))
        h = self.spatial(
            h,
            encoder_hidden_states=encoder_hidden_states,
            cross_attention_kwargs=others or None,
            attention_mask=attention_mask,
            encoder_attention_mask=encoder_attention_mask,
            return_dict=False,
        )[0]
        if frames is not None and self.over_frames is not None:
            h = run(self.over_frames, h, frames, None, mask)
        if frames is not None and self.temporal is not None:
            h = run(self.temporal, h, frames, text, _of_videos(encoder_attention_mask, h, frames))
        return (h,)


def _run(module: nn.Module, *arguments: Any) -> Any:
    return module(*arguments)


def _of_videos(mask: Tensor | None, h: Tensor, frames: int) -> Tensor | None:
    """Which tokens of the text count, (B or B * T, 1, S), as (B, 1, S)."""
    return None if mask is None else mask[:: max(1, len(mask) * frames // len(h))]


class ConditionEncoder(nn.Module):
    """Planes (N, planes, H, W) brought to the size of a map 2^levels times smaller, and to its channels.

    The last layer is zero at the beginning, so that what is conditioned begins as it was without.
    """

    def __init__(self, planes: int, channels: int, levels: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(planes, width, 3, padding=1), nn.SiLU()]
        for _ in range(levels):
            layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.proj_out = nn.Conv2d(width, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The last layer is zero."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(self, planes: Tensor | None) -> Tensor:
        if planes is None:
            raise ValueError("ConditionEncoder: got no temporal_condition, expected one beside num_frames")
        return self.proj_out(self.layers(planes))


def temporal_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """The parameters that ``inflate`` added."""
    return [p for name, p in unet.named_parameters() if re.search(r"\.attentions\.\d+\.(?!spatial\.)", name)]


def published_name(name: str) -> str:
    """The name in the published code's state dict of what an inflated network calls ``name``."""
    name = re.sub(r"\.attentions\.(\d+)\.conv3d\.", r".conv3ds.\1.", name)
    name = re.sub(r"\.attentions\.(\d+)\.temporal\.", r".tempo_attns.\1.", name)
    return name.replace(".spatial.", ".")


def inflated_name(name: str) -> str:
    """What an inflated network calls ``name`` of an image network's state dict, or of the published code's."""
    name = re.sub(r"\.conv3ds\.(\d+)\.", r".attentions.\1.conv3d.", name)
    name = re.sub(r"\.tempo_attns\.(\d+)\.", r".attentions.\1.temporal.", name)
    return re.sub(rf"\.attentions\.(\d+)\.(?!({'|'.join(PARTS)})\.)", r".attentions.\1.spatial.", name)


def _rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        own = prefix + inflated_name(name.removeprefix(prefix))
        if own != name:
            state[own] = state.pop(name)
