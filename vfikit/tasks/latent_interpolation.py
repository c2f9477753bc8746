"""What training, evaluating and compressing need to know of LDMVFI: two networks, two losses, random times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..compress import distill
from ..data import Triplet, Triplets
from ..files import InputError, atomic
from ..inference import Interpolate
from ..models.ldmvfi.autoencoder import Reconstruction
from ..models.ldmvfi.net import Denoising
from . import interpolation
from .interpolation import Quality, batches, example, inputs, means, measure
from .task import Split

__all__ = [
    "DEFAULTS",
    "Losses",
    "batches",
    "distilled",
    "example",
    "inputs",
    "loss",
    "means",
    "measure",
    "quality",
    "reconstruction",
    "split",
]

STEPS = 4  # of denoising, at most: each of many takes as long, and what they change is small beside what a cut does
DEFAULTS = interpolation.DEFAULTS._replace(
    batch_size=4, crop=128, pool=200, steps=500, rule="sensitivity", ratio=None, macs=5.0, sampled=STEPS
)
LEAST_SHOWN = 0.5  # dB, from the bottom of a curve's picture to its top


class Losses(NamedTuple):
    """``total`` and its parts: of the autoencoder, frame and codebook; of the denoiser, noise."""

    total: Tensor
    frame: Tensor
    codebook: Tensor
    noise: Tensor


def loss(model: Any, batch: Triplet, terms: None = None) -> Losses:
    """Both stages at once: the mean absolute error of the frame from its own latent, the codebook, the noise."""
    made = model.reconstruct(*batch)
    seen = model.denoise(*batch, times(model, batch))
    frame = (made.decoded.frame.float() - batch.target).abs().mean()
    noise = (seen.prediction.float() - seen.noise).square().mean()
    return Losses(frame + made.codebook_loss + noise, frame, made.codebook_loss, noise)


def times(model: Any, batch: Triplet) -> Tensor:
    """A time for each item of the batch, uniform over the schedule."""
    return torch.randint(model.config.timesteps, (len(batch.target),), device=batch.target.device)


def distilled(model: Any, teacher: Any | None, batch: Triplet, share: float) -> Tensor:
    """The loss to the target, and ``share`` of what a teacher adds: its frames, what it warped, its noise.

    To the target it is Charbonnier's and 20 times the mean square, as PSNR is what compression is judged by. Both nets
    see the same times and noise. Without a teacher, the warped frames are drawn to the target.
    """
    t, seed = times(model, batch), int(torch.randint(2**62, ()))
    made, seen = both(model, batch, t, seed)
    total = distill(made.decoded.frame, batch.target) + made.codebook_loss
    total = total + 20 * (made.decoded.frame.float() - batch.target).square().mean()
    total = total + 0.1 * (seen.prediction.float() - seen.noise).square().mean()
    if share <= 0:
        return total
    if teacher is None:
        return total + share * distill([made.decoded.frame, *made.warped], [batch.target] * (1 + len(made.warped)))
    with torch.no_grad():
        wanted, known = both(teacher, batch, t, seed)
    alike = distill([made.decoded.frame, *made.warped], [wanted.decoded.frame, *wanted.warped])
    return total + share * (alike + 0.1 * (seen.prediction.float() - known.prediction.float()).square().mean())


def both(model: Any, batch: Triplet, t: Tensor, seed: int) -> tuple[Reconstruction, Denoising]:
    """Both networks' passes, the noise drawn from ``seed``."""
    noise = torch.Generator().manual_seed(seed)
    return model.reconstruct(*batch, warp=True), model.denoise(*batch, t, noise)


def methods(
    name: str, model: Any, steps: Sequence[int] = (), sampler: str | None = None, published_padding: bool = False
) -> dict[str, Interpolate]:
    """What is measured of a model: itself, and where ``steps`` are given, each of them and latents that say nothing.

    ``sampler`` becomes the model's own.
    """
    model.config = replace(model.config, sampling=model.config.sampling.taking(sampler=sampler))
    found: dict[str, Interpolate] = {name: partial(model, published_padding=published_padding)}
    if steps:
        found |= by_steps(model, steps, published_padding) | by_latent(model, published_padding)
    return found


