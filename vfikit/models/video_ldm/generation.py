"""Sampling with Video-LDM: one window, videos longer than a window, the frames between frames."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...diffusion import Sampling, draw, guide, sample
from .denoiser import Given, VideoDenoiser, to_noise
from .schedule import BETWEEN, condition, interpolated, known_mask, pairs, windows
from .texts import Texts

if TYPE_CHECKING:
    from .net import VideoLDMNet


class Request(NamedTuple):
    """What is to be made: latents of ``shape`` (B, T, C, h, w), of which texts, how far to lean, how to sample."""

    shape: tuple[int, int, int, int, int]
    texts: Texts
    guidance: float
    context_guidance: float
    sampling: Sampling
    interpolations: int
    generator: torch.Generator | None


def generate_latents(net: "VideoLDMNet", request: Request, known: Tensor | None = None) -> Tensor:
    """Latents of ``request.shape``; they begin with those ``known`` (B, S, C, h, w)."""
    videos, frames, *rest = request.shape
    if frames < 1 or not 0 <= request.interpolations <= 2:
        raise ValueError(f"generate: {frames} frames, {request.interpolations} interpolations, expected 1.. and 0 to 2")
    if request.interpolations and net.interpolator is None:
        raise ValueError("generate: interpolations, but this model has no network for them")
    step = BETWEEN**request.interpolations
    if known is not None and request.interpolations:
        raise ValueError("generate: frames to continue and interpolations, expected one of them")
    if known is not None and known.shape[1] >= frames:
        raise ValueError(f"generate: {frames} frames, {known.shape[1]} of them known, expected more")
    if request.context_guidance != 1 and known is None and frames <= net.config.frames and not request.interpolations:
        raise ValueError("generate: context_guidance_scale, but one window knows no frames, expected some to continue")
    keys = -(-(frames - 1) // step) + 1
    latents = key_frames(net, request._replace(shape=(videos, keys, *rest)), known)
    for rate in range(request.interpolations):
        latents = between(net, request, latents, rate)
    return latents[:, :frames]


def key_frames(net: "VideoLDMNet", request: Request, known: Tensor | None) -> Tensor:
    """One window as a whole; more frames, or those after ``known``, window by window.

    A network that is not told of known frames makes any number as one, each seeing those near it.
    """
    frames = request.shape[1]
    if not net.config.unet.planes:
        if known is not None:
            raise ValueError("generate: frames to continue, but this model is not told of known frames")
        return window(net, net.generator, request)
    if known is None and frames <= net.config.frames:
        return window(net, net.generator, request)
    if known is None:
        known = first_frame(net, request)
    seen = min(2, known.shape[1])
    before, made = known.shape[1] - seen, known
    for start, _, context in windows(frames - before, net.config.frames, first=seen):
        if made.shape[1] < frames:
            start += before
            new = continue_from(net, request, made[:, start : start + context])
            made = torch.cat([made[:, :start], new], dim=1)
    return made[:, :frames]


def first_frame(net: "VideoLDMNet", request: Request) -> Tensor:
    """A single frame, by the image network alone."""
    videos, _, *rest = request.shape
    return window(net, net.generator, request._replace(shape=(videos, 1, *rest)), as_images=True)  # type: ignore[arg-type]


def continue_from(net: "VideoLDMNet", request: Request, context: Tensor) -> Tensor:
    """A window that begins with the latents ``context`` (B, 1 or 2, C, h, w)."""
    length = net.config.frames
    shape = (request.shape[0], length, *request.shape[2:])
    known = context.new_zeros(shape)
    known[:, : context.shape[1]] = context
    mask = known_mask(length, tuple(range(context.shape[1])), context.device)
    return window(net, net.generator, request._replace(shape=shape), known, mask)


def between(net: "VideoLDMNet", request: Request, latents: Tensor, rate: int) -> Tensor:
    """Three latents between every two of (B, T, C, h, w); ``rate`` 0 is of the key frames, 1 of what came between."""
    assert net.interpolator is not None
    found = latents.new_zeros(latents.shape[0], interpolated(latents.shape[1]), *latents.shape[2:])
    for index, (start, end) in enumerate(pairs(latents.shape[1])):
        known = found[:, start : end + 1].clone()
        known[:, 0], known[:, -1] = latents[:, index], latents[:, index + 1]
        mask = known_mask(BETWEEN + 1, (0, BETWEEN), latents.device)
        asked = request._replace(shape=tuple(known.shape), texts=request.texts.original())  # type: ignore[arg-type]
        found[:, start : end + 1] = window(net, net.interpolator, asked, known, mask, rate)
    return found if latents.shape[1] > 1 else latents


def window(
    net: "VideoLDMNet",
    denoiser: VideoDenoiser,
    request: Request,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    rate: int | None = None,
    as_images: bool = False,
) -> Tensor:
    """Samples ``request.shape`` at once; where ``mask`` (T,) is 1, the latents are those ``known``."""
    x = draw(request.shape, request.generator, request.texts.text)
    nothing = torch.zeros(request.shape[1], device=x.device)
    known, mask = (x, nothing) if known is None or mask is None else (known, mask)
    planes = with_rate(condition(known, mask), rate) if denoiser.config.planes else None
    free = with_rate(condition(known, nothing), rate) if denoiser.config.planes else None
    given = Given(request.texts.text, request.texts.temporal, planes)
    model_fn = leaning(net, denoiser, request, given, free, as_images)
    made = sample(model_fn, x, net.schedule, request.sampling, request.generator)
    return torch.where(mask.bool()[:, None, None, None], known, made)


def with_rate(planes: Tensor, rate: int | None) -> Tensor:
    """The interpolation network's last plane says which rate it is to reach: 0 for 7.5, 1 for 30 frames a second."""
    return planes if rate is None else torch.cat([planes, torch.full_like(planes[:, :, :1], rate)], dim=2)


def leaning(
    net: "VideoLDMNet",
    denoiser: VideoDenoiser,
    request: Request,
    given: Given,
    free: Tensor | None,
    as_images: bool,
) -> Callable[[Tensor, Tensor], Tensor]:
    """``model_fn(x, t)`` of the sampler, leaning away from no text and from no known frames."""
    given = given._replace(as_images=as_images)
    others = []
    if request.guidance != 1:
        nothing, in_time = request.texts.negative, request.texts.temporal_negative
        others.append((given._replace(text=nothing, temporal_text=in_time), request.guidance))
    if request.context_guidance != 1 and free is not None:
        others.append((given._replace(planes=free), request.context_guidance))

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        asked = denoiser(x, t, given)
        leant = asked
        for other, scale in others:
            leant = leant + guide(denoiser(x, t, other), asked, scale) - asked
        return to_noise(net.schedule, net.config.schedule.prediction, x, t, leant)

    return model_fn
