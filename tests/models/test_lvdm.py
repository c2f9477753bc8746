"""LVDM: videos of any length, what they begin with, guidance, training's view, half precision, errors."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from vfikit import checkpoints
from vfikit.diffusion import Sampling, watched
from vfikit.layers import VideoResBlock
from vfikit.models import LVDMNet, build
from vfikit.models.lvdm import FrameAutoencoderConfig, Given, VideoUNet, sample_clip
from vfikit.models.lvdm.conditional import drawing
from vfikit.models.lvdm.long_video import between_keys, decoded, key_latents, lengths, windows

from .toys import CONTINUING, LVDM, VIDEO_UNET, toy


@cache
def net() -> LVDMNet:
    found = toy("lvdm")
    assert isinstance(found, LVDMNet)
    return found


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("frames", [1, 16, 17, 41])
def test_any_length(frames: int) -> None:
    video = net().generate(num_frames=frames, generator=seeded())
    assert video.shape == (1, frames, 3, 8, 12)
    assert video.min() >= 0
    assert video.max() <= 1
    assert torch.equal(video, net().generate(num_frames=frames, generator=seeded()))
    assert not torch.equal(video, net().generate(num_frames=frames, generator=seeded(1)))


def test_without_interpolation_clips_continue() -> None:
    alone = build(replace(LVDM, short=None, interpolation=None))
    alone.load_state_dict({key: net().state_dict()[key] for key in alone.state_dict()})
    video = alone.generate(num_frames=30, generator=seeded(), height=12, width=8)
    assert video.shape == (1, 30, 3, 12, 8)


def test_a_video_is_continued() -> None:
    """Its latents stand at the beginning; an image is a clip that stands still."""
    clip = torch.rand(2, 12, 3, 8, 12, generator=seeded(3))
    video = net().generate(num_frames=20, frames=clip, generator=seeded())
    assert video.shape == (2, 20, 3, 8, 12)
    start = net().given_latents(clip)
    latents = net().latents(20, lambda stage, given: torch.zeros(2, 4, 5, 4, 6), start)
    made = torch.cat(list(latents), dim=2)
    assert made.shape[2] == 5
    assert torch.equal(made[:, :, :3], start)
    assert made[:, :, 3:].abs().max() == 0
    image = net().given_latents(clip[:, :1])
    assert torch.equal(image, net().encode(clip[:, :1].expand(-1, 4, -1, -1, -1), mode=True))


def test_stream_has_bounded_pieces() -> None:
    """However long the video, no more than a window is decoded and no more than the asked for is given."""
    most = 0
    for piece in itertools.islice(net().stream(num_frames=10_000, generator=seeded(), num_inference_steps=1), 6):
        most = max(most, piece.shape[1])
    assert most <= 16


def test_frames_of_an_image_autoencoder_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of windows of latents two are shared, but where each frame is decoded on its own."""
    images = FrameAutoencoderConfig(width=4, multipliers=(1, 2), blocks=1, groups=2)
    by_frame = replace(LVDM, autoencoder=None, frame_autoencoder=images, short=replace(VIDEO_UNET, length=10))
    for config, frames, decoded_at_once in ((by_frame, 10, [4, 4, 2]), (LVDM, 28, [4, 4, 3])):
        model, seen = build(config).eval(), []
        clip_frames = model.clip_frames
        monkeypatch.setattr(model, "clip_frames", lambda z, f=clip_frames, s=seen: (s.append(z.shape[2]), f(z))[1])
        assert model.generate(num_frames=frames, generator=seeded(), height=8, width=8).shape[1] == frames
        assert seen == decoded_at_once


def test_steps_are_counted() -> None:
    steps: list[None] = []
    with watched(lambda: steps.append(None)):
        net().generate(num_inference_steps=3)
    assert len(steps) == 3


def test_prompts_guide() -> None:
    text = replace(VIDEO_UNET, attention="transformer", context_channels=6, scale_shift=False)
    model = build(replace(LVDM, short=text, prediction=None, interpolation=None)).eval()
    torch.nn.init.normal_(model.short.out[-1].weight)
    for module in model.modules():
        if hasattr(module, "proj_out"):
            torch.nn.init.normal_(module.proj_out.weight)
    words, nothing = torch.randn(2, 5, 6, generator=seeded()), torch.randn(2, 5, 6, generator=seeded(1))

    def made(negative: Tensor | None, scale: float) -> Tensor:
        return model.generate(
            prompt_embeds=words,
            negative_prompt_embeds=negative,
            num_videos=2,
            generator=seeded(),
            guidance_scale=scale,
        )

    plain = made(None, 1.0)
    assert plain.shape[:2] == (2, 16)
    torch.testing.assert_close(made(words, 4.0), plain, rtol=0, atol=1e-4)
    assert (made(nothing, 4.0) - plain).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"guidance of 4.0 without a negative prompt"):
        made(None, 4.0)
    assert model(torch.rand(1, 16, 3, 8, 8)).shape == (1, 16, 3, 8, 8)  # every network, of no text
    with pytest.raises(ValueError, match=r"got no context, expected \(N, M, 6\), say of words"):
        model.short(torch.randn(1, 4, 4, 4, 4), torch.tensor([3]))
    with pytest.raises(ValueError, match="got no prompt, expected one"):
        model.generate()
    with pytest.raises(ValueError, match="got a prompt, but this model reads no text"):
        model.generate("a cat")


