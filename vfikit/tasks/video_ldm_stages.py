"""The stages in which Video-LDM is trained (arXiv:2304.08818, section 3): whose weights learn, and from what loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data.clips import FileClips
from ..files import InputError
from ..layers import PatchDiscriminator, VideoPatchDiscriminator
from ..layers.inflate import temporal_parameters
from ..losses import VQGANLoss
from ..models.video_ldm import Given, VideoLDMNet
from ..models.video_ldm.schedule import BETWEEN, condition, known_mask
from ..models.video_ldm.texts import no_words
from ..models.video_ldm.upsampler import FACTOR, Noised
from .clips import ClipBatch

STAGES = ("autoencoder", "image", "temporal", "decoder", "prediction", "interpolation", "upsampler")
RECONSTRUCTING = ("autoencoder", "decoder")
NO_TEXT = 0.1  # share of clips whose text is left out, so that guidance has something to lean away from


class AtItsStride(FileClips):
    """Clips read at the stride asked for, or refused: the interpolator is told which it is."""

    def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
        def choose(count: int) -> range:
            length = (num_frames - 1) * stride + 1
            if count < length:
                path = self.sources[index].path
                raise InputError(
                    f"{path}: has {count} frames, expected at least {length}: {num_frames}, {stride} apart"
                )
            first = round(place * (count - length))
            return range(first, first + length, stride)

        return self.pick(index, choose)


class StageLoss(nn.Module):
    """The network and the losses of a stage as one module, so that wrappers see the whole step.

    ``divergence`` weighs the posterior's divergence in the autoencoder's loss; ``perceptual`` (LPIPS) compares frames.
    A patch discriminator, of videos for the decoder and of frames for the autoencoder, joins at step ``start``; None
    is never.
    """

    def __init__(
        self,
        model: VideoLDMNet,
        stage: str,
        divergence: float = 1e-4,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        start: int | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.model, self.stage, self.divergence, self.perceptual = model, stage, divergence, perceptual
        judge = (VideoPatchDiscriminator if stage == "decoder" else PatchDiscriminator)(width=width)
        self.game = VQGANLoss(self.perceived, judge, start=start if stage in RECONSTRUCTING else None)

    def forward(self, batch: ClipBatch, text: Tensor | None, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, ``loss`` their sum, and what the discriminator is to see of what was made."""
        if self.stage not in RECONSTRUCTING:
            found = denoising(self.model, self.stage, batch, text)
            return {"loss": (found.prediction.float() - found.target.float()).square().mean()}, batch.frames
        made = reconstruction(self.model, self.stage, batch.frames)
        frames, divergence = self.seen(made.frames.float()), self.divergence * made.divergence
        losses = self.game(frames, self.seen(batch.frames), divergence, self.last_layer, step)
        parts = {name: value.mean() for name, value in losses._asdict().items() if name not in ("total", "codebook")}
        return {"loss": losses.total, **parts}, frames

    def seen(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) as the discriminator takes it: videos (B, 3, T, H, W) of the decoder, else images."""
        return frames.transpose(1, 2) if self.stage == "decoder" else frames.flatten(0, 1)

    def perceived(self, made: Tensor, target: Tensor) -> Tensor:
        """The perceptual distance of every frame; zero without a network for it."""
        if self.perceptual is None:
            return made.new_zeros(1)
        made, target = (x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x for x in (made, target))
        return self.perceptual(made, target)

    @property
    def last_layer(self) -> Tensor:
        """The last weight that is trained."""
        if self.stage == "decoder":
            return self.model.decoder_mixers.layers[-1].get_parameter("block2.2.weight")
        return self.model.autoencoder.last_layer


def trained(model: VideoLDMNet, stage: str) -> list[nn.Parameter]:
    """The parameters that a stage trains; networks that it needs and the model has not are added.

    The image network stays as it is where only its temporal layers are trained; the interpolator is trained whole.
    """
    if stage == "interpolation" and model.interpolator is None:
        model.add_interpolator()
    if stage == "upsampler" and model.upsampler is None:
        model.add_upsampler()
    temporal = temporal_parameters(model.generator)
    known = {id(parameter) for parameter in temporal}
    match stage:
        case "autoencoder":
            return list(model.autoencoder.parameters())
        case "image":
            return [p for p in model.generator.parameters() if id(p) not in known]
        case "temporal" | "prediction":
            return [*temporal, *model.labels.parameters()]
        case "decoder":
            return list(model.decoder_mixers.parameters())
        case "interpolation" if model.interpolator is not None:
            return list(model.interpolator.parameters())
        case "upsampler" if model.upsampler is not None:
            if not model.upsampler.ready:
                raise ValueError("stage upsampler: its autoencoder is untrained, expected --upsampler-autoencoder")
            return list(model.upsampler.denoiser.parameters())
    raise ValueError(f"stage is {stage!r}, expected one of {', '.join(STAGES)}")


def denoising(model: VideoLDMNet, stage: str, batch: ClipBatch, text: Tensor | None = None) -> Noised:
    """What a denoiser predicts in this stage, and should; ``text`` (B, S, D) is left out of some clips.

    The image network sees single frames; the generator no known frames ("temporal") or, as often each, none, the first
    or the first two ("prediction"); the interpolator both ends and which stride it is. The upsampler sees the clip at a
    quarter of its size, with noise.
    """
    frames, videos = batch.frames, len(batch.frames)
    nothing = model.no_text(videos)
    if text is None:
        text = nothing
    else:
        left_out = torch.rand(videos, 1, 1, device=text.device) < NO_TEXT
        text = torch.where(left_out, no_words(model.config.text_encoder, text), text)
    t = torch.randint(model.config.schedule.timesteps, (videos,), device=frames.device)
    if stage == "upsampler":
        assert model.upsampler is not None
        level = torch.randint(1 + model.config.upsampler.most_noise, (videos,), device=frames.device)
        low = nn.functional.avg_pool2d(frames.flatten(0, 1), FACTOR).unflatten(0, frames.shape[:2])
        return model.upsampler.denoise(frames, low, t, level, text)
    with torch.no_grad():
        latents = model.encode(frames, sample=True)
    if stage == "image":
        flat = latents.flatten(0, 1)[:, None]
        each = latents.shape[1]
        t = torch.randint(model.config.schedule.timesteps, (len(flat),), device=frames.device)
        return model.denoise(model.generator, flat, t, Given(text.repeat_interleave(each, 0), as_images=True))
    if stage == "interpolation":
        assert model.interpolator is not None
        planes = condition(latents, known_mask(BETWEEN + 1, (0, BETWEEN), latents.device))
        rate = batch.rate.to(planes).view(-1, 1, 1, 1, 1).expand(-1, planes.shape[1], 1, *planes.shape[3:])
        return model.denoise(model.interpolator, latents, t, Given(text, planes=torch.cat([planes, rate], dim=2)))
    if not model.config.unet.planes:
        if stage == "prediction":
            raise ValueError("stage prediction: this model is not told of known frames (its planes are 0)")
        return model.denoise(model.generator, latents, t, Given(text))
    seen = torch.randint(3 if stage == "prediction" else 1, (videos, 1), device=frames.device)
    mask = (torch.arange(latents.shape[1], device=frames.device) < seen).to(latents)
    return model.denoise(model.generator, latents, t, Given(text, planes=condition(latents, mask)))


class Reconstruction(NamedTuple):
    """Clips (B, T, 3, H, W) as the autoencoder gives them back, and the divergence of its posterior, a mean."""

    frames: Tensor
    divergence: Tensor


def reconstruction(model: VideoLDMNet, stage: str, frames: Tensor) -> Reconstruction:
    """Of the autoencoder frame by frame, or ("decoder") with the temporal layers and the encoder as it is."""
    if stage == "decoder":
        with torch.no_grad():
            latents = model.encode(frames, sample=True)
        return Reconstruction(model.decode(latents), latents.new_zeros(()))
    posterior = model.autoencoder.encode((2 * frames - 1).flatten(0, 1))
    made = (model.autoencoder.decode(posterior.sample()) + 1) / 2
    return Reconstruction(made.unflatten(0, frames.shape[:2]), posterior.kl().mean() / frames[0, 0].numel())