def by_steps(model: Any, steps: Sequence[int], published_padding: bool = False) -> dict[str, Interpolate]:
    """Interpolation with each number of denoising steps, by what to call it; ``InputError`` for more than there are."""
    if (most := max(steps, default=0)) > model.config.timesteps:
        raise InputError(f"--steps: got {most}, expected at most {model.config.timesteps}")
    made = partial(model.interpolate, published_padding=published_padding)
    return {f"{n} step{'s' * (n > 1)}": partial(made, steps=n) for n in steps}


def by_latent(model: Any, published_padding: bool = False) -> dict[str, Interpolate]:
    """Interpolation with a latent that says nothing: how much the decoder makes of the two frames alone."""

    @torch.no_grad()
    def decoded(frame0: Tensor, frame1: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        pair = model.prepare(frame0, frame1, published=published_padding)
        frame: Tensor = model.decode(make(pair.encoded0.latent), pair)
        return frame.clamp(0, 1)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)

    return {"latent of zeros": partial(decoded, make=torch.zeros_like), "latent of noise": partial(decoded, make=noise)}


def draw_steps(steps: Sequence[int], means: dict[str, dict[str, float]], path: Path) -> None:
    """PSNR and seconds a frame against denoising steps; what the decoder reaches without a latent as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, quality = plt.subplots(figsize=(6, 4))
    named = {n: means[f"{n} step{'s' * (n > 1)}"] for n in sorted(steps)}
    quality.plot(named.keys(), [row["psnr"] for row in named.values()], "o-", label="sampled latent")
    for name, style in (("latent of zeros", "--"), ("latent of noise", ":")):
        quality.axhline(means[name]["psnr"], linestyle=style, color="gray", label=name)
    low, high = quality.get_ylim()
    wider = max(0.0, LEAST_SHOWN - (high - low)) / 2  # what no eye sees is to look like nothing
    quality.set(xscale="log", xlabel="denoising steps", ylabel="PSNR (dB)", ylim=(low - wider, high + wider))
    quality.ticklabel_format(axis="y", useOffset=False)
    quality.legend(loc="upper left")
    seconds = quality.twinx()
    seconds.plot(named.keys(), [row["seconds"] for row in named.values()], "s-", color="tab:red")
    seconds.set(ylabel="seconds a frame (red)", yscale="log")
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def split(
    spec: str,
    crop: int,
    size: tuple[int, int],
    pool: int,
    seed: int,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Split:
    """As of any interpolation; says how ``quality`` samples."""
    found = interpolation.split(spec, crop, size, pool, seed, watch)
    return found._replace(held_out=f"{found.held_out}, sampled in at most {STEPS} steps")


def quality(model: Any, data: Triplets, limit: int | None = None, steps: int = STEPS) -> Quality:
    """How well the model makes the middle of the first ``limit`` triplets (all: None) in at most so many steps."""
    device = next(model.parameters()).device
    made = partial(model.interpolate, steps=min(steps, model.config.sampling.steps))
    rows = list(measure(made, data, limit=limit, device=device))
    return Quality(**means(rows), per_image=rows)


def reconstruction(model: Any, data: Triplets, limit: int | None = None) -> Quality:
    """How well the autoencoder makes the middle of the first ``limit`` triplets from their own latents: a ceiling."""
    device, frames = next(model.parameters()).device, iter(range(len(data)))

    def from_its_own(frame0: Tensor, frame1: Tensor) -> Tensor:
        target = data[next(frames)].target[None].to(device)
        return model.reconstruct(frame0, target, frame1).decoded.frame.clamp(0, 1)

    rows = list(measure(from_its_own, data, limit=limit, device=device))
    return Quality(**means(rows), per_image=rows)
