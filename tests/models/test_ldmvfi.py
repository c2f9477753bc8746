"""LDMVFI: any size of frames, reproducible samples, both stages of training, its options."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vfikit.diffusion import Sampling, published_times
from vfikit.models import LDMVFIConfig, build

from .toys import AUTOENCODER, LDMVFI, UNET, pair, toy


def trio(height: int, width: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    frame0, frame1 = pair(height, width, batch, dtype)
    return [frame0, (frame0 + frame1) / 2, frame1]


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16), (17, 33), (31, 8)], ids=str)
def test_any_size(size: tuple[int, int]) -> None:
    frame = toy("ldmvfi")(*pair(*size))
    assert frame.shape == (1, 3, *size)
    assert frame.isfinite().all()


def test_a_batch_is_its_frames() -> None:
    net, (frame0, frame1) = toy("ldmvfi", torch.float64), pair(20, 36, batch=3, dtype=torch.float64)
    together = net(frame0, frame1)
    alone = torch.cat([net(frame0[i : i + 1], frame1[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_samples_are_reproducible() -> None:
    """The same without a generator and with an equal one; others with another, and for every item of a batch."""
    net, (frame0, frame1) = toy("ldmvfi"), pair(16, 24)
    known = net.prepare(frame0, frame1)

    def latent(seed: int) -> Tensor:
        return net.sample(known, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(net.sample(known), net.sample(known))
    assert torch.equal(latent(1), latent(1))
    assert not torch.equal(latent(1), latent(2))
    twice = net.prepare(frame0.expand(2, -1, -1, -1), frame1.expand(2, -1, -1, -1))
    first, second = net.sample(twice, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(first, second)
    first, second = net.sample(twice)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(net.interpolate(frame0, frame1), net(frame0, frame1).clamp(0, 1).detach())
    assert not torch.equal(net.sample(known, steps=5), net.sample(known))


def test_few_steps_begin_in_noise() -> None:
    """Other numbers than the config's own start at the last time and add none; the published 200 stay as published."""
    published = LDMVFIConfig().sampling
    assert published == Sampling("ddim", 200, 1.0, "published")
    schedule = toy("ldmvfi").schedule
    for steps in (None, 200):
        times = published.taking(steps).scheduler(schedule).timesteps
        assert published.taking(steps) == published
        assert torch.equal(times, published_times(200))
    for steps in (1, 2, 4, 50):
        few = published.taking(steps)
        assert few.eta == 0
        assert few.scheduler(schedule).timesteps[0] == 999
        assert len(few.scheduler(schedule).timesteps) == steps
    assert published.taking(sampler="unipc") == replace(published, sampler="unipc")

    net, seen = build(replace(LDMVFI, sampling=published)).eval(), []
    net.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1][0])))
    net.interpolate(*pair(8, 8), steps=2)
    assert seen == [999, 499]
    seen.clear()
    net.interpolate(*pair(8, 8), steps=200)
    assert seen == published_times(200).tolist()


def test_only_the_middle() -> None:
    net, frames = toy("ldmvfi"), pair(16, 16)
    with pytest.raises(ValueError, match=r"LDMVFINet: t is 0\.25, expected 0\.5"):
        net.interpolate(*frames, 0.25)
    assert net.interpolate(*frames, 0.25, bisections=2).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="LDMVFINet: frame1 is"):
        net(frames[0], frames[1][..., 1:])


def test_a_new_net_averages() -> None:
    """Kernels start at the pixel itself, the mask at one half, the residual near zero."""
    torch.manual_seed(0)
    frame0, frame1 = pair(32, 48)
    frame = build(LDMVFI).interpolate(frame0, frame1)
    assert (frame - (frame0 + frame1) / 2).abs().mean() < 0.02
    assert (frame - frame0).abs().mean() > 0.05


def test_a_frame_is_encoded_once() -> None:
    net, calls = toy("ldmvfi"), []
    frames = [frame for i in range(2) for frame in pair(16, 16, seed=i)]
    expected = [net.interpolate(a, b) for a, b in pairwise(frames)]
    net.autoencoder.encoder.register_forward_hook(lambda *_: calls.append(1))
    interpolate = net.in_sequence()
    made = [interpolate(a.clone(), b.clone()) for a, b in pairwise(frames)]
    assert len(calls) == len(frames)
    assert all(torch.equal(a, b) for a, b in zip(made, expected))
    reused = frames[0].clone()  # a reader may put every frame into the same memory
    interpolate(reused, frames[1])
    reused.copy_(frames[2])
    assert torch.equal(interpolate(reused, frames[3]), expected[2])
    assert torch.equal(interpolate(frames[2], frames[3], 0.25, 2), net.interpolate(frames[2], frames[3], 0.25, 2))


