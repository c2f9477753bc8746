"""CLIPSIM (arXiv:2104.14806): how near frames are to the text they were made of, as CLIP sees both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class CLIPSimilarity(nn.Module):
    """The mean cosine of frames and their text over the videos that ``add`` has seen: ``compute()``.

    ``clip`` is a name or a folder of CLIP as transformers takes it; published figures are of ViT-B/32. Raises
    ImportError without transformers.
    """

    def __init__(self, clip: str | Path = "openai/clip-vit-base-patch32") -> None:
        super().__init__()
        try:
            from transformers import (
                AutoTokenizer,
                CLIPImageProcessor,
                CLIPTextModelWithProjection,
                CLIPVisionModelWithProjection,
            )
        except ImportError as error:
            raise ImportError("CLIPSIM needs transformers: pip install 'vfikit[text]'") from error
        self.tokens: Any = AutoTokenizer.from_pretrained(clip)
        self.pixels: Any = CLIPImageProcessor.from_pretrained(clip)
        self.reads: Any = CLIPTextModelWithProjection.from_pretrained(clip)
        self.sees: Any = CLIPVisionModelWithProjection.from_pretrained(clip)
        self.requires_grad_(False).eval()
        self.reset()

    def reset(self) -> None:
        """Forgets all videos."""
        self._seen: list[Tensor] = []

    @torch.no_grad()
    def add(self, videos: Tensor, texts: Sequence[str]) -> None:
        """Takes in videos (N, T, 3, H, W) in [0, 1] and the text of each."""
        if len(texts) != len(videos):
            raise ValueError(f"CLIPSimilarity: {len(texts)} texts, expected {len(videos)}, one a video")
        device = next(self.reads.parameters()).device
        tokens = self.tokens(list(texts), padding=True, truncation=True, return_tensors="pt")
        words = self.reads(tokens.input_ids.to(device), attention_mask=tokens.attention_mask.to(device)).text_embeds
        for video, word in zip(videos, words, strict=True):
            frames = [(255 * frame).round().byte().cpu() for frame in video.clamp(0, 1)]
            pixels = self.pixels(images=frames, return_tensors="pt").pixel_values
            seen = self.sees(pixels.to(device)).image_embeds
            self._seen.append(functional.cosine_similarity(seen, word[None]).mean().cpu())

    def compute(self) -> float:
        """The mean of all videos' means, -1 to 1."""
        return float(torch.stack(self._seen).mean())
