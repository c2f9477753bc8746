"""Clips of which some latents are given: how they are noised to train, and how a U-Net samples the others.

Given latents are perturbed to a level of noise that the U-Net is told ("conditional latent perturbation"); where none
are given it samples freely, so that one network guides itself.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...diffusion import Sampling, Schedule, draw, guide, sample
from .masks import given_mask
from .unet import VideoUNet

Draw = Callable[[tuple[int, ...]], Tensor]


class Given(NamedTuple):
    """Latents (N, C, n, h, w) that stand at ``places`` in time, and the time of the noise that is put on them.

    ``mark_all`` makes the mask name every latent of the clip, as the published program for long videos does.
    """

    latents: Tensor
    places: tuple[int, ...]
    level: int = 100
    mark_all: bool = False


class Prompt(NamedTuple):
    """Contexts (N, M, C), say of words: what is asked for, and what guidance leads away from."""

    positive: Tensor
    negative: Tensor | None = None


class NoisyClip(NamedTuple):
    """What a U-Net is trained on: its input (N, C or C + 1, T, h, w), and the noise (N, C, T, h, w) it is to give."""

    x: Tensor
    target: Tensor


def noisy_clip(
    schedule: Schedule,
    latent: Tensor,
    t: Tensor,
    noise: Tensor,
    given: Tensor | None = None,
    level: Tensor | None = None,
    level_noise: Tensor | None = None,
) -> NoisyClip:
    """Latents (N, C, T, h, w) noised to times ``t`` (N,), those that are ``given`` (N, 1, T, h, w) to ``level`` (N,).

    The mask is the input's last channel. The noise of given latents is a target, too.
    """
    noisy = schedule.add_noise(latent, noise, t)
    if given is None:
        return NoisyClip(noisy, noise)
    if level is None or level_noise is None:
        raise ValueError("noisy_clip: a mask without level and level_noise, expected all three")
    perturbed = schedule.add_noise(latent, level_noise, level)
    x = noisy * (1 - given) + perturbed * given
    return NoisyClip(torch.cat([x, given], dim=1), noise * (1 - given) + level_noise * given)


def sample_clip(
    unet: VideoUNet,
    schedule: Schedule,
    sampling: Sampling,
    shape: tuple[int, ...],
    noise: Draw,
    given: Given | None = None,
    prompt: Prompt | None = None,
    guidance: float = 1.0,
) -> Tensor:
    """Latents of ``shape`` (N, C, T, h, w), by default of nothing given.

    ``noise(shape)`` draws it: for given latents first, then the start, one a step. ``guidance`` leads away from the
    prediction without latents or with the negative prompt; 1 is none, and costs half. Given latents come back denoised
    once more.
    """
    paste = None if given is None else pasting(schedule, given, noise)
    model_fn = prediction(unet, given, prompt, guidance)
    return sample(model_fn, noise(shape), schedule, sampling, iter(lambda: noise(shape), None), paste=paste)


def pasting(schedule: Schedule, given: Given, noise: Draw) -> Callable[[Tensor], Tensor]:
    """What puts the given latents, perturbed once, in their places."""
    level = torch.full((len(given.latents),), given.level)
    perturbed = schedule.add_noise(given.latents, noise(tuple(given.latents.shape)), level)

    def paste(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, list(given.places)] = perturbed
        return x

    return paste


def prediction(
    unet: VideoUNet, given: Given | None = None, prompt: Prompt | None = None, guidance: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """``model_fn(x, t)`` of ``diffusion.sample``; both predictions of guidance come from one pass of a double batch."""
    guided = guidance != 1 and (given is not None or prompt is not None)
    context = None if prompt is None else prompt.positive
    if given is not None and not unet.config.conditional:
        raise ValueError("sample_clip: given latents for a U-Net that takes no mask, expected none")
    if guided and prompt is not None:
        if prompt.negative is None:
            raise ValueError(f"sample_clip: guidance of {guidance} without a negative prompt, expected one, say of ''")
        context = torch.cat([prompt.positive, prompt.negative])

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        if guided:
            x, t = x.repeat(2, 1, 1, 1, 1), t.repeat(2)
        mask, level = None, None
        if unet.config.conditional:
            places: Sequence[int] = () if given is None else range(x.shape[2]) if given.mark_all else given.places
            mask = given_mask(x, places)
            if given is not None:
                level = torch.full_like(t, given.level)
                if guided:  # the second half of the batch is given nothing
                    mask[len(t) // 2 :], level[len(t) // 2 :] = 0, -1
            x = torch.cat([x, mask], dim=1)
        predicted = unet(x, t, context, level, mask)
        if not guided:
            return predicted
        conditional, unconditional = predicted.chunk(2)
        return guide(unconditional, conditional, guidance)

    return model_fn


def drawing(like: Tensor, generator: torch.Generator | None) -> Draw:
    """Draws in the type of ``like`` on its device, from where the generator lives."""
    return partial(draw, generator=generator, like=like)
