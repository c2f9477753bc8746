"""LVDM's published models, one U-Net a checkpoint, and a small one with all three."""

from dataclasses import replace

from ...diffusion import Sampling
from .autoencoder import AutoencoderConfig
from .config import LVDMConfig
from .frame_autoencoder import FrameAutoencoderConfig
from .unet import VideoUNetConfig

PREDICTION = VideoUNetConfig(in_channels=5, level_embedding="label")
INTERPOLATION = replace(PREDICTION, length=5)
TEXT = VideoUNetConfig(
    width=320,
    multipliers=(1, 2, 4, 4),
    blocks=2,
    attention="transformer",
    attention_scales=(4, 2, 1),
    heads=8,
    length=16,
    context_channels=768,
    scale_shift=False,
)
SKY = LVDMConfig()
SMALL_UNET = VideoUNetConfig(
    width=32, multipliers=(1, 2, 2), blocks=1, attention_scales=(2, 4), relative="regular", groups=-4
)
SMALL_PREDICTION = replace(SMALL_UNET, in_channels=5, level_embedding="label")
SMALL = LVDMConfig(
    AutoencoderConfig(width=8, factors=(4, 4, 4), groups=1),
    short=SMALL_UNET,
    prediction=SMALL_PREDICTION,
    interpolation=replace(SMALL_PREDICTION, length=5),
    scale=1.0,
    shift=0.0,
    size=(64, 64),
    sampling=Sampling(steps=20, eta=1.0, spacing="trailing"),
)

PRESETS = {
    "lvdm": {
        "published": SKY,
        "published-ucf": replace(SKY, scale=0.220142075, shift=0.5837740898),
        "published-taichi": replace(SKY, scale=0.175733933, shift=0.03291025),
        "published-prediction": replace(SKY, short=None, prediction=PREDICTION),
        "published-interpolation": replace(SKY, short=None, interpolation=INTERPOLATION),
        "published-text": LVDMConfig(
            None,
            FrameAutoencoderConfig(),
            TEXT,
            scale=0.18215,
            shift=0.0,
            beta_start=0.00085,
            beta_end=0.012,
            norm="l2",
            guidance_scale=15.0,
            text_encoder="openai/clip-vit-large-patch14",
        ),
        "published-autoencoder": replace(SKY, short=None),
        "small": SMALL,
    }
}
