"""Diffusion: schedules, noising and its posterior, the training loss, sampling over diffusers' schedulers.

A model predicts noise: ``model_fn(x, t)`` takes noisy samples (N, ...) and whole-number times (N,) in [0, T) and
returns the noise in them. Coefficients are computed in float64 and meet samples in the samples' type.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .ema import EMA as EMA  # its place for users

Noise = torch.Generator | Iterable[Tensor] | None

SCHEDULES = ("linear", "cosine", "sqrt_linear", "sqrt")


def betas(schedule: str = "linear", timesteps: int = 1000, start: float = 1e-4, end: float = 2e-2) -> Tensor:
    """(timesteps,), float64: how much noise each step adds. The names are latent diffusion's.

    "linear" is evenly spaced in the square root ("scaled_linear" elsewhere), "sqrt_linear" evenly spaced, "sqrt" its
    root, "cosine" that of arXiv:2102.09672, which has no use for ``start`` and ``end``.
    They are numbers even where a network is built on ``meta``.
    """
    match schedule:
        case "linear":
            return torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64, device="cpu") ** 2
        case "sqrt_linear":
            return torch.linspace(start, end, timesteps, dtype=torch.float64, device="cpu")
        case "sqrt":
            return torch.linspace(start, end, timesteps, dtype=torch.float64, device="cpu") ** 0.5
        case "cosine":
            steps = torch.arange(timesteps + 1, dtype=torch.float64, device="cpu") / timesteps
            kept = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - kept[1:] / kept[:-1]).clamp(0, 0.999)
    raise ValueError(f"betas: schedule is {schedule!r}, expected one of {', '.join(SCHEDULES)}")


@dataclass(frozen=True)
class Schedule:
    """Everything that follows from the betas, (T,) float64 each. ``alphas_cumprod`` is the share of signal left.

    The posterior is q(x_{t-1} | x_t, x_0); ``lvlb_weights`` weigh squared errors of the noise in the variational bound.
    """

    betas: Tensor

    @property
    def alphas_cumprod(self) -> Tensor:
        return (1 - self.betas).cumprod(0)

    @property
    def alphas_cumprod_prev(self) -> Tensor:
        return torch.cat([torch.ones_like(self.betas[:1]), self.alphas_cumprod[:-1]])

    @property
    def posterior_variance(self) -> Tensor:
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_log_variance_clipped(self) -> Tensor:
        """Clipped, because the variance of the first step is zero."""
        return self.posterior_variance.clamp(min=1e-20).log()

    @property
    def posterior_mean_coef1(self) -> Tensor:
        """What x_0 is multiplied by."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)

    @property
    def posterior_mean_coef2(self) -> Tensor:
        """What x_t is multiplied by."""
        return (1 - self.betas).sqrt() * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def lvlb_weights(self) -> Tensor:
        """The first, which would be infinite, is the second's."""
        variance = self.posterior_variance
        weights = self.betas**2 / (2 * variance * (1 - self.betas) * (1 - self.alphas_cumprod))
        return torch.cat([weights[1:2], weights[1:]])

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of samples (N, ...) at times (N,)."""
        kept = self.alphas_cumprod
        return at(kept.sqrt(), t, x) * x + at((1 - kept).sqrt(), t, x) * noise

    def predict_start(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_0, if ``noise`` is what ``x`` holds at ``t``."""
        kept = self.alphas_cumprod
        return at(1 / kept.sqrt(), t, x) * x - at((1 / kept - 1).sqrt(), t, x) * noise

    def velocity(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What networks that predict v (arXiv:2202.00512) are to give for samples x_0 noised with ``noise``."""
        kept = self.alphas_cumprod
        return at(kept.sqrt(), t, x) * noise - at((1 - kept).sqrt(), t, x) * x

    def noise_of(self, x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t, if ``velocity`` is v there."""
        kept = self.alphas_cumprod
        return at((1 - kept).sqrt(), t, x) * x + at(kept.sqrt(), t, x) * velocity

    def posterior(self, start: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (N, ...), variance and clipped log-variance (N, 1, ...) of x_{t-1} given x_0 and x_t."""
        mean = at(self.posterior_mean_coef1, t, x) * start + at(self.posterior_mean_coef2, t, x) * x
        return mean, at(self.posterior_variance, t, x), at(self.posterior_log_variance_clipped, t, x)

    def loss(self, prediction: Tensor, noise: Tensor, t: Tensor, norm: str = "l2") -> tuple[Tensor, Tensor]:
        """The mean squared ("l1": absolute) error of the noise, to train on; that of the variational bound, to report.

        With "l1" the latter weighs absolute errors, as LVDM does; it is then no bound.
        """
        if norm not in ("l1", "l2"):
            raise ValueError(f"Schedule.loss: norm is {norm!r}, expected 'l1' or 'l2'")
        errors = prediction - noise
        errors = (errors.abs() if norm == "l1" else errors.square()).flatten(1).mean(1)
        return errors.mean(), (at(self.lvlb_weights, t, errors) * errors).mean()


def at(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """``values[t]`` as (N, 1, ..., 1), of the type and the device of ``like`` (N, ...)."""
    chosen = values.to(t.device)[t].to(like.device, like.dtype)
    return chosen.view(-1, *[1] * (like.ndim - 1))


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Guidance without a classifier (arXiv:2207.12598): 1 is the conditional prediction, more leans further its way."""
    return unconditional + scale * (conditional - unconditional)


SAMPLERS = ("ddim", "ancestral", "dpm++", "unipc")
SPACINGS = ("published", "leading", "trailing", "quad")


@dataclass(frozen=True)
class Sampling:
    """How to sample. ``sampler`` is "ddim", "ancestral" (DDPM), "dpm++" (DPM-Solver++) or "unipc".

    ``spacing`` says which times are visited: "leading" begins with 1, "trailing" ends with T - 1 and is what few steps
    need; "published" is latent diffusion's, "leading" with one step more than asked for where T / steps leaves a rest;
    "quad" is latent diffusion's, denser towards 1, for DDIM. ``eta`` is DDIM's share of fresh noise, 0 to 1.
    """

    sampler: str = "ddim"
    steps: int = 200
    eta: float = 0.0
    spacing: str = "leading"

    def taking(self, steps: int | None = None, sampler: str | None = None) -> "Sampling":
        """The same in another number of steps: from T - 1 on and without fresh noise, which few steps need."""
        other = replace(self, sampler=sampler or self.sampler)
        return other if steps in (None, self.steps) else replace(other, steps=steps, eta=0.0, spacing="trailing")

    def scheduler(self, schedule: Schedule) -> Any:
        """diffusers' scheduler, its times set."""
        timesteps = len(schedule.betas)
        if self.sampler not in (("ddim",) if self.spacing == "quad" else SAMPLERS) or self.spacing not in SPACINGS:
            expected = f"{', '.join(SAMPLERS)} and {', '.join(SPACINGS)}, 'quad' with 'ddim'"
            raise ValueError(f"Sampling: {self.sampler!r} with spacing {self.spacing!r}, expected one of {expected}")
        if not 1 <= self.steps <= timesteps:
            raise ValueError(f"Sampling: {self.steps} steps, expected 1 to {timesteps}")
        scheduler = self._new(schedule)
        scheduler.set_timesteps(self.steps)
        if self.spacing == "published" and self.sampler == "ddim":
            scheduler.timesteps = published_times(self.steps, timesteps)
        if self.spacing == "quad":  # over the visited times alone, for diffusers knows even steps only
            scheduler.timesteps = quadratic_times(self.steps, timesteps)
            scheduler.alphas_cumprod = schedule.alphas_cumprod[scheduler.timesteps.flip(0)]
            scheduler.num_inference_steps = timesteps
        return scheduler

    def _new(self, schedule: Schedule) -> Any:
        # here, because loading diffusers takes seconds and only sampling needs it
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        settings: dict[str, Any] = {
            "num_train_timesteps": len(schedule.betas),
            "trained_betas": schedule.betas.numpy(),
            "prediction_type": "epsilon",
            "timestep_spacing": "trailing" if self.spacing == "trailing" else "leading",
            "steps_offset": 1,
        }
        if self.sampler == "dpm++":
            return DPMSolverMultistepScheduler(**settings)
        if self.sampler == "unipc":
            return UniPCMultistepScheduler(**settings)
        ancestral = self.sampler == "ancestral"
        settings["steps_offset"] = 0 if ancestral else 1
        scheduler = DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=ancestral)
        scheduler.alphas_cumprod = schedule.alphas_cumprod  # diffusers has them in float32
        scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64) if ancestral else schedule.alphas_cumprod[0]
        return scheduler