@pytest.mark.parametrize("factor", [2, 4, 8, 32])
def test_real_frames_are_encoded_once_where_gaps_are_halved(factor: int) -> None:
    """And frames in between once, if at all: the last halving makes none that another needs."""
    net, encoded = toy("ldmvfi"), []
    frames = [frame for i in range(2) for frame in pair(16, 16, seed=i)]
    net.autoencoder.encoder.register_forward_hook(lambda _, inputs, output: encoded.append(inputs[0]))
    interpolate = net.in_sequence()

    def halved(low: Tensor, high: Tensor, levels: int) -> None:
        middle = interpolate(low, high)
        if levels > 1:
            halved(low, middle, levels - 1)
            halved(middle, high, levels - 1)

    for low, high in pairwise(frames):
        halved(low, high, factor.bit_length() - 1)
    assert len(encoded) == len(frames) + 3 * (factor // 2 - 1)


def test_one_pair_at_many_times_is_encoded_once() -> None:
    net, calls = toy("ldmvfi"), []
    frame0, frame1 = pair(16, 16)
    real = net.autoencoder.encoder.register_forward_hook(
        lambda _, inputs, output: calls.extend(
            torch.equal(inputs[0][..., :16, :16], 2 * x - 1) for x in (frame0, frame1)
        )
    )
    interpolate = net.in_sequence()
    made = [interpolate(frame0, frame1, t / 8, 3) for t in range(9)]
    assert sum(calls) == 2
    real.remove()
    assert all(torch.equal(x, net.interpolate(frame0, frame1, t / 8, 3)) for t, x in enumerate(made))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_frames_of_another_type_in_a_row(dtype: torch.dtype) -> None:
    net, frames = toy("ldmvfi"), pair(16, 24, dtype=dtype)
    made = net.in_sequence()(*frames)
    assert made.dtype == dtype
    assert torch.equal(made, net.interpolate(*frames))


def test_every_parameter_learns() -> None:
    """The autoencoder from a frame, the denoiser from noise; neither gives the other a gradient."""
    net, frames = toy("ldmvfi").train(), trio(33, 40, batch=2)
    made = net.reconstruct(*frames)
    assert made.decoded.frame.shape == frames[1].shape
    residual = made.decoded.maps["residual"][..., :33, :40] / 2
    torch.testing.assert_close(sum(made.decoded.sampled) + residual, made.decoded.frame)
    (made.decoded.frame.square().mean() + made.codebook_loss).backward()
    idle = [key for key, p in net.autoencoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {idle}"
    assert all(p.grad is None for p in net.denoiser.parameters())
    net.zero_grad()
    seen = net.denoise(*frames, torch.tensor([3, 900]), torch.Generator().manual_seed(0))
    assert seen.prediction.shape == seen.noise.shape == seen.noisy.shape
    (seen.prediction - seen.noise).square().mean().backward()
    idle = [key for key, p in net.denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {idle}"
    assert all(p.grad is None for p in net.autoencoder.parameters())


def test_noise_is_that_of_the_schedule() -> None:
    net, frames = toy("ldmvfi", torch.float64), trio(16, 16, dtype=torch.float64)
    latent = net.encode(frames[1]).latent
    t = torch.tensor([500])
    seen = net.denoise(*frames, t, torch.Generator().manual_seed(0))
    kept = net.schedule.alphas_cumprod[500]
    torch.testing.assert_close(seen.noisy, kept.sqrt() * latent + (1 - kept).sqrt() * seen.noise)


ABLATIONS = {
    "f8": replace(LDMVFI, autoencoder=replace(AUTOENCODER, multipliers=(1, 2, 2))),
    "f16": replace(LDMVFI, autoencoder=replace(AUTOENCODER, multipliers=(1, 1, 2, 2))),
    "f64": replace(LDMVFI, autoencoder=replace(AUTOENCODER, multipliers=(1,) * 6, resolution=64)),
    "c16": replace(LDMVFI, denoiser=replace(UNET, width=16)),
    "maxca": replace(LDMVFI, denoiser=replace(UNET, in_channels=3, attention="max_cross")),
    "cross": replace(LDMVFI, denoiser=replace(UNET, in_channels=3, attention="cross")),
    "full": replace(LDMVFI, denoiser=replace(UNET, attention="full", resample_blocks=True, scale_shift=True)),
    "v2": replace(LDMVFI, autoencoder=replace(AUTOENCODER, direct=True)),
    "v1": replace(LDMVFI, autoencoder=replace(AUTOENCODER, direct=True, cross_attention=False)),
    "vanilla": replace(LDMVFI, autoencoder=replace(AUTOENCODER, attention="vanilla", attention_resolutions=(8,))),
    "linear": replace(LDMVFI, autoencoder=replace(AUTOENCODER, attention="linear")),
    "none": replace(LDMVFI, autoencoder=replace(AUTOENCODER, attention="none", cross_attention=False)),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations(name: str) -> None:
    """Each option runs whole, trains, and changes what it should."""
    config = ABLATIONS[name]
    net = build(config)
    frames = trio(64, 64) if name == "f64" else trio(20, 30)
    assert net.interpolate(frames[0], frames[2]).shape == frames[0].shape
    made = net.reconstruct(*frames)
    assert made.decoded.frame.shape == frames[0].shape
    assert len(made.decoded.sampled) == (0 if config.autoencoder.direct else 2)
    seen = net.denoise(*frames, torch.tensor([10]))
    assert seen.prediction.shape[2] == net.padded(frames[0]).shape[2] // config.autoencoder.factor
    (made.decoded.frame.mean() + seen.prediction.mean()).backward()


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_published_ablations_take_crops_of_256(side: int) -> None:
    """f = 8 to 64 on ``meta``, as published: windows by the size of the latent."""
    levels = {8: 3, 16: 4, 32: 5, 64: 6}[side]
    config = replace(
        build("ldmvfi", "small").config,
        autoencoder=replace(AUTOENCODER, multipliers=(1,) * levels, resolution=256, window=8),
        denoiser=replace(UNET, multipliers=(1, 2, 4), window=min(256 // side // 4, 8)),
    )
    with torch.device("meta"):
        net = build(config)
        assert net.multiple == 256
        assert net(torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)


def test_unknown_attention() -> None:
    with pytest.raises(ValueError, match="VQFIGAN: attention is 'mix'"):
        build(replace(LDMVFI, autoencoder=replace(AUTOENCODER, attention="mix")))
    with pytest.raises(ValueError, match="DenoisingUNet: attention is 'mix'"):
        build(replace(LDMVFI, denoiser=replace(UNET, attention="mix")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    frames = pair(24, 40)
    exact = build(LDMVFI).eval()
    low = build(LDMVFI)
    low.load_state_dict(exact.state_dict())
    made = low.to(dtype).interpolate(*(frame.to(dtype) for frame in frames))
    assert made.dtype == dtype
    assert (made.float() - exact.interpolate(*frames)).abs().mean() < 0.02


def test_autocast() -> None:
    net, frames = toy("ldmvfi"), trio(24, 40)
    with torch.autocast("cpu", torch.bfloat16):
        made = net.reconstruct(*frames)
        loss = made.decoded.frame.square().mean() + made.codebook_loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.autoencoder.parameters())


@pytest.mark.parametrize("part", [pytest.param("autoencoder", marks=pytest.mark.slow), "denoiser"])
def test_compiles(part: str) -> None:
    """One graph, forward and backward, the same numbers. (Sampling is a loop over diffusers' scheduler.)"""
    torch._dynamo.reset()
    flat = replace(AUTOENCODER, multipliers=(1,)), replace(UNET, multipliers=(1,), attention_scales=())
    module = getattr(build(replace(LDMVFI, autoencoder=flat[0], denoiser=flat[1])).double(), part)
    frames = [2 * frame - 1 for frame in trio(8, 12, dtype=torch.float64)]
    inputs = frames if part == "autoencoder" else [torch.ones(1, 9, 4, 8, dtype=torch.float64), torch.tensor([7])]
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=False)
    results = []
    for run in (module, compiled):
        module.zero_grad()
        out = run(*inputs)
        loss = out.square().mean() if part == "denoiser" else out.decoded.frame.square().mean() + out.codebook_loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in module.parameters())])
    for eager, same in zip(*results, strict=True):
        torch.testing.assert_close(same, eager, rtol=1e-9, atol=1e-9)


def test_empty_batch_and_published_padding() -> None:
    net, (frame0, frame1) = toy("ldmvfi"), pair(200, 232)
    assert net(frame0[:0], frame1[:0]).shape == (0, 3, 200, 232)
    made = net.interpolate(frame0[..., :40], frame1[..., :40])
    assert made.shape == (1, 3, 200, 40)
    known = net.prepare(frame0, frame1, published=True)
    assert known.frame0.shape == (1, 3, 256, 256)
    expected = net.decode(net.sample(known), known).clamp(0, 1)
    torch.testing.assert_close(net.interpolate(frame0, frame1, published_padding=True), expected.detach())


def test_warped() -> None:
    """Under the masks and summed, both guesses are what was sampled; a net that makes the frame directly has none."""
    net, frames = build(LDMVFI).double(), trio(18, 22, dtype=torch.float64)
    made = net.reconstruct(*frames, warp=True)
    assert [w.shape for w in made.warped] == [frames[0].shape] * 2
    for frame, guess in zip((frames[0], frames[2]), made.warped):
        assert (guess - frame).abs().mean() < 0.1  # a new net samples the pixel itself
    assert net.reconstruct(*frames).warped == ()
    assert build(ABLATIONS["v2"]).double().reconstruct(*frames, warp=True).warped == ()
