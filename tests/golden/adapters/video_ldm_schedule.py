"""What Video-LDM is conditioned on, which frames it makes when, and what its upsampler sees."""

import re

import torch

from vfikit.diffusion import Schedule, betas, guide
from vfikit.models.video_ldm import schedule as ours

from .case import Case

DRIVING = Schedule(betas("sqrt_linear", 1000, 1e-4, 2e-2))
STABLE = Schedule(betas("linear", 1000, 0.00085, 0.012))
EVERY = 37  # of the schedules, this entry is stored


def conditioning(case: Case) -> None:
    latent = case.take("latent")
    frames = latent.shape[1]
    for name in case.outputs("mask_"):
        what = name.removeprefix("mask_")
        count = case.arrays[name].shape[1]
        known = (0, count - 1) if what == "interpolation" else tuple(range(int(what.removeprefix("prediction"))))
        found = ours.condition(latent[:, :count], ours.known_mask(count, known))
        case.check(name, found[:, :, latent.shape[2] :])
        case.check(next(n for n in case.arrays if n.endswith(f"condition_{what}")), found)
    predictions = (case.take("prediction_uncond"), case.take("prediction_cond"))
    case.check("context_guided", guide(*predictions, float(case.take("const_scale"))))
    t, noise = case.take("timestep").expand(len(latent)), case.take("noise")
    noisy, velocity = DRIVING.add_noise(latent, noise, t), DRIVING.velocity(latent, noise, t)
    case.check("noisy", noisy, double=2e-6)
    case.check("v_target", velocity, double=2e-6)
    recovered = DRIVING.noise_of(noisy, velocity, t)
    case.check("recovered_noise", recovered, double=2e-6)
    case.check("recovered_latent", DRIVING.predict_start(noisy, recovered, t), double=5e-6)
    case.check("linear_alphas_cumprod_f64", DRIVING.alphas_cumprod[::EVERY], all=1e-6)
    case.check("scaled_linear_alphas_cumprod_f64", STABLE.alphas_cumprod[::EVERY], all=1e-6)
    assert frames == noisy.shape[1]


def upsampler(case: Case) -> None:
    augmented = ours.noisy_low_resolution(
        DRIVING, case.take("low_resolution"), case.take("noise"), case.take("noise_level")
    )
    case.check("augmented", augmented, double=2e-6)
    sample = case.take("noisy_high_resolution_sample")
    # only every fourth pixel of the noisy video is stored; the others have no part in those compared
    high = sample.repeat_interleave(4, -2).repeat_interleave(4, -1)
    case.check("concatenated_sample", ours.upsampler_input(high, augmented)[..., ::4, ::4], double=2e-6)


def long_video(case: Case) -> None:
    keys = int(case.take("keys"))
    counts = [keys, ours.interpolated(keys), ours.interpolated(ours.interpolated(keys))]
    case.check("counts", torch.tensor(counts), all=0, double=0)
    for name, passes in (("key_index_in_7_5fps", 1), ("key_index_in_30fps", 2)):
        case.check(name, torch.arange(keys) * ours.BETWEEN**passes, all=0, double=0)
    case.check("fps", torch.tensor([ours.KEY_FPS * ours.BETWEEN**i for i in range(3)]), all=0, double=0)
    case.check("pairs_7_5fps", torch.tensor(ours.pairs(counts[0])), all=0, double=0)
    case.check("pairs_30fps_sample", torch.tensor(ours.pairs(counts[1])), all=0, double=0)
    for name in case.outputs("windows_"):
        found = re.fullmatch(r"windows_(\d+)", name)
        assert found
        length = int(case.arrays[name][0, 1])
        case.check(name, torch.tensor(ours.windows(int(found[1]), length)), all=0, double=0)
