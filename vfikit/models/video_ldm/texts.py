"""What Video-LDM's networks read: of a prompt, of embeddings, of labels, or of nothing."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..text import encode_text

if TYPE_CHECKING:
    from .net import VideoLDMNet


class Texts(NamedTuple):
    """Texts (B, tokens, width) for the layers in space and, where it is another, for those in time.

    ``negative`` and ``temporal_negative`` are what guidance leads away from.
    """

    text: Tensor
    negative: Tensor
    temporal: Tensor | None = None
    temporal_negative: Tensor | None = None

    def original(self) -> "Texts":
        """For networks that no subject was shown to: what those in time read, for all layers."""
        if self.temporal is None:
            return self
        return Texts(self.temporal, self.negative if self.temporal_negative is None else self.temporal_negative)


def of_labels(net: "VideoLDMNet", videos: int, labels: list[int]) -> Texts:
    """The embeddings of ``labels``, the same for all videos; guidance leads away from "not given"."""
    if not net.labels or len(labels) != len(net.labels):
        raise ValueError(f"generate: {len(labels)} labels, expected {len(net.labels)}, as the model has")
    nothing = net.no_text(videos)
    return Texts(net.no_text(videos, torch.tensor([labels] * videos, device=nothing.device)), nothing)


def of_embeds(
    net: "VideoLDMNet",
    guidance: float,
    embeds: Tensor | None,
    negative: Tensor | None,
    temporal: Tensor | None,
    temporal_negative: Tensor | None,
) -> Texts | None:
    """Embeddings as they are given; where ``guidance`` has none to lead away from, those of no words."""
    if embeds is None:
        return None
    if negative is None:
        encoder = net.config.spatial_text_encoder or net.config.text_encoder
        negative = torch.zeros_like(embeds) if guidance == 1 else no_words(encoder, embeds)
    return Texts(embeds, negative, temporal, temporal_negative)


def no_words(encoder: str, like: Tensor) -> Tensor:
    """What captions that are left out in training become: "" as the encoder reads it; zeros ``like`` without one."""
    return encode_text(encoder, [""], like) if encoder else torch.zeros_like(like)


def of_prompt(net: "VideoLDMNet", prompt: str | list[str], negative_prompt: str) -> Texts:
    """Prompts as the config's text encoders read them."""
    encoder, spatial = net.config.text_encoder, net.config.spatial_text_encoder
    if not encoder:
        raise ValueError("generate: got a prompt, but this model was made without a text encoder")
    like, prompts = net.no_text(1), [prompt] if isinstance(prompt, str) else prompt
    original = tuple(encode_text(encoder, each, like) for each in (prompts, [negative_prompt]))
    if not spatial:
        return Texts(*original)
    return Texts(*(encode_text(spatial, each, like) for each in (prompts, [negative_prompt])), *original)


def spread(texts: Texts, videos: int) -> Texts:
    """One text a video."""
    if len(texts.text) not in (1, videos):
        raise ValueError(f"generate: {len(texts.text)} prompts, expected one or {videos}, one a video")
    return Texts(*(None if text is None else text.expand(videos, -1, -1) for text in texts))  # type: ignore[arg-type]
