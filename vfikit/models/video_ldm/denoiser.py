"""The networks of Video-LDM: denoisers of videos, and the decoder's temporal layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ...diffusion import Schedule
from ...layers.image_autoencoder import ImageAutoencoder
from ...layers.inflate import inflate
from ...layers.temporal import Conv3DLayer, window_mask
from .config import UNetConfig


class Given(NamedTuple):
    """What a denoiser is told beside the noisy video (B, T, C, H, W).

    ``text`` (B, S, D) is for the layers in space and, unless ``temporal_text`` is another, for those in time.
    ``planes`` (B, T, P, H, W) condition the temporal layers; ``beside`` (B, T, C', H, W) joins the video's channels;
    ``level`` (B,) is the noise on it. ``as_images`` leaves the temporal layers out.
    """

    text: Tensor
    temporal_text: Tensor | None = None
    planes: Tensor | None = None
    beside: Tensor | None = None
    level: Tensor | None = None
    as_images: bool = False


class VideoDenoiser(nn.Module):
    """An image U-Net with temporal layers over videos: ``forward(x, t, given)``, x (B, T, C, H, W), t (B,).

    Returns what it was trained to predict, noise or velocity, (B, T, out_channels, H, W). In videos of more than
    ``frames`` frames, those farther than ``distance`` apart do not attend to each other.
    """

    def __init__(self, config: UNetConfig, frames: int = 8, distance: int = 8) -> None:
        super().__init__()
        self.config, self.frames, self.distance = config, frames, distance
        self.unet = build_unet(config)

    def forward(self, x: Tensor, t: Tensor, given: Given) -> Tensor:
        videos, frames = x.shape[:2]
        known: dict[str, Any] = {"num_frames": frames}
        if given.planes is not None:
            known["temporal_condition"] = given.planes.flatten(0, 1)
        if given.temporal_text is not None:
            known["temporal_context"] = given.temporal_text
        if frames > self.frames:
            known["temporal_mask"] = window_mask(frames, self.distance, x.device)
        rows = x if given.beside is None else torch.cat([x, given.beside], dim=2)
        output = self.unet(
            rows.flatten(0, 1),
            t.repeat_interleave(frames),
            given.text.repeat_interleave(frames, 0),
            class_labels=None if given.level is None else given.level.repeat_interleave(frames),
            cross_attention_kwargs=None if given.as_images else known,
        ).sample
        return output.unflatten(0, (videos, frames))


def build_unet(config: UNetConfig) -> Any:
    """diffusers' U-Net of these sizes, inflated; all of it can be trained."""
    # here, because loading diffusers takes seconds and only building needs it
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.widths,
        down_block_types=[f"{'CrossAttn' * attends}DownBlock2D" for attends in config.transformers],
        up_block_types=[f"{'CrossAttn' * attends}UpBlock2D" for attends in reversed(config.transformers)],
        layers_per_block=config.blocks,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # the number of heads, by an old name
        norm_num_groups=config.groups,
        num_class_embeds=config.noise_levels or None,
    )
    return inflate(
        unet,
        attention=config.attention,
        heads=config.temporal_heads,
        alpha=config.alpha,
        encoding=config.encoding,
        middle=config.middle,
        condition_channels=config.planes,
        freeze=False,
    )


def to_noise(schedule: Schedule, prediction: str, x: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
    """The noise in ``x`` at ``t`` of what a network predicts there."""
    return schedule.noise_of(x, predicted, t) if prediction == "velocity" else predicted


class DecoderMixers(nn.Module):
    """Temporal layers for the decoder of an image autoencoder, one after each of its residual blocks."""

    def __init__(self, autoencoder: ImageAutoencoder, groups: int, alpha: float = 1.0) -> None:
        super().__init__()
        widths = [block.conv2.out_channels for block in residual_blocks(autoencoder)]
        self.layers = nn.ModuleList(Conv3DLayer(width, alpha, groups) for width in widths)

    def forward(self, autoencoder: ImageAutoencoder, latent: Tensor, num_frames: int) -> Tensor:
        """Frames (B * T, 3, H, W) in about [-1, 1] of latents (B * T, z, h, w), not scaled."""
        decoder: Any = autoencoder.decoder
        layers = iter(self.layers)
        h = decoder.conv_in(autoencoder.post_quant_conv(latent))
        h = next(layers)(decoder.mid.block_1(h), num_frames)
        h = next(layers)(decoder.mid.block_2(decoder.mid.attn_1(h)), num_frames)
        for level in reversed(decoder.up):
            for block in level.block:
                h = next(layers)(block(h), num_frames)
            h = h if level.upsample is None else level.upsample(h)
        return decoder.conv_out(functional.silu(decoder.norm_out(h)))


def residual_blocks(autoencoder: ImageAutoencoder) -> Sequence[Any]:
    """The decoder's residual blocks in the order in which they run."""
    decoder: Any = autoencoder.decoder
    levels = [block for level in reversed(decoder.up) for block in level.block]
    return [decoder.mid.block_1, decoder.mid.block_2, *levels]
