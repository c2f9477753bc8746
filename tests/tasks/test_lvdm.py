"""LVDM's task: clips of each stage, masks and levels that are drawn, measures that tell better from worse."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from vfikit.data import SyntheticClips
from vfikit.metrics import RandomFeatures, frechet_random
from vfikit.models import PRESETS, LVDMNet, build
from vfikit.models.lvdm.conditional import NoisyClip
from vfikit.tasks import lvdm as task

from ..models.toys import CONTINUING, LVDM, toy

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


@pytest.mark.parametrize("preset", PRESETS["lvdm"])
def test_clips_of_the_presets(preset: str) -> None:
    """Prediction works on every fourth of 16 latents, whether or not its model interpolates."""
    with torch.device("meta"):
        model = build("lvdm", preset)
    published = {"short": 16, "prediction": 64, "interpolation": 20}
    for stage in model.stages:
        assert task.clip_frames(model, stage) == published[stage]


def test_keys_are_as_far_apart_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(replace(LVDM, interpolation=None, key_stride=2)).eval()
    assert task.clip_frames(model, "prediction") == 32
    latents = torch.randn(1, 4, 8, 4, 4)
    monkeypatch.setattr(model, "encode", lambda frames, generator: latents)
    denoise = model.denoise

    def watched(stage: str, latent: torch.Tensor, *more: Any) -> Any:
        assert torch.equal(latent, latents[:, :, ::2])
        return denoise(stage, latent, *more)

    monkeypatch.setattr(model, "denoise", watched)
    task.denoising(model, "prediction", torch.rand(1, 32, 3, 8, 8))
    with pytest.raises(ValueError, match="interpolation over 5 latents, a key every 2, expected 3"):
        replace(LVDM, key_stride=2)


@pytest.mark.parametrize(("stage", "share", "places"), [("prediction", 0.5, [0]), ("interpolation", 0.9, [0, -1])])
def test_what_is_given_in_training(
    stage: str, share: float, places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published: how often, which latents, and noise of all levels below 250 on them, each clip on its own."""
    model, masks, levels = net(), [], []

    def watched(_: str, latent: torch.Tensor, t: Any, noise: Any, mask: Any, level: Any, other: Any, *__: Any) -> Any:
        masks.append(mask)
        levels.append(level)
        assert not torch.equal(noise, other)
        return latent, NoisyClip(latent, noise)

    monkeypatch.setattr(model, "denoise", watched)
    generator = torch.Generator().manual_seed(0)
    frames = torch.zeros(50, task.clip_frames(model, stage), 3, 4, 4)
    for _ in range(8):
        task.denoising(model, stage, frames, generator=generator)
    mask, level = torch.cat(masks), torch.cat(levels)
    assert mask.shape == (400, 1, model.unet(stage).config.length, 2, 2)
    given = mask.flatten(1).any(1)
    assert given.float().mean() == pytest.approx(share, abs=0.08)
    marked = torch.zeros(mask.shape[1:])
    marked[:, places] = 1
    assert torch.equal(mask[given], marked.expand(int(given.sum()), -1, -1, -1, -1))
    assert level.shape == (400,)
    assert 0 <= level.min() < 8
    assert 242 < level.max() < 250
    assert abs(float(level[given].float().mean()) - 124.5) < 15


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


def test_beginning_with_a_short_of_another_kind() -> None:
    model = build(replace(LVDM, prediction=replace(CONTINUING, width=16)))
    with pytest.raises(ValueError, match="prediction and short differ in more than in_channels"):
        task.begin_with_short(model, "prediction")


def test_captions_are_read_and_some_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(task, "encode_text", lambda _, captions, like: said.extend(captions) or torch.ones(1, 2, 3))
    assert task.text_of(net(), ["a cat"]) is None
    model = build(replace(LVDM, text_encoder="somewhere"))
    task.text_of(model, ["a cat"] * 500)
    assert said == ["a cat"] * 500
    said.clear()
    torch.manual_seed(0)
    task.text_of(model, ["a cat"] * 500, 0.1)
    assert set(said) == {"a cat", ""}
    assert said.count("") == pytest.approx(50, abs=20)
