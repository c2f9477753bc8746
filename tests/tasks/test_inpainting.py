"""What compressing needs to know of inpainting: batches that are functions of their step, losses, quality."""

import torch

from vfikit.data import SyntheticClips
from vfikit.tasks import inpainting
from vfikit.tasks.inpainting import FRAMES, Kept

from ..models.test_e2fgvi import toy


def data() -> Kept:
    return Kept(SyntheticClips(3, 24), 2)


def test_batches_depend_on_seed_and_step_alone() -> None:
    whole = list(inpainting.batches(data(), 2, 16, seed=1, steps=3))
    assert whole[0].frames.shape == (2, FRAMES, 3, 16, 16)
    assert whole[0].masks.shape == (2, FRAMES, 1, 16, 16)
    assert set(whole[0].masks.unique().tolist()) == {0.0, 1.0}
    again = list(inpainting.batches(data(), 2, 16, seed=1, steps=3, start=1))
    assert all(torch.equal(a, b) for pair in zip(whole[1:], again, strict=True) for a, b in zip(*pair))
    other = next(inpainting.batches(data(), 2, 16, seed=2, steps=1))
    assert not torch.equal(other.frames, whole[0].frames)


def test_losses_fall_and_distilling_pulls() -> None:
    net, batch = toy(), next(inpainting.batches(data(), 2, 16, steps=1))
    first = inpainting.loss(net, batch)
    assert torch.allclose(first.total, first.hole + first.valid + first.flow)
    assert min(first) > 0
    same = inpainting.distilled(net, net, batch, 1.0) - inpainting.distilled(net, None, batch, 1.0)
    torch.manual_seed(1)
    other = toy()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    apart = inpainting.distilled(net, other, batch, 1.0) - inpainting.distilled(net, None, batch, 1.0)
    assert same < 0.01 < apart
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss = inpainting.distilled(net, None, batch, 0.0)
        loss.backward()
        optimizer.step()
    assert inpainting.loss(net, batch).total < 0.8 * first.total


def test_quality_is_of_the_holes_alone() -> None:
    clips, net = data(), toy()
    found = inpainting.quality(net, clips)
    assert len(found.per_clip) == 2
    assert 10 < found.psnr < 60
    batch = inpainting.example(clips)
    assert batch.frames.shape == (1, FRAMES, 3, 24, 24)
    perfect = inpainting.measure(lambda frames, masks: frames, clips, 1)
    assert perfect[0]["psnr"] > 50
    assert inpainting.inputs(batch)[0][batch.masks.expand_as(batch.frames) > 0].abs().max() == 0


def test_frames_that_the_hole_has_left_do_not_count() -> None:
    """They come back as they were, at infinite PSNR."""
    data = Kept(SyntheticClips(4, 80, seed=1), 4)
    gone = [inpainting.held_out_batch(data, index).masks.flatten(2).any(2).all() for index in range(4)]
    assert not all(gone)
    rows = inpainting.measure(lambda frames, masks: frames * (1 - masks) + 0.5 * masks, data)
    assert all(10 < row["psnr"] < 60 for row in rows)