def published_times(steps: int, timesteps: int = 1000) -> Tensor:
    """The times of latent diffusion's DDIM, falling; one beyond the last, as some counts ask for, is left out."""
    times = torch.arange(0, timesteps, timesteps // steps) + 1
    return times[times < timesteps].flip(0)


def quadratic_times(steps: int, timesteps: int = 1000) -> Tensor:
    """The times of latent diffusion's "quad" DDIM, falling: up to four fifths of all, spaced evenly in their roots."""
    return (torch.linspace(0, (0.8 * timesteps) ** 0.5, steps, dtype=torch.float64) ** 2).long().flip(0) + 1


_WATCHERS: ContextVar[tuple[Callable[[], object], ...]] = ContextVar("_WATCHERS", default=())


@contextmanager
def watched(on_step: Callable[[], object]) -> Iterator[None]:
    """Within it, ``on_step`` is called before every step of every trajectory: to show progress, say."""
    token = _WATCHERS.set((*_WATCHERS.get(), on_step))
    try:
        yield
    finally:
        _WATCHERS.reset(token)


class Step(NamedTuple):
    """One step of a trajectory: the time it left, x after it, and the x_0 that the model saw at ``t``."""

    t: int
    sample: Tensor
    predicted: Tensor


def trajectory(
    model_fn: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    schedule: Schedule,
    sampling: Sampling,
    noise: Noise = None,
    quantise: Callable[[Tensor], Tensor] | None = None,
    paste: Callable[[Tensor], Tensor] | None = None,
    last: int | None = None,
) -> Iterator[Step]:
    """Every step from noise ``x`` (N, ...) to a sample; ``last`` takes only so many, the last ones.

    Fresh noise, where the sampler adds any, comes from a generator or one by one from an iterable of tensors like x.
    ``quantise`` is applied to each predicted x_0 (DDIM only). ``paste`` is applied to x before each step, and the step
    starts from what it gives; the end is as the last step leaves it.
    """
    scheduler = sampling.scheduler(schedule)
    times = scheduler.timesteps.tolist()
    visited = list(zip(times, range(len(times))[::-1] if sampling.spacing == "quad" else times, strict=True))
    eta = 1.0 if sampling.sampler == "ancestral" else sampling.eta
    stochastic = eta > 0 and sampling.sampler in ("ddim", "ancestral")
    if quantise is not None and sampling.sampler != "ddim":
        raise ValueError(f"trajectory: quantise with sampler {sampling.sampler!r}, expected 'ddim'")
    fresh = _fresh(noise, x)
    for t, place in visited[len(times) - last :] if last is not None else visited:
        for on_step in _WATCHERS.get():
            on_step()
        x = x if paste is None else paste(x)
        predicted_noise = model_fn(x, torch.full((x.shape[0],), t, device=x.device))
        start = schedule.predict_start(x, predicted_noise, torch.full((x.shape[0],), t))
        extra = {"eta": eta, "variance_noise": next(fresh)} if stochastic else {}
        x = scheduler.step(predicted_noise, place, x, **extra).prev_sample
        if quantise is not None:
            earlier = place - len(schedule.betas) // scheduler.num_inference_steps
            kept = scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod
            codes = quantise(start)
            x, start = x + kept.sqrt().to(x.dtype) * (codes - start), codes
        yield Step(t, x, start)


def sample(
    model_fn: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    schedule: Schedule,
    sampling: Sampling,
    noise: Noise = None,
    quantise: Callable[[Tensor], Tensor] | None = None,
    paste: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The end of ``trajectory``."""
    for step in trajectory(model_fn, x, schedule, sampling, noise, quantise, paste):
        x = step.sample
    return x


def _fresh(noise: Noise, like: Tensor) -> Iterator[Tensor]:
    if noise is not None and not isinstance(noise, torch.Generator):
        yield from noise
        raise ValueError("trajectory: the noise given has run out before the steps")
    while True:
        yield draw(tuple(like.shape), noise, like)


def draw(shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Normal noise of ``shape`` in the type of ``like`` on its device, drawn in float32 where the generator lives."""
    device = generator.device if generator is not None else like.device
    return torch.randn(shape, generator=generator, device=device).to(like.device, like.dtype)
