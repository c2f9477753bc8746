"""The image autoencoder beside diffusers' ``AutoencoderKL``, whose state dict it takes."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from vfikit.layers import ImageAutoencoder


def theirs(widths: tuple[int, ...] = (16, 32, 32), blocks: int = 1, groups: int = 8) -> Any:
    return AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        norm_num_groups=groups,
        latent_channels=4,
    ).eval()


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that diffusers had before 0.18, as in Stable Diffusion's own files."""
    names = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))
    for new, old in names:
        state = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in state.items()}
    return state


@pytest.mark.parametrize("names", ["new", "old", "ours"])
def test_it_is_that_of_diffusers(names: str) -> None:
    torch.manual_seed(0)
    other, ours = theirs(), ImageAutoencoder(16, (1, 2, 2), 1, 4, 8).eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = other.state_dict()
    ours.load_state_dict(older(state) if names == "old" else state)
    if names == "ours":
        state, ours = ours.state_dict(), ImageAutoencoder(16, (1, 2, 2), 1, 4, 8).eval()
        ours.load_state_dict(state)
    x = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        latent = other.encode(x).latent_dist.mean
        torch.testing.assert_close(ours.encode(x).mean, latent)
        torch.testing.assert_close(ours.decode(latent), other.decode(latent).sample)


def test_the_whole_one_finds_every_key() -> None:
    with torch.device("meta"):
        other, ours = theirs((128, 256, 512, 512), 2, 32), ImageAutoencoder()
    ours.load_state_dict(other.state_dict(), assign=True)
    assert sum(p.numel() for p in ours.parameters()) == 83_653_863


def test_a_key_that_is_missing_or_unknown_is_an_error() -> None:
    state = theirs().state_dict()
    ours = ImageAutoencoder(16, (1, 2, 2), 1, 4, 8)
    with pytest.raises(RuntimeError, match=r"Unexpected.*decoder\.up\.2\.block\.0\.surplus"):
        ours.load_state_dict({**state, "decoder.up_blocks.0.resnets.0.surplus": torch.zeros(1)})
    del state["encoder.mid_block.attentions.0.to_q.weight"]
    with pytest.raises(RuntimeError, match=r"Missing.*encoder\.mid\.attn_1\.q\.weight"):
        ours.load_state_dict(state)
