"""Text encoders of transformers, small enough to be made for a test."""

import json
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENDS = ("<|startoftext|>", "<|endoftext|>")
VOCABULARY = (*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "ca", "cat</w>", *ENDS)
TOKENS = 6


def save_text_encoder(folder: Path, width: int, seed: int = 0) -> None:
    """A tokenizer of letters and of the word "cat", and CLIP's text model of one layer, as diffusers keeps them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir(exist_ok=True)
    words, merges = folder / "words.json", folder / "merges.txt"
    words.write_text(json.dumps({word: index for index, word in enumerate(VOCABULARY)}))
    merges.write_text("#version: 0.2\nc a\nca t</w>\n")
    CLIPTokenizer(str(words), str(merges), model_max_length=TOKENS).save_pretrained(folder / "tokenizer")
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=VOCABULARY.index(ENDS[0]),
        eos_token_id=VOCABULARY.index(ENDS[1]),
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
