"""CLIPSIM over a stand-in for transformers; the package itself is no part of the tests."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vfikit.metrics import CLIPSimilarity

EMBEDDINGS = torch.tensor([[2.0, 0.0], [0.0, 3.0]])  # of texts


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(EMBEDDINGS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(text_embeds=self.table[input_ids[:, 0]] * attention_mask)


class Sees(nn.Module):
    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=pixels.mean((2, 3))[:, :2])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def tokens(texts: list[str], **options: Any) -> SimpleNamespace:
        ids = torch.tensor([[int(text)] for text in texts])
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def pixels(images: list[Tensor], return_tensors: str) -> SimpleNamespace:
        assert all(image.dtype == torch.uint8 for image in images)
        return SimpleNamespace(pixel_values=torch.stack(images).float() / 255)

    module = ModuleType("transformers")
    made = (tokens, pixels, Reads(), Sees())
    names = ("AutoTokenizer", "CLIPImageProcessor", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection")
    for name, value in zip(names, made, strict=True):
        setattr(module, name, SimpleNamespace(from_pretrained=lambda clip, value=value: value))
    monkeypatch.setitem(sys.modules, "transformers", module)


@pytest.mark.usefixtures("stand_in")
def test_mean_cosine_of_frames_and_their_text() -> None:
    metric, videos = CLIPSimilarity(), torch.zeros(2, 2, 3, 4, 4)
    videos[0, :, 0] = 1  # both frames as the first text
    videos[1, 0, 0], videos[1, 1, 1] = 1, 1  # of the second, one is
    metric.add(videos, ["0", "1"])
    assert metric.compute() == pytest.approx((1 + 0.5) / 2)
    metric.reset()
    metric.add(videos[:1], ["1"])
    assert metric.compute() == pytest.approx(0)
    with pytest.raises(ValueError, match="1 texts, expected 2, one a video"):
        metric.add(videos, ["0"])


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"CLIPSIM needs transformers: pip install 'vfikit\[text\]'"):
        CLIPSimilarity()
