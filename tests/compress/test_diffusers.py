"""diffusers' networks, which no rule knows by name: residual, attention and sampling blocks cut and in step."""

import json

import diffusers
import pytest
import torch
from torch import Tensor, nn

from vfikit.compress import check_groups, couple, resize, slice_channels, widths

SIZES = {"layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 4}


class Sample(nn.Module):
    """A diffusers model that returns a tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Tensor) -> Tensor:
        return self.net(*args).sample


def unet() -> nn.Module:
    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    return diffusers.UNet2DModel(**SIZES, down_block_types=down, up_block_types=up, attention_head_dim=8)


def text_unet() -> nn.Module:
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    heads = {"cross_attention_dim": 12, "attention_head_dim": 4}
    return diffusers.UNet2DConditionModel(**SIZES, **heads, down_block_types=down, up_block_types=up)


def autoencoder() -> nn.Module:
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    return diffusers.AutoencoderKL(**SIZES, down_block_types=down, up_block_types=up)


CASES = {  # model, inputs' sizes, a module with heads and how many
    "unet": (unet, [(1, 3, 16, 16), ()], "down_blocks.1.attentions.0", 4),
    "text unet": (text_unet, [(1, 4, 8, 8), (), (1, 5, 12)], "mid_block.attentions.0.transformer_blocks.0.attn2", 4),
    "autoencoder": (autoencoder, [(1, 3, 16, 16)], "encoder.mid_block.attentions.0", 1),
}


@pytest.mark.parametrize("kind", CASES)
def test_groups_pass_and_the_small_net_runs(kind):
    torch.manual_seed(0)
    build, shapes, attention, heads = CASES[kind]
    net = Sample(build()).eval()
    inputs = tuple(torch.rand(shape) if shape else torch.tensor([3]) for shape in shapes)
    coupling = couple(net, inputs)
    assert check_groups(net, coupling.groups, [inputs]) < 1e-12
    small = slice_channels(net, {group: range((group.units + 1) // 2) for group in coupling.groups})
    assert sum(p.numel() for p in small.parameters()) < 0.4 * sum(p.numel() for p in net.parameters())
    assert net.get_submodule(f"net.{attention}").heads == heads
    assert small.get_submodule(f"net.{attention}").heads == (heads + 1) // 2
    with torch.no_grad():
        output = small(*inputs)
        assert output.shape == net(*inputs).shape
        again = resize(Sample(build()), json.loads(json.dumps(widths(small)))).eval()
        again.load_state_dict(small.state_dict())
        assert torch.equal(again(*inputs), output)
