"""Discriminators as layers."""

import pytest
import torch

from vfikit.layers.discriminators import ConvDiscriminator, PatchDiscriminator, VideoPatchDiscriminator


def test_widths_and_strides() -> None:
    discriminator = ConvDiscriminator(5, (4, 6, 8), grid=2, hidden=7)
    convolutions = [m for m in discriminator.features if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in convolutions] == [
        (5, 4, (1, 1)),
        (4, 6, (2, 2)),
        (6, 8, (1, 1)),
    ]
    assert all(c.bias is None for c in convolutions)
    assert discriminator(torch.rand(2, 5, 12, 9)).shape == (2, 1)


def test_channels_last_gradients() -> None:
    """The layout of the input changes nothing, also for a batch of one."""
    torch.manual_seed(0)
    discriminator = ConvDiscriminator(6, (4, 8, 8, 8), grid=4, hidden=8)
    x = torch.rand(1, 6, 16, 16)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=layout).requires_grad_()
        discriminator(given).sum().backward()
        assert given.grad is not None
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_patches() -> None:
    """The published one for frames of 3 channels: 2.77 M parameters, logits that see 70 x 70 pixels each."""
    discriminator = PatchDiscriminator()
    assert sum(p.numel() for p in discriminator.parameters()) == 2_765_633
    assert discriminator(torch.rand(2, 3, 64, 48)).shape == (2, 1, 6, 4)
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    discriminator.eval()(x)[0, 0, 9, 9].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70
    assert discriminator.main[2].weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_patches_of_videos_see_neighbouring_frames() -> None:
    judge = VideoPatchDiscriminator(width=4, layers=2).eval()
    video = torch.randn(2, 3, 9, 24, 32)
    logits = judge(video)
    changed = video.clone()
    changed[0, :, 8] += 1
    difference = (judge(changed) - logits).abs().amax((1, 3, 4))
    assert logits.shape[:3] == (2, 1, 9)
    assert difference[0, 8] > 0
    assert not difference[0, :4].any()  # four convolutions reach four frames
    assert not difference[1].any()
