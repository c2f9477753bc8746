"""Networks of the published graphs, small enough for a test of a second."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vfikit.diffusion import Sampling
from vfikit.models import AdaCoFConfig, CDFIConfig, LDMVFIConfig, LVDMConfig, VideoLDMConfig, build, video_ldm
from vfikit.models.ldmvfi import AutoencoderConfig, UNetConfig
from vfikit.models.lvdm import AutoencoderConfig as VideoAutoencoderConfig
from vfikit.models.lvdm import VideoUNetConfig
from vfikit.models.pretrained import Pretrained

from ..golden.fill import fill

ADACOF = AdaCoFConfig(
    kernel_size=3,
    encoder=((4, 4, 4), (5, 4, 6), (6, 6, 7), (7, 6, 8), (8, 6, 9)),
    decoder=((8, 6, 7), (8, 7, 6), (6, 5, 6), (5, 5, 5)),
    heads=((5, 4, 4),) * 6 + ((4, 5, 4),),
)
CDFI = CDFIConfig(
    kernel_size=3,
    dilation=2,
    encoder=ADACOF.encoder,
    decoder=ADACOF.decoder,
    heads=((5, 4, 4),) * 6 + ((4, 5, 4),) * 2,
    features=(1, 2, 2, 3, 3),
    grid=(4, 5, 6),
)
AUTOENCODER = AutoencoderConfig(
    width=8,
    multipliers=(1, 2),
    codes=16,
    resolution=16,
    window=2,
    head_width=4,
    taps=3,
    head_widths=(6, 5),
    groups=-4,
)
UNET = UNetConfig(width=8, multipliers=(1, 2), blocks=1, head_width=4, groups=-4)
LDMVFI = LDMVFIConfig(AUTOENCODER, UNET, sampling=Sampling(steps=2, eta=1.0, spacing="trailing"))
VIDEO_UNET = VideoUNetConfig(
    width=8, multipliers=(1, 2), blocks=1, attention_scales=(2,), heads=2, relative="regular", groups=-4
)
CONTINUING = replace(VIDEO_UNET, in_channels=5, level_embedding="label")
LVDM = LVDMConfig(
    VideoAutoencoderConfig(width=8, factors=(4, 2, 2), groups=-4),
    short=VIDEO_UNET,
    prediction=CONTINUING,
    interpolation=replace(CONTINUING, length=5),
    scale=1.0,
    shift=0.0,
    size=(8, 12),
    sampling=Sampling(steps=2, eta=1.0, spacing="trailing"),
)
TOYS = {
    "adacof": ADACOF,
    "adacof+": replace(ADACOF, kernel_size=5, dilation=2),
    "cdfi": CDFI,
    "cdfi-f5d1": replace(CDFI, kernel_size=5, dilation=1),
}


def toy(name: str = "adacof", dtype: torch.dtype = torch.float32, gain: float = 1.5) -> Pretrained:
    """A toy network, the same at every call; ``gain`` on the estimator's kernels makes offsets of pixels."""
    net = build({"ldmvfi": LDMVFI, "lvdm": LVDM}.get(name) or TOYS[name])
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            weight = torch.from_numpy(fill(key, tuple(parameter.shape)))
            parameter.copy_(weight * gain if parameter.ndim == 4 and ".synthesis." not in f".{key}" else weight)
    return net.to(dtype).eval()


def pair(height: int, width: int, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 3) -> list[Tensor]:
    """Two smooth frames that differ by a shift."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, batch, 3, 4, 4, generator=generator)
    return [nn.functional.interpolate(c, (height, width), mode="bilinear").to(dtype) for c in coarse]


ALIGNED_UNET = video_ldm.UNetConfig(
    widths=(16, 32),
    transformers=(False, True),
    blocks=1,
    heads=2,
    text_width=8,
    groups=8,
    attention="both",
    temporal_heads=2,
    alpha=0.5,
    planes=5,
)
VIDEO_LDM = VideoLDMConfig(
    unet=ALIGNED_UNET,
    autoencoder=video_ldm.AutoencoderConfig(16, (1, 1), 1, 4, 8, scale=1.0, alpha=0.5),
    sampling=Sampling(steps=2, spacing="trailing"),
    size=(16, 12),
    frames=4,
    interpolation=True,
    upsampling=True,
    upsampler=video_ldm.UpsamplerConfig(
        video_ldm.UNetConfig(
            **{**ALIGNED_UNET.__dict__, "in_channels": 6, "out_channels": 3, "noise_levels": 1000, "planes": 0}
        ),
        frames=4,
    ),
)