def test_given_latents_and_batches() -> None:
    """Each item of a batch as alone; guidance of 1 is the conditional prediction."""
    unet, schedule, steps = net().prediction, net().schedule, Sampling("ddim", 2, 0.0)
    assert isinstance(unet, VideoUNet)
    latents = torch.randn(2, 4, 1, 4, 6, generator=seeded())
    noise = torch.randn(2, 4, 4, 4, 6, generator=seeded(1))

    def made(items: slice, guidance: float) -> Tensor:
        drawn = iter([latents[items], noise[items]])
        shape = tuple(noise[items].shape)
        return sample_clip(
            unet, schedule, steps, shape, lambda _: next(drawn), Given(latents[items], (0,)), guidance=guidance
        )

    with torch.no_grad():
        both = made(slice(0, 2), 2.0)
        torch.testing.assert_close(both, torch.cat([made(slice(0, 1), 2.0), made(slice(1, 2), 2.0)]))
        assert (both - made(slice(0, 2), 1.0)).abs().max() > 1e-3
        short = net().short
        assert isinstance(short, VideoUNet)
        with pytest.raises(ValueError, match="given latents for a U-Net that takes no mask"):
            sample_clip(short, schedule, steps, (1, 4, 4, 4, 6), drawing(noise, None), Given(latents[:1], (0,)))


def test_denoise_targets() -> None:
    """Given latents are noised to their own level and are targets, too; clips with none given are told no level."""
    latent = torch.randn(2, 4, 4, 4, 6, generator=seeded())
    noise, other = (torch.randn(2, 4, 4, 4, 6, generator=seeded(i)) for i in (1, 2))
    given = torch.zeros(2, 1, 4, 4, 6)
    given[1, :, 0] = 1
    t, level = torch.tensor([900, 900]), torch.tensor([5, 5])
    predicted, seen = net().denoise("prediction", latent, t, noise, given, level, other)
    assert predicted.shape == latent.shape
    assert torch.equal(seen.target[1, :, 0], other[1, :, 0])
    assert torch.equal(seen.target[1, :, 1:], noise[1, :, 1:])
    torch.testing.assert_close(seen.x[1, :4, 0], net().schedule.add_noise(latent[1:], other[1:], level[1:])[0, :, 0])
    unet = net().unet("prediction")
    torch.testing.assert_close(predicted[0], unet(seen.x[:1], t[:1])[0])
    torch.testing.assert_close(predicted[1], unet(seen.x[1:], t[1:], level=level[1:])[0])
    with pytest.raises(ValueError, match="a mask without level and level_noise"):
        net().denoise("prediction", latent, t, noise, given)


def test_unit_lengths() -> None:
    assert lengths(1024) == (256, 65, 21)
    assert lengths(4).steps == 0
    assert [w.start for w in windows(9, 4, 2)] == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="an overlap of 4 in windows of 4, expected 0 to 3"):
        windows(9, 4, 4)


@pytest.mark.parametrize(("latents", "most", "overlap"), [(9, 4, 2), (8, 4, 1), (3, 4, 2), (7, 3, 0), (4, 4, 3)])
def test_windows_tile(latents: int, most: int, overlap: int) -> None:
    """Every frame is decoded once, in order, whether the windows are listed or streamed."""
    numbers = torch.arange(4 * latents)
    tiled = [numbers[4 * w.start : 4 * w.end][w.first : w.last] for w in windows(latents, most, overlap)]
    assert torch.equal(torch.cat(tiled), numbers)
    pieces = torch.arange(latents).view(1, 1, latents, 1, 1).split(2, dim=2)

    def decode(latent: Tensor) -> Tensor:
        return (4 * latent).repeat_interleave(4, 2) + torch.arange(4).repeat(latent.shape[2])[:, None, None]

    frames = decoded(decode, pieces, most, overlap)
    assert torch.equal(torch.cat(list(frames), dim=2).flatten(), numbers)


