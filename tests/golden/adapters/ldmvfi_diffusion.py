"""LDMVFI's diffusion: schedules, losses, whole trajectories, the running average, two frames to the frame between."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vfikit.checkpoints import load_published
from vfikit.diffusion import EMA, SCHEDULES, Sampling, Schedule, betas, published_times, trajectory
from vfikit.models.ldmvfi import LDMVFIConfig, LDMVFINet
from vfikit.models.ldmvfi.net import Pair

from .case import Case
from .ldmvfi_nets import autoencoder_config, compare, picture, unet_config
from .weights import key_file

LATENT = 1e-4  # of the largest value, which untrained weights drive into the hundreds


def schedule(case: Case) -> None:
    """All buffers, the tables of DDIM with any number of steps, the betas by every name."""
    known = Schedule(betas("linear", 1000, 0.0015, 0.0195))
    kept = known.alphas_cumprod
    derived = {
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
    }
    for name in case.outputs("expect_"):
        base = name.removeprefix("expect_")
        if base in derived:
            case.check(name, derived[base], all=1e-6)
        elif found := re.fullmatch(r"ddim(\d+)_(timesteps|alphas|alphas_prev|sigmas_eta([\d.]+))", base):
            value = ddim_table(known, int(found[1]), found[2], float(found[3] or 0))
            case.check(name, value, all=5e-6, double=5e-6)  # the published tables start from float32 numbers
        elif base.startswith("betas_") and base.removeprefix("betas_") in SCHEDULES:
            value = betas(base.removeprefix("betas_"), len(case.arrays[name]))
            case.check(name, value, most=1e-12, all=1e-12, double=1e-12)
        elif hasattr(known, base):
            # the published weights of the bound are computed from float32 buffers
            allowed = 1e-5 if base == "lvlb_weights" else 1e-6
            case.check(name, getattr(known, base), all=allowed, double=allowed)


def ddim_table(known: Schedule, steps: int, what: str, eta: float) -> Tensor:
    """By diffusers' own reckoning of each step's variance."""
    scheduler = Sampling("ddim", steps, eta, "published").scheduler(known)
    times = scheduler.timesteps.flip(0)
    if what == "timesteps":
        assert torch.equal(times.flip(0), published_times(steps))
        return times
    earlier = times - 1000 // steps
    previous = [scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod for t in earlier.tolist()]
    if what == "alphas":
        return scheduler.alphas_cumprod[times]
    if what == "alphas_prev":
        return torch.stack(previous)
    return torch.stack([eta * scheduler._get_variance(int(t), int(p)).sqrt() for t, p in zip(times, earlier)])


def losses(case: Case) -> None:
    net, known = network(case), Schedule(betas("linear", 1000, *betas_of(case)))
    z, condition, noise, t = (case.take(f"input_{name}") for name in ("z", "cond", "noise", "t"))
    noisy = known.add_noise(z, noise, t)
    with torch.no_grad():
        output = net.denoiser(torch.cat([noisy, condition], dim=1), t)
    loss, bound = known.loss(output, noise, t)
    mean, variance, log_variance = known.posterior(z, noisy, t)
    found = {"x_noisy": noisy, "model_output": output, "loss": loss, "loss_simple": loss, "loss_vlb": bound}
    found |= {"posterior_mean": mean, "posterior_variance": variance, "posterior_log_variance": log_variance}
    found["predict_start"] = known.predict_start(noisy, output, t)
    compare(case, found, LATENT)


def ddim(case: Case) -> None:
    """Every eta, with the x_0 of each step as predicted, or as the nearest codes."""
    net, condition = network(case), case.take("input_cond")
    x, noise = case.take("input_x_T"), case.take("input_step_noise")
    for name in case.outputs("expect_sample_eta"):
        found = re.fullmatch(r"expect_sample_(eta([\d.]+)(_quantized)?)", name)
        assert found, name
        codes = (lambda start: net.autoencoder.quantize(start).latent) if found[3] else None
        with torch.no_grad():
            steps = list(
                trajectory(
                    lambda x, t: net.denoiser(torch.cat([x, condition], dim=1), t),
                    x,
                    net.schedule,
                    Sampling("ddim", case.meta["S"], float(found[2]), "published"),
                    noise,
                    codes,
                )
            )
        predicted = torch.stack([step.predicted for step in steps])
        case.check(name, steps[-1].sample, most=LATENT, double=LATENT)
        case.check(f"expect_pred_x0_{found[1]}", predicted, most=LATENT, double=LATENT)


def ddpm(case: Case) -> None:
    """The last steps of ancestral sampling."""
    net, condition = network(case), case.take("input_cond")
    with torch.no_grad():
        *_, end = trajectory(
            lambda x, t: net.denoiser(torch.cat([x, condition], dim=1), t),
            case.take("input_x_T"),
            net.schedule,
            Sampling("ancestral", 1000),
            case.take("input_step_noise"),
            last=case.meta["timesteps"],
        )
    case.check("expect_sample", end.sample, most=LATENT, double=LATENT)


def ema(case: Case) -> None:
    weights, biases = case.take("input_weights"), case.take("input_biases")
    module = nn.Linear(weights.shape[2], weights.shape[1]).to(case.dtype)

    def become(i: int) -> None:
        module.load_state_dict({"weight": weights[i], "bias": biases[i]})

    become(0)
    average = EMA(module)
    found: dict[str, list[Tensor]] = {"weight": [], "bias": []}
    for i in range(1, len(weights)):
        become(i)
        average.update(module)
        for name, values in found.items():
            values.append(average.average[name].clone())
    for name, values in found.items():
        case.check(f"expect_ema_{name}", torch.stack(values))


def pipeline(case: Case) -> None:
    """Two frames, any size, to the frame between: padding, encoding, sampling, decoding, 8 bits."""
    net = network(case)
    frames = [(picture(case, name) + 1) / 2 for name in ("prev", "next")]
    height, width = frames[0].shape[2:]
    sampling = Sampling("ddim", case.meta["S"], 1.0, "published")
    with torch.no_grad():
        pair = net.prepare(*frames, published=True)
        assert [pair.frame0.shape[2] - height, pair.frame0.shape[3] - width] == case.meta["padding"]
        latent = denoised(net, pair, sampling, case.take("input_x_T"), case.take("input_step_noise"))
        frame = net.decode(latent, pair)
    pixels = (frame.clamp(0, 1) * 255).round()[..., ::2, ::2]
    taps = {
        "conditioning": torch.cat([pair.encoded0.latent, pair.encoded1.latent], dim=1),
        "latent": latent,
        "latent_indices": net.autoencoder.quantize(latent).indices,
        "decoded": 2 * frame - 1,
    }
    stored = case.take("expect_frame_uint8")
    rounded = (pixels - stored).abs() == 1  # to the other side of a half, which few pixels lie near
    case.check("expect_frame_uint8", pixels if rounded.double().mean() > 0.01 else torch.where(rounded, stored, pixels))
    compare(case, taps, LATENT)


def denoised(net: LDMVFINet, pair: Pair, sampling: Sampling, start: Tensor, noise: Tensor) -> Tensor:
    *_, end = trajectory(lambda x, t: net.predict_noise(x, t, pair), start, net.schedule, sampling, noise)
    return end.sample


def network(case: Case) -> LDMVFINet:
    """The reduced whole model, its checkpoint read as a published one."""
    denoiser = unet_config(case.meta["unet_config"])
    published = key_file(case, lambda found: "unet" in found and unet_config(found["unet"]) == denoiser)
    if "first_stage" in case.meta:
        wanted, found = (autoencoder_config(x["first_stage"]) for x in (case.meta, published.config))
        assert wanted == found, f"{case.name}: {wanted}, its key file has {found}"
    config = LDMVFIConfig(autoencoder_config(published.config["first_stage"]), denoiser)
    net = LDMVFINet(replace(config, beta_start=betas_of(case)[0], beta_end=betas_of(case)[1]))
    state: dict[str, Tensor] = published.state_dict(published.gain)
    twice = {key for key in state if key.startswith("cond_stage_model.")}
    state = {key: value for key, value in state.items() if key not in twice}
    ours = net.state_dict()
    counters = {theirs: ours[key] for theirs, key in net.published_keys() if key.endswith("num_batches_tracked")}
    load_published(net, {**state, **counters})
    return net.to(case.dtype).eval()


def betas_of(case: Case) -> tuple[float, float]:
    settings: dict[str, Any] = case.meta.get("diffusion") or case.published("ldmvfi.ldm_small").config
    assert settings["timesteps"] == 1000
    return settings["linear_start"], settings["linear_end"]
