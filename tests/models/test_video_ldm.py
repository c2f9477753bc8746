"""Video-LDM: what it generates, continues, fills in and enlarges; its checkpoints; what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vfikit import checkpoints
from vfikit.diffusion import Sampling
from vfikit.layers.temporal import window_mask
from vfikit.models import build
from vfikit.models.video_ldm import Given, UNetConfig, Upsampler, UpsamplerConfig, VideoLDMNet
from vfikit.models.video_ldm.config import AutoencoderConfig
from vfikit.models.video_ldm.generation import Request, between, generate_latents, key_frames
from vfikit.models.video_ldm.schedule import condition, known_mask
from vfikit.models.video_ldm.texts import Texts

from .toys import VIDEO_LDM as TOY

UNET = TOY.unet


@pytest.fixture(scope="module")
def net() -> VideoLDMNet:
    torch.manual_seed(0)
    model: VideoLDMNet = build(TOY).eval()
    for name, parameter in model.named_parameters():
        if ".condition.proj_out." in name:  # zero at first
            nn.init.normal_(parameter, std=0.2)
    return model


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 9])
def test_any_number_of_frames(net: VideoLDMNet, frames: int) -> None:
    video = net.generate(num_frames=frames, num_videos=2, generator=seeded())
    assert video.shape == (2, frames, 3, 16, 12)
    assert video.min() >= 0
    assert video.max() <= 1
    assert torch.equal(video, net.generate(num_frames=frames, num_videos=2, generator=seeded()))


def test_a_longer_video_begins_as_the_shorter(net: VideoLDMNet) -> None:
    longer = net.generate(num_frames=9, generator=seeded())
    torch.testing.assert_close(longer[:, :4], net.generate(num_frames=6, generator=seeded())[:, :4])


@pytest.mark.parametrize("known", [1, 2, 5])
def test_known_frames_are_continued(net: VideoLDMNet, known: int) -> None:
    video = torch.rand(1, known, 3, 16, 12, generator=seeded())
    longer = net.generate(frames=video, num_frames=7, generator=seeded())
    latents = net.encode(video)
    request = request_of(net, (1, 7, 4, 8, 6))
    assert torch.equal(key_frames(net, request, latents)[:, :known], latents)
    assert longer.shape == (1, 7, 3, 16, 12)
    other = net.generate(frames=video.roll(1, -1), num_frames=7, generator=seeded())
    assert not torch.allclose(longer[:, -1], other[:, -1])


def request_of(net: VideoLDMNet, shape: tuple[int, int, int, int, int], **changes: Any) -> Request:
    nothing = net.no_text(shape[0])
    request = Request(shape, Texts(nothing, nothing), 1.0, 1.0, net.config.sampling, 0, seeded())
    return request._replace(**changes)


@pytest.mark.parametrize(("interpolations", "frames"), [(1, 5), (1, 7), (2, 17), (2, 20)])
def test_frames_between_keep_the_keys(net: VideoLDMNet, interpolations: int, frames: int) -> None:
    keys = torch.randn(1, 3, 4, 8, 6, generator=seeded())
    with torch.no_grad():
        found = between(net, request_of(net, (1, 3, 4, 8, 6)), keys, 0)
        made = generate_latents(net, request_of(net, (1, frames, 4, 8, 6), interpolations=interpolations))
    assert torch.equal(found[:, ::4], keys)
    assert found.shape[1] == 9
    assert made.shape[1] == frames


def test_enlarging(net: VideoLDMNet) -> None:
    video = net.generate(num_frames=5, upsample=True, generator=seeded())
    assert video.shape == (1, 5, 3, 64, 48)


@pytest.mark.parametrize("latent", [False, True])
def test_upsamplers_train_on_patches_of_any_size(latent: bool) -> None:
    settings = {**UNET.__dict__, "noise_levels": 1000, "planes": 0}
    settings |= {"in_channels": 7, "out_channels": 4} if latent else {"in_channels": 6, "out_channels": 3}
    auto = AutoencoderConfig(16, (1, 1, 1), 1, 4, 8)
    upsampler = Upsampler(UpsamplerConfig(UNetConfig(**settings), auto, latent=latent, frames=4))
    text = torch.zeros(2, 1, 8)
    for side in (4, 6):
        frames, low = torch.rand(2, 3, 3, 4 * side, 16), torch.rand(2, 3, 3, side, 4)
        found = upsampler.denoise(frames, low, torch.tensor([3, 700]), torch.tensor([0, 300]), text)
        assert found.prediction.shape == found.target.shape
        assert found.target.shape[2:] == (4 if latent else 3, *((side, 4) if latent else (4 * side, 16)))
    found.prediction.square().mean().backward()
    assert all(p.grad is not None for p in upsampler.denoiser.parameters())
    video = upsampler.upsample(torch.rand(2, 5, 3, 4, 4), text, Sampling(steps=1, spacing="trailing"))
    assert video.shape == (2, 5, 3, 16, 16)


def test_guidance_leans_and_one_is_none(net: VideoLDMNet) -> None:
    embeds, frames = torch.randn(1, 3, 8, generator=seeded()), torch.rand(1, 2, 3, 16, 12, generator=seeded())

    def made(**settings: Any) -> Tensor:
        return net.generate(frames=frames, num_frames=4, prompt_embeds=embeds, generator=seeded(), **settings)

    plain = made()
    assert torch.equal(made(guidance_scale=1.0, context_guidance_scale=1.0), plain)
    assert not torch.allclose(made(guidance_scale=4.0), plain)
    assert not torch.allclose(made(context_guidance_scale=4.0), plain)
    assert not torch.allclose(made(temporal_prompt_embeds=embeds + 1), plain)


def test_networks_that_no_subject_was_shown_to_read_the_original_text(net: VideoLDMNet) -> None:
    tuned, original = torch.randn(2, 1, 3, 8, generator=seeded())
    seen: dict[str, list[Given]] = {"generator": [], "interpolator": [], "upsampler.denoiser": []}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(lambda _, inputs, found=found: found.append(inputs[2]))
        for name, found in seen.items()
    ]
    asked = {"prompt_embeds": tuned, "temporal_prompt_embeds": original, "guidance_scale": 2.0}
    net.generate(num_frames=5, interpolations=1, upsample=True, generator=seeded(), **asked)
    for hook in hooks:
        hook.remove()
    assert torch.equal(seen["generator"][0].text, tuned)
    assert seen["generator"][0].temporal_text is not None
    assert torch.equal(seen["generator"][0].temporal_text, original)
    for name in ("interpolator", "upsampler.denoiser"):
        assert seen[name]
        assert all(given.temporal_text is None for given in seen[name])
        assert torch.equal(seen[name][0].text, original)
        assert not any(torch.equal(given.text, tuned) for given in seen[name])


def test_the_decoder_is_the_image_decoder_at_alpha_one(net: VideoLDMNet) -> None:
    latents = torch.randn(1, 4, 4, 8, 6)
    with torch.no_grad():
        assert not torch.allclose(net.decode(latents), net.decode_images(latents))
        alphas = [layer.alpha.clone() for layer in net.decoder_mixers.layers]
        for layer in net.decoder_mixers.layers:
            nn.init.ones_(layer.alpha)
        torch.testing.assert_close(net.decode(latents), net.decode_images(latents))
        for layer, alpha in zip(net.decoder_mixers.layers, alphas, strict=True):
            layer.alpha.copy_(alpha)


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_a_training_pass_names_its_target(prediction: str) -> None:
    schedule = TOY.schedule.__class__(prediction=prediction)
    net = build(TOY, schedule=schedule)
    latents, t = torch.randn(2, 3, 4, 8, 6), torch.tensor([0, 999])
    planes = condition(latents, known_mask(3, (0,)))
    torch.manual_seed(0)
    found = net.denoise(net.generator, latents, t, Given(net.no_text(2), planes=planes))
    assert found.prediction.shape == found.target.shape == latents.shape
    sign = {"noise": 1, "velocity": -1}[prediction]
    if prediction == "velocity":  # nearly the noise at time 0, nearly minus the video at the end
        torch.testing.assert_close(found.target[1], sign * latents[1], atol=0.4, rtol=0.1)


def test_labels_are_read(net: VideoLDMNet) -> None:
    labelled = build(TOY, labels=(2, 3), interpolation=False, upsampling=False).eval()
    day, night = (labelled.generate(labels=[k, 1], num_frames=2, generator=seeded()) for k in (1, 2))
    assert not torch.allclose(day, night)
    with pytest.raises(ValueError, match="1 labels, expected 2"):
        labelled.generate(labels=[1])


def test_long_windows_see_those_near_them(net: VideoLDMNet) -> None:
    """Without planes, all frames are made at once; those farther than ``distance`` do not attend to each other."""
    free = build(TOY, unet=UNetConfig(**{**UNET.__dict__, "planes": 0}), interpolation=False, upsampling=False).eval()
    x, t, text = torch.randn(1, 11, 4, 8, 6, generator=seeded()), torch.tensor([500]), free.no_text(1)
    free.generator.distance = 2
    known = {"num_frames": 11, "temporal_mask": window_mask(11, 2)}
    rows = (x[0], t.expand(11), text.expand(11, -1, -1))
    with torch.no_grad():
        found = free.generator(x, t, Given(text))
        torch.testing.assert_close(found[0], free.generator.unet(*rows, cross_attention_kwargs=known).sample)
        free.generator.distance = 8
        assert not torch.allclose(free.generator(x, t, Given(text)), found)
    assert free.generate(num_frames=11, generator=seeded()).shape[1] == 11
    with pytest.raises(ValueError, match="not told of known frames"):
        free.generate(frames=torch.rand(1, 1, 3, 16, 12))


def test_save_and_load(net: VideoLDMNet, tmp_path: Path) -> None:
    checkpoints.save(net, tmp_path / "m.safetensors")
    other = checkpoints.load(tmp_path / "m.safetensors")
    assert other.config == net.config
    video = net.generate(num_frames=2, generator=seeded())
    assert torch.equal(other.generate(num_frames=2, generator=seeded()), video)


def test_what_is_wrong_is_said(net: VideoLDMNet) -> None:
    with pytest.raises(ValueError, match="frames of 15 x 12, expected multiples of 2"):
        net.generate(height=15)
    with pytest.raises(ValueError, match="made without a text encoder"):
        net.generate("a dog")
    with pytest.raises(ValueError, match="num_frames is 0, expected a whole number"):
        net.generate(num_frames=0)
    with pytest.raises(ValueError, match="3 prompts, expected one or 2"):
        net.generate(num_videos=2, prompt_embeds=torch.zeros(3, 1, 8))
    with pytest.raises(ValueError, match="2 frames, 2 of them known, expected more"):
        net.generate(num_frames=2, frames=torch.rand(1, 2, 3, 16, 12))
    with pytest.raises(ValueError, match="context_guidance_scale, but one window knows no frames"):
        net.generate(num_frames=4, context_guidance_scale=3.0)
    bare = build(TOY, interpolation=False, upsampling=False)
    with pytest.raises(ValueError, match="no network for them"):
        bare.generate(interpolations=1)
    with pytest.raises(ValueError, match="no upsampler"):
        bare.generate(upsample=True)
