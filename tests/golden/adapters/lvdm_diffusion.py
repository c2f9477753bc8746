"""LVDM's diffusion: schedules, losses, trajectories, clips with given latents, long videos, decoding in windows."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vfikit.diffusion import EMA, Sampling, Schedule, betas, trajectory
from vfikit.models.lvdm.conditional import Given, noisy_clip, pasting, prediction, sample_clip
from vfikit.models.lvdm.long_video import between_keys, decoded, key_latents, lengths, published_pairs, windows

from .case import Case
from .ldmvfi_diffusion import ddim_table
from .lvdm_nets import SKY_SCALE, SKY_SHIFT, close, video_autoencoder, video_unet

LATENT = 3e-5  # of the largest value, which untrained weights drive into the hundreds
SKY = Schedule(betas("linear", 1000, 0.0015, 0.0155))
SCHEDULES = {
    "sky": SKY,
    "text2video": Schedule(betas("linear", 1000, 0.00085, 0.012)),
    "cosine": Schedule(betas("cosine", 1000)),
    "sqrt_linear": Schedule(betas("sqrt_linear", 1000, 1e-4, 2e-2)),
}
LEVEL = 100
GUIDANCE = {"noguid": 1.0, "cfg": 1.5, "cfg_original": 1.1}  # e + 0.1 (e - e_u) is 1.1 of what others count
STEP = 500


class Drawn:
    """Stored noise, flat, in the order in which it is drawn."""

    def __init__(self, noise: Tensor) -> None:
        self.left = noise

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        count = torch.Size(shape).numel()
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn.view(shape)


def schedule(case: Case) -> None:
    """Every 13th entry of the tables; the tables of DDIM."""
    for name, known in SCHEDULES.items():
        case.check(f"{name}_betas_f64", known.betas[::13], double=1e-12)
        case.check(f"{name}_alphas_cumprod_f64", known.alphas_cumprod[::13], double=1e-12)
    for name in sorted(case.untouched):
        kind, _, what = name.removeprefix("const_").partition("_")
        if not kind.startswith(("quad", "ddim")):
            continue
        if kind.startswith("quad"):
            case.check(
                name, Sampling("ddim", int(kind.removeprefix("quad")), spacing="quad").scheduler(SKY).timesteps.flip(0)
            )
        else:
            eta = float(what.removeprefix("eta").partition("_")[0]) if what.startswith("eta") else 0.0
            what = "sigmas" if what.startswith("eta") else what
            case.check(name, ddim_table(SKY, int(kind.removeprefix("ddim")), what, eta), all=2e-6, double=2e-6)


def ema(case: Case) -> None:
    updates = case.take("updates")
    module = nn.Linear(updates.shape[2], updates.shape[1], bias=False).to(case.dtype)
    module.weight.data.copy_(case.take("initial"))
    average, found = EMA(module), []
    for update in updates:
        module.weight.data.add_(update)
        average.update(module)
        found.append(average.average["weight"].clone())
    case.check("shadow", torch.stack(found))


def lengths_of_videos(case: Case) -> None:
    stored = case.take("frames_latents_keys_steps")
    case.check(
        "frames_latents_keys_steps", torch.tensor([[frames, *lengths(frames)] for frames in stored[:, 0].tolist()])
    )


def diffusion_loss(case: Case) -> None:
    unet = video_unet(case, case.published("lvdm_unet_small"))
    latent, noise, t = (case.take(name) for name in ("latent", "noise", "timesteps"))
    noisy = noisy_clip(SKY, latent, t, noise)
    mean, variance, log_variance = SKY.posterior(latent, noisy.x, t)
    close(case, "noisy", noisy.x)
    close(case, "const_recovered", SKY.predict_start(noisy.x, noise, t))
    close(case, "posterior_mean", mean)
    close(case, "const_posterior_variance", variance)
    close(case, "const_posterior_log_variance", log_variance)
    with torch.no_grad():
        predicted = unet(noisy.x, t)
        close(case, "const_loss_l2", SKY.loss(predicted, noise, t)[0])
        loss, bound = SKY.loss(predicted, noise, t, "l1")
        close(case, "const_loss_l1", loss)
        close(case, "const_loss_vlb", bound)

        unet = video_unet(case, case.published("lvdm_unet_prediction_small"))
        given, level = case.take("mask"), case.take("noise_level")
        clip = noisy_clip(SKY, latent, t, case.take("noise_target"), given, level, case.take("noise_cond"))
        close(case, "conditional_noisy", clip.x[:, :-1])
        close(case, "conditional_target", clip.target)
        loss, _ = SKY.loss(unet(clip.x, t, level=level), clip.target, t, "l1")
        close(case, "const_conditional_loss", loss)


def sampling(case: Case) -> None:
    unet = video_unet(case, case.published("lvdm_unet_small"))
    with torch.no_grad():
        for eta in sorted(
            int(name[8:].partition("_")[0]) for name in case.outputs("ddim_eta") if name.endswith("_noise")
        ):
            start, *noise = case.take(f"ddim_eta{eta}_noise")
            first, *_, last = trajectory(unet, start, SKY, Sampling("ddim", len(noise), eta), noise)
            latent(case, f"ddim_eta{eta}_x_first", first.sample)
            latent(case, f"ddim_eta{eta}_pred_x0_first", first.predicted)
            latent(case, f"ddim_eta{eta}_output", last.sample)
        name = next(name for name in case.outputs("ddpm") if name.endswith("_noise")).removesuffix("_noise")
        start, *noise = case.take(f"{name}_noise")
        *_, last = trajectory(unet, start, SKY, Sampling("ancestral", 1000), noise, last=len(noise))
        latent(case, f"{name}_output", last.sample)
        latent(case, f"{name}_decoded", decode(case, last.sample)[..., ::4, ::4])


def conditional_sampling(case: Case) -> None:
    for kind, name, places in (("pred", "cond_latent", (0,)), ("interp", "interp_cond_latent", (0, -1))):
        shape = tuple(case.arrays[f"{kind}_noguid_output"].shape)
        unet = video_unet(case, case.published("lvdm_unet_prediction_small"), shape[2])
        given = Given(case.take(name), places, LEVEL)
        stored = case.take(f"{kind}_noise")
        # drawn are the perturbation of what is given, the start, and one clip a step
        steps = Sampling("ddim", (stored.numel() - given.latents.numel()) // torch.Size(shape).numel() - 1, 1.0)
        for guidance, scale in GUIDANCE.items():
            with torch.no_grad():
                made = sample_clip(unet, SKY, steps, shape, Drawn(stored), given, guidance=scale)
            latent(case, f"{kind}_{guidance}_output", made)
        if kind == "pred":
            ancestral_step(case, unet, given)


def ancestral_step(case: Case, unet: Any, given: Given) -> None:
    drawn = Drawn(case.take("step_noise"))
    paste, x = pasting(SKY, given, drawn), case.take("step_input")
    latent(case, "step_input_after", paste(x))
    model_fn = prediction(unet, given, guidance=GUIDANCE["cfg_original"])
    noise = iter(lambda: drawn(tuple(x.shape)), None)
    with torch.no_grad():
        ancestral = Sampling("ancestral", 1000)
        step = next(trajectory(model_fn, x, SKY, ancestral, noise, paste=paste, last=STEP + 1))
    assert step.t == STEP
    latent(case, "step_output", step.sample)


def long_video(case: Case) -> None:
    keys, (length, between, steps) = {}, sizes(case)
    for how in ("published", "corrected"):
        frames = case.arrays[f"keys_{how}"].shape[2]
        sampler = clips(case, "keys_noise", length, steps)
        keys[how] = torch.cat(list(islice(key_latents(sampler, mark_all=how == "published"), frames)), dim=2)
        latent(case, f"keys_{how}", keys[how])
    known = case.take("keys_corrected")
    sampler = clips(case, "interpolated_noise", between, steps)
    made = torch.cat(list(between_keys(sampler, published_pairs(known).split(1, 2))), 2)
    latent(case, "interpolated_published", made)
    latent(case, "video_published", decode(case, case.take("interpolated_published"))[..., ::4, ::4])
    count = case.arrays["interpolated_all_pairs"].shape[2] // (between - 1) + 1
    pairs = between_keys(clips(case, "interpolated_all_pairs_noise", between, steps), known[:, :, :count].split(1, 2))
    latent(case, "interpolated_all_pairs", torch.cat(list(pairs), dim=2))


def sizes(case: Case) -> tuple[int, int, int]:
    """The lengths of a clip of keys and of one between two keys, and the steps that each takes.

    They follow from how much noise is stored: a clip draws itself at the start and at each step, and once what it is
    given: nothing for the first clip, its first latent for the later ones, both ends between two keys.
    """
    plane = case.arrays["keys_corrected"][:, :, 0].size
    drawn = {name: case.arrays[f"{name}_noise"].size // plane for name in ("keys", "interpolated_all_pairs")}
    length = case.published("lvdm_unet_prediction_small").config["temporal_length"]
    made = -(-(case.arrays["keys_corrected"].shape[2] - 1) // (length - 1))
    steps = (drawn["keys"] - (made - 1)) // (made * length) - 1
    moves = case.arrays["interpolated_all_pairs"].shape[2] - 1
    for between in range(2, moves + 2):
        pairs = moves // (between - 1)
        if pairs * (2 + between * (1 + steps)) == drawn["interpolated_all_pairs"]:
            return length, between, steps
    raise AssertionError(f"{case.name}: no clip between two keys draws {drawn['interpolated_all_pairs']} latents")


def clips(case: Case, noise: str, length: int, steps: int) -> Any:
    """What samples clips of ``length`` latents from the stored noise."""
    unet = video_unet(case, case.published("lvdm_unet_prediction_small"), length)
    n, channels, _, *size = case.arrays["keys_corrected"].shape
    drawn = Drawn(case.take(noise))

    @torch.no_grad()
    def one(given: Given | None) -> Tensor:
        shape = (n, channels, length, *size)
        given = None if given is None else given._replace(level=LEVEL)
        guidance = GUIDANCE["cfg_original"]
        return sample_clip(unet, SKY, Sampling("ddim", steps, 1.0), shape, drawn, given, guidance=guidance)

    return one


def overlapped_decode(case: Case) -> None:
    net = video_autoencoder(case, case.published("lvdm_autoencoder_small"))
    latents, most = case.take("latent"), int(case.take("max_latent_frames"))
    overlap, total = int(case.take("overlap")), latents.shape[2]
    case.check("windows", torch.tensor(windows(total, most, overlap)))

    def pieces() -> Iterator[Tensor]:
        yield from latents.split([1, total - 2, 1], dim=2)

    with torch.no_grad():
        for name, size, shared in (
            ("output", most, overlap),
            ("split_without_overlap", most, 0),
            ("whole", total, 0),
        ):
            made = torch.cat(list(decoded(net.decode, pieces(), size, shared)), dim=2)
            latent(case, name, made[..., ::2, ::2])


def decode(case: Case, scaled: Tensor) -> Tensor:
    net = video_autoencoder(case, case.published("lvdm_autoencoder_small"))
    with torch.no_grad():
        return net.decode(scaled / SKY_SCALE - SKY_SHIFT)


def latent(case: Case, name: str, value: Tensor) -> None:
    case.check(name, value, most=LATENT, all=1e-4, double=LATENT)
