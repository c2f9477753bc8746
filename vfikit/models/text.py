"""Texts as the networks read them, by a frozen encoder of ``transformers`` (the extra ``text``)."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode_text(encoder: str, prompts: list[str], like: Tensor) -> Tensor:
    """The last hidden states (N, tokens, width) of CLIP's text model, in the type of ``like`` on its device.

    ``encoder`` is a name or a folder, as transformers takes it, or a pipeline's of diffusers; a prompt is cut or
    filled up to the model's length. Raises ImportError without transformers.
    """
    tokenizer, model = _loaded(encoder)
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return model.to(like.device)(tokens.input_ids.to(like.device)).last_hidden_state.to(like.dtype)


@lru_cache(maxsize=2)  # the original and one tuned to a subject
def _loaded(encoder: str) -> tuple[Any, Any]:
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ImportError("prompts need transformers: pip install 'vfikit[text]'") from error
    pipeline = (Path(encoder) / "text_encoder").is_dir()
    places = [str(Path(encoder) / part) if pipeline else encoder for part in ("tokenizer", "text_encoder")]
    return CLIPTokenizer.from_pretrained(places[0]), CLIPTextModel.from_pretrained(places[1]).eval()
