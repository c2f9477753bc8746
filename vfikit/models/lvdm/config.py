"""What an LVDM is built from."""

from dataclasses import dataclass, field

from ...diffusion import Sampling
from .autoencoder import AutoencoderConfig
from .frame_autoencoder import FrameAutoencoderConfig
from .unet import VideoUNetConfig


@dataclass(frozen=True)
class LVDMConfig:
    """The networks (None: not there), how latents are scaled, the schedule, and how to sample unless told otherwise.

    Diffusion sees scale * (z + shift): 1 / deviation and -mean of the training clips' latents.
    """

    autoencoder: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)
    frame_autoencoder: FrameAutoencoderConfig | None = None  # in place of the other
    short: VideoUNetConfig | None = field(default_factory=VideoUNetConfig)
    prediction: VideoUNetConfig | None = None
    interpolation: VideoUNetConfig | None = None
    key_stride: int = 4  # latents from one key latent, of which prediction makes clips, to the next
    scale: float = 0.33422927
    shift: float = 1.4606637
    timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0155
    norm: str = "l1"  # of the training loss
    size: tuple[int, int] = (256, 256)  # height and width of what is made unless told otherwise
    level: int = 100  # of the noise on given latents
    guidance_scale: float = 1.1  # of long videos, away from what is made of nothing given
    text_encoder: str = ""  # of transformers: a name or a folder; none if empty
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=50, eta=1.0, spacing="published"))

    def __post_init__(self) -> None:
        if self.interpolation is not None and self.interpolation.length != self.key_stride + 1:
            got = f"interpolation over {self.interpolation.length} latents, a key every {self.key_stride}"
            raise ValueError(f"LVDMConfig: {got}, expected {self.key_stride + 1}: a key, what follows, the next key")
