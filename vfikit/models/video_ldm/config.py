"""The numbers of Video-LDM (arXiv:2304.08818): what the paper and the published code say; others are our own."""

from dataclasses import dataclass, field

from ...diffusion import Sampling
from ...layers.inflate import Attention
from ...layers.temporal import Encoding


@dataclass(frozen=True)
class UNetConfig:
    """One of diffusers' U-Nets and its temporal layers. The defaults are Stable Diffusion 1.x and the published code's.

    Widths are a level each, the sides halved between two; ``transformers`` says which levels attend.
    """

    in_channels: int = 4
    out_channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    transformers: tuple[bool, ...] = (True, True, True, False)
    blocks: int = 2
    heads: int = 8  # of attention in space
    text_width: int = 768
    groups: int = 32  # of every norm
    noise_levels: int = 0  # that it is told of, apart from the time: the upsampler's
    attention: Attention = "text"  # of the temporal layers: to the "text", the "frames" or "both"
    temporal_heads: int = 8
    encoding: Encoding = "published"
    alpha: float = 1.0  # how much of the image network they keep at first
    middle: bool = False  # temporal layers in the middle block too
    planes: int = 0  # that the temporal layers are conditioned on


@dataclass(frozen=True)
class AutoencoderConfig:
    """Stable Diffusion's autoencoder."""

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    latent_channels: int = 4
    groups: int = 32
    scale: float = 0.18215  # latents are multiplied by it
    alpha: float = 1.0  # of the decoder's temporal layers

    @property
    def factor(self) -> int:
        """How many times a latent's sides are smaller than a frame's."""
        return 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """When how much noise; ``prediction`` is what networks give, "noise" or "velocity"."""

    name: str = "linear"  # of diffusion.SCHEDULES; Stable Diffusion's
    start: float = 0.00085
    end: float = 0.012
    timesteps: int = 1000
    prediction: str = "noise"


@dataclass(frozen=True)
class UpsamplerConfig:
    """Four times the sides: a diffusion of pixels, or (``latent``) of latents whose sides are a frame's by 4."""

    unet: UNetConfig = field(default_factory=lambda: UNetConfig(in_channels=6, out_channels=3, noise_levels=1000))
    autoencoder: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(multipliers=(1, 2, 4)))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    latent: bool = False
    most_noise: int = 350  # the highest level of noise on the low resolution that it is trained with
    frames: int = 8  # that are upsampled together


@dataclass(frozen=True)
class VideoLDMConfig:
    """The whole system; ``interpolation`` and ``upsampling`` say whether it has these networks.

    No preset has an interpolator: training adds it, as a copy of the generator.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=50))
    size: tuple[int, int] = (512, 512)  # height and width of the frames that it is trained on
    frames: int = 8  # of a window
    distance: int = 8  # farther frames than this do not see each other, in windows longer than trained
    interpolation: bool = False
    upsampling: bool = False
    upsampler: UpsamplerConfig = field(default_factory=UpsamplerConfig)
    text_encoder: str = ""  # of transformers: a name or a folder; none if empty
    spatial_text_encoder: str = ""  # of the layers in space where it is another: tuned to a subject
    labels: tuple[int, ...] = ()  # the kinds of each label of a clip, "not given" left out


DRIVING_SCHEDULE = ScheduleConfig("sqrt_linear", 1e-4, 2e-2)
OURS = {"alpha": 0.9, "encoding": "standard", "middle": True}  # trained from the first step, true positions

# Two labels of the driving scenes: day or night, and how crowded, in our count 4.
DRIVING = VideoLDMConfig(
    unet=UNetConfig(attention="both", planes=5, **OURS),  # type: ignore[arg-type]
    schedule=DRIVING_SCHEDULE,
    size=(128, 256),
    upsampling=True,
    upsampler=UpsamplerConfig(
        UNetConfig(
            in_channels=6,
            out_channels=3,
            widths=(160, 320, 320, 640),
            transformers=(False, False, True, True),
            noise_levels=1000,
            attention="both",
            **OURS,  # type: ignore[arg-type]
        ),
        schedule=DRIVING_SCHEDULE,
    ),
    labels=(2, 4),
)
TEXT = VideoLDMConfig(
    unet=UNetConfig(attention="both", planes=5, **OURS),  # type: ignore[arg-type]
    size=(320, 512),
    upsampling=True,
    upsampler=UpsamplerConfig(
        UNetConfig(
            in_channels=7,
            widths=(256, 512, 512, 1024),
            transformers=(False, True, True, True),
            noise_levels=1000,
            attention="both",
            **OURS,  # type: ignore[arg-type]
        ),
        schedule=ScheduleConfig("linear", 1e-4, 0.02, prediction="velocity"),
        latent=True,
    ),
    text_encoder="openai/clip-vit-large-patch14",
)
SMALL_UNET = UNetConfig(
    widths=(48, 96),
    transformers=(True, True),
    blocks=1,
    heads=4,
    text_width=32,
    groups=16,
    attention="frames",
    temporal_heads=4,
    planes=5,
    **OURS,  # type: ignore[arg-type]
)
SMALL = VideoLDMConfig(
    unet=SMALL_UNET,
    autoencoder=AutoencoderConfig(32, (1, 2, 2), 1, 4, 16, scale=1.0, alpha=0.9),
    sampling=Sampling(steps=20, spacing="trailing"),
    size=(64, 64),
    upsampler=UpsamplerConfig(
        UNetConfig(
            in_channels=6,
            out_channels=3,
            widths=(32, 32, 64),
            transformers=(False, False, True),  # attention in space costs the square of the pixels
            blocks=1,
            heads=4,
            text_width=32,
            groups=16,
            noise_levels=1000,
            attention="frames",
            temporal_heads=4,
            **OURS,  # type: ignore[arg-type]
        ),
    ),
)
PRESETS = {
    "video-ldm": {
        # the published code: Stable Diffusion 1.x with its temporal layers, and the autoencoder
        "published": VideoLDMConfig(text_encoder="openai/clip-vit-large-patch14"),
        "driving": DRIVING,
        "text": TEXT,
        "small": SMALL,
    }
}
