"""What training and compressing Video-LDM rely on: batches, a loss a stage, whose weights learn."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vfikit.models import build
from vfikit.models.video_ldm import VideoLDMNet, texts
from vfikit.models.video_ldm.config import PRESETS
from vfikit.tasks import video_ldm as task
from vfikit.tasks import video_ldm_stages as stages

from ..models.toys import VIDEO_LDM as TOY


def toy() -> VideoLDMNet:
    torch.manual_seed(0)
    model: VideoLDMNet = build(replace(TOY, interpolation=False, upsampling=False))
    return model


def batch(frames: int = 3, side: int = 16) -> task.ClipBatch:
    video = torch.rand(2, frames, 3, side, side, generator=torch.Generator().manual_seed(0))
    return task.ClipBatch(video, torch.tensor([0, 1]), torch.tensor([0, 1]))


@pytest.mark.parametrize("stage", ["image", "temporal", "prediction", "interpolation", "upsampler"])
def test_every_stage_trains_its_own_weights(stage: str) -> None:
    model = toy()
    parameters = stages.trained(model, stage)
    mine = {id(p) for p in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in mine)
    text = torch.randn(2, 4, 8) + 1
    found = stages.denoising(model, stage, batch(5 if stage == "interpolation" else 3), text)
    (found.prediction - found.target).square().mean().backward()
    # behind the condition's last layer, which is zero at first, nothing learns
    behind = {id(p) for name, p in model.named_parameters() if ".condition.layers." in name}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters if id(p) not in behind)
    assert found.prediction.shape == found.target.shape


@pytest.mark.parametrize("encoder", ["", "of words"])
def test_texts_left_out_are_those_of_no_words(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What guidance leads away from, by prompt or by embeddings, is what was trained."""
    model, text, seen = toy(), torch.randn(2, 4, 8), []
    empty = torch.randn(1, 4, 8) if encoder else torch.zeros(1, 4, 8)
    model.config = replace(model.config, text_encoder=encoder)
    monkeypatch.setattr(texts, "encode_text", lambda _, said, like: empty if said == [""] else text[:1])
    monkeypatch.setattr(stages, "NO_TEXT", 1.0)
    monkeypatch.setattr(model, "denoise", lambda _, x, t, given: seen.append(given.text))
    stages.denoising(model, "temporal", batch(), text)
    assert torch.equal(seen[0], empty.expand(2, -1, -1))
    by_hand = texts.of_embeds(model, 2.0, text, None, None, None)
    assert by_hand is not None
    assert torch.equal(by_hand.negative.expand(2, -1, -1), empty.expand(2, -1, -1))
    if encoder:
        assert torch.equal(model.texts(1, "a cat", "", None, None).negative, empty)
        assert torch.equal(model.texts(1, None, "", None, None).text, empty)


def test_the_interpolator_begins_as_the_generator() -> None:
    model = toy()
    stages.trained(model, "interpolation")
    assert model.config.interpolation
    assert model.interpolator is not None
    ours, theirs = model.interpolator.state_dict(), model.generator.state_dict()
    differ = [name for name, value in ours.items() if value.shape != theirs[name].shape]
    assert all(name.endswith("condition.layers.0.weight") for name in differ)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name not in differ)


@pytest.mark.parametrize("preset", PRESETS["video-ldm"])
def test_presets_leave_the_interpolator_to_its_stage(preset: str) -> None:
    with torch.device("meta"):
        model = build("video-ldm", preset)
        assert model.interpolator is None
        stages.trained(model, "interpolation")
    assert model.interpolator is not None


@pytest.mark.parametrize("stage", ["autoencoder", "decoder"])
def test_reconstructions_learn(stage: str) -> None:
    model, clips = toy(), batch(2)
    parameters = stages.trained(model, stage)
    found = stages.reconstruction(model, stage, clips.frames)
    assert found.frames.shape == clips.frames.shape
    ((found.frames - clips.frames).square().mean() + 1e-6 * found.divergence).backward()
    assert all(p.grad is not None for p in parameters)


def test_unknown_stages_and_models_without_planes_are_refused() -> None:
    model = toy()
    with pytest.raises(ValueError, match="stage is 'all', expected one of autoencoder, image"):
        stages.trained(model, "all")
    bare = build(replace(model.config, unet=replace(model.config.unet, planes=0)))
    with pytest.raises(ValueError, match="not told of known frames"):
        stages.denoising(bare, "prediction", batch())


def test_batches_follow_seed_step_and_shard() -> None:
    data = task.split("synthetic", 16, (16, 16), 4, 0).train

    def made(**settings: object) -> list[Tensor]:
        return [b.frames for b in task.batches(data, 2, 12, 5, 3, **settings)]  # type: ignore[arg-type]

    assert all(torch.equal(a, b) for a, b in zip(made()[1:], made(start=1), strict=True))
    wide = next(task.batches(data, 4, 12, 5, 1)).frames
    shards = [next(task.batches(data, 2, 12, 5, 1, shard=(rank, 2))).frames for rank in (0, 1)]
    assert torch.equal(torch.cat(shards), wide)
    assert made()[0].shape == (2, 4, 3, 12, 12)


def test_distillation_and_quality() -> None:
    model, clips = toy(), batch(2)
    plain = task.distilled(model, None, clips, 0.5)
    plain.backward()
    torch.manual_seed(1)
    alone = task.distilled(model, None, clips, 1.0)
    torch.manual_seed(1)
    assert task.distilled(model, toy(), clips, 1.0) > alone
    data = task.split("synthetic", 16, (16, 16), 2, 0).test
    found = task.quality(model.eval(), data, 2)
    assert [row["name"] for row in found.per_clip] == ["scene 0", "scene 1"]
    assert found == task.quality(model, data, 2)
    assert task.inputs(task.example(data))[0].shape == (1, 4, 3, 16, 16)


@pytest.mark.parametrize(("stage", "planes"), [("autoencoder", 4), ("decoder", 5)])
def test_the_game_judges_frames_or_videos(stage: str, planes: int) -> None:
    model = toy()
    loss = stages.StageLoss(model, stage, perceptual=lambda a, b: (a - b).abs().mean((1, 2, 3)), start=1, width=4)
    early, made = loss(batch(2, 32), None, 0)
    late, _ = loss(batch(2, 32), None, 1)
    assert made.ndim == planes
    assert early["perceptual"] > 0
    assert not torch.equal(early["loss"], late["loss"])
    assert loss.game.discriminator is not None
    judged = loss.game.discriminator_loss(made, loss.seen(batch(2, 32).frames), 1)
    judged.total.backward()
    assert all(p.grad is not None for p in loss.game.discriminator.parameters())
    late["loss"].backward()
    assert loss.last_layer.grad is not None
