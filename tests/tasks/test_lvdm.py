"""LVDM's task: clips of each stage, masks and levels that are drawn, measures that tell better from worse."""

import pytest
import torch

from vfikit.data import SyntheticClips
from vfikit.metrics import RandomFeatures, frechet_random
from vfikit.models import LVDMNet
from vfikit.tasks import lvdm as task

from ..models.toys import toy

SIZE = 16


def net() -> LVDMNet:
    found = toy("lvdm")
    assert isinstance(found, LVDMNet)
    return found


def test_clips_of_the_stages() -> None:
    """As published: 16, 64 and 20 frames for 4, 4 and 5 latents."""
    model = net()
    assert [task.clip_frames(model, stage) for stage in task.STAGES] == [16, 16, 64, 20]
    for stage in model.stages:
        frames = torch.rand(2, task.clip_frames(model, stage), 3, SIZE, SIZE)
        loss = task.denoising(model, stage, frames, generator=torch.Generator().manual_seed(0))
        assert loss.isfinite()
        loss.backward()
        assert {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {stage}
        model.zero_grad()


def test_losses_by_time_repeat() -> None:
    found = task.by_time(net(), "prediction", SyntheticClips(2, SIZE), 1)
    assert list(found) == [f"loss_at_{time}" for time in task.TIMES]
    assert found == task.by_time(net(), "prediction", SyntheticClips(2, SIZE), 1)


def test_latents_become_standard() -> None:
    model = net()
    batches = list(task.batches(SyntheticClips(8, SIZE), 2, steps=3))
    torch.manual_seed(0)
    scale, shift = task.latent_moments(model, batches)
    latents = torch.cat([model.autoencoder.encode(2 * b.frames.transpose(1, 2) - 1).sample() for b in batches])
    scaled = scale * (latents + shift)
    assert scaled.mean().item() == pytest.approx(0, abs=0.1)
    assert scaled.std().item() == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="no clips, expected at least one batch"):
        task.latent_moments(model, [])


def test_qualities() -> None:
    data = SyntheticClips(2, SIZE)
    for measure in (task.quality, task.reconstructed):
        found = measure(net(), data, 1)
        assert len(found.per_clip) == 1
        assert found.psnr == found.per_clip[0]["psnr"]
    assert task.frechet(net(), data, 2) > 0


def test_distilled_teaches_all_networks() -> None:
    model, batch = net(), task.example(SyntheticClips(2, SIZE))
    task.distilled(model, net(), batch, 0.5).backward()
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {
        *("autoencoder", "short", "prediction", "interpolation")
    }


def test_random_distance_tells_what_is_wrong() -> None:
    """Nearest to itself; the worse the frames or their order, the farther."""
    data = SyntheticClips(24, 32)
    clips = torch.stack([data.read(index, 8) for index in range(24)])
    first, second = clips[:12], clips[12:]
    noise = torch.randn(second.shape, generator=torch.Generator().manual_seed(0))
    near, noisy, worse = (
        float(frechet_random(first, x.clamp(0, 1))) for x in (second, second + 0.1 * noise, second + 0.3 * noise)
    )
    assert float(frechet_random(first, first)) == pytest.approx(0, abs=1e-5)
    assert near < noisy < worse
    shuffled = second[:, torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    assert float(frechet_random(first, shuffled)) > near
    assert torch.equal(RandomFeatures()(first[:1]), RandomFeatures()(first[:1]))


def test_tints_are_one_colour_a_clip() -> None:
    torch.manual_seed(0)
    frames = torch.full((2, 3, 3, 4, 4), 0.5)
    added = task.tinted(frames, 0.05) - frames
    torch.testing.assert_close(added, added[:, :1, :, :1, :1].expand_as(added))
    assert len(added[:, 0, :, 0, 0].unique()) == 6
    assert 0 <= task.tinted(frames, 5.0).min() < task.tinted(frames, 5.0).max() <= 1


@pytest.mark.parametrize("stage", ["prediction", "interpolation"])
def test_beginning_with_short(stage: str) -> None:
    """A clip of which nothing is given is denoised as the U-Net of short clips does."""
    model, x, t = net(), torch.rand(1, 4, 4, 8, 8), torch.tensor([300])
    unet, mask = model.unet(stage), torch.zeros(1, 1, 4, 8, 8)
    assert not torch.allclose(unet(torch.cat([x, mask], 1), t), model.unet("short")(x, t))
    task.begin_with_short(model, stage)
    torch.testing.assert_close(unet(torch.cat([x, mask], 1), t), model.unet("short")(x, t))