def test_hierarchy() -> None:
    """Clips continue the last key, and what is between two keys is made of both."""

    def clip(given: Given | None) -> Tensor:
        first = 0.0 if given is None else float(given.latents.flatten()[0])
        if given is not None and len(given.places) == 2:
            return torch.linspace(first, float(given.latents.flatten()[1]), 5).view(1, 1, 5, 1, 1)
        return (first + 4 * torch.arange(4.0)).view(1, 1, 4, 1, 1)

    keys = itertools.islice(key_latents(clip), 8)
    assert torch.cat(list(between_keys(clip, keys)), dim=2).flatten().tolist() == list(range(29))


def test_every_network_once() -> None:
    video = torch.rand(1, 16, 3, 8, 12, generator=seeded())
    made = net()(video)
    assert made.shape == video.shape
    half = toy("lvdm").bfloat16()(video.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.isfinite(half).all()


@pytest.mark.slow
def test_compiles() -> None:
    unet = VideoUNet(replace(CONTINUING, multipliers=(1,), attention_scales=(1,))).eval()
    compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
    x, t = torch.randn(1, 5, 4, 4, 6, generator=seeded()), torch.tensor([3])
    torch.testing.assert_close(compiled(x, t, level=t), unet(x, t, level=t))


def test_checkpointed_gradients() -> None:
    """Recomputing blocks changes no gradient; each runs twice, and keeps nothing for its backward pass."""
    model = toy("lvdm", torch.float64).train()
    assert isinstance(model, LVDMNet)
    found, kept, runs = [], [], []
    block = next(module for module in model.unet("short").modules() if isinstance(module, VideoResBlock))
    block.register_forward_pre_hook(lambda *_: runs.append(None))  # recomputing stops before a hook behind it
    for enabled in (False, True):
        unet = model.unet("short")
        unet.checkpoint_blocks(enabled)
        unet.zero_grad()
        x = torch.randn(1, 4, 4, 4, 6, generator=seeded(), dtype=torch.float64)
        saved: set[int] = set()
        with torch.autograd.graph.saved_tensors_hooks(lambda y, s=saved: (s.add(y.data_ptr()), y)[1], lambda y: y):
            loss = unet(x, torch.tensor([10])).square().mean()
        loss.backward()
        kept.append(len(saved))
        found.append([p.grad.clone() for p in unet.parameters() if p.grad is not None])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)
    assert len(runs) == 1 + 2
    assert kept[1] < kept[0] / 2


def test_round_trip(tmp_path: object) -> None:
    path = f"{tmp_path}/model.safetensors"
    checkpoints.save(net(), path)
    again = checkpoints.load(path)
    assert again.config == net().config
    for key, tensor in net().state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


def test_a_unet_is_added() -> None:
    """What is there stays; where keys stand comes with the first U-Net that continues."""
    model = build(replace(LVDM, prediction=None, interpolation=None))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.add_unet("prediction", replace(LVDM, interpolation=None, key_stride=2, scale=3.0))
    assert model.config == replace(LVDM, interpolation=None, key_stride=2)
    assert model.stages == ["short", "prediction"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    with pytest.raises(ValueError, match="interpolation over 5 latents, a key every 2"):
        model.add_unet("interpolation", LVDM)
    with pytest.raises(ValueError, match="no U-Net 'short' to add"):
        model.add_unet("short", replace(LVDM, short=None))
    with pytest.raises(ValueError, match="a U-Net of 3 channels for latents of 4"):
        model.add_unet("short", replace(LVDM, short=replace(VIDEO_UNET, out_channels=3)))


def test_errors() -> None:
    with pytest.raises(ValueError, match="9 x 12 pixels, expected multiples of 4 and 4"):
        net().generate(num_frames=16, height=9)
    with pytest.raises(ValueError, match=r"frames are \(1, 3, 8, 12\) of torch.float32, expected \(N, T, 3, H, W\)"):
        net().generate(num_frames=16, frames=torch.rand(1, 3, 8, 12))
    with pytest.raises(ValueError, match="no U-Net 'prediction'; this model has short"):
        build(replace(LVDM, prediction=None, interpolation=None)).generate(num_frames=17)
    with pytest.raises(ValueError, match="both or none of autoencoder and frame_autoencoder"):
        build(replace(LVDM, autoencoder=None))
    with pytest.raises(ValueError, match="attention is 'all', expected one of"):
        VideoUNet(replace(VIDEO_UNET, attention="all"))
    x, t = torch.randn(1, 4, 4, 4, 6), torch.tensor([3])
    with pytest.raises(ValueError, match="got a noise level, expected none"):
        VideoUNet(VIDEO_UNET)(x, t, level=t)
    with pytest.raises(ValueError, match="a noise level without a mask"):
        VideoUNet(replace(CONTINUING, level_embedding="per_frame"))(torch.randn(1, 5, 4, 4, 6), t, level=t)
    with pytest.raises(ValueError, match="a latent of 3 x 6, expected multiples of 2"):
        VideoUNet(VIDEO_UNET)(torch.randn(1, 4, 4, 3, 6), t)
