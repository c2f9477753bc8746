"""Measuring video inpainting on whole clips: what its papers quote, and flicker and the error in the holes alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..compress.cost import macs
from ..data import Draws, FileClips, SyntheticClips, irregular_masks
from ..data.images import read_image
from ..data.video_objects import test_masks
from ..files import InputError
from ..inference import dilate
from ..layers import PWCNet
from ..metrics import VFID, flicker, psnr, ssim, warping_error
from ..models.e2fgvi import E2FGVINet, Settings
from .inpainting_baselines import fill_along_flows, fill_by_network_flows, keep_still

# What its weights are needed for; E_warp needs none where flows are known exactly (synthetic clips).
NEEDS: dict[str, tuple[str, ...]] = {"vfid": ("i3d",), "e_warp": ("pwcnet",)}
WEIGHTS = ("i3d", "pwcnet")
WINDOW = 65  # of the published SSIM: frames must not be smaller


class HoledClip(NamedTuple):
    """A clip (T, 3, H, W) in [0, 1], its holes (T, 1, H, W), and flows (T - 1, 2, H, W) ahead and back where known."""

    frames: Tensor
    masks: Tensor
    flows: tuple[Tensor, Tensor] | None = None


class HoledClips:
    """Whole clips with the holes that they are measured with, grown by 4 pixels as published.

    The masks of the prepared data sets (``test_masks`` beside ``JPEGImages``), else irregular ones that are always the
    same. ``size`` (height, width) to resize to, ``length`` the most frames to take; None leaves them.
    """

    def __init__(
        self,
        clips: FileClips | SyntheticClips,
        size: tuple[int, int] | None = None,
        length: int | None = None,
        dilation: int = Settings.dilation,
    ) -> None:
        self.clips, self.size, self.length, self.dilation = clips, size, length, dilation

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, index: int) -> str:
        return self.clips.name(index)

    def __getitem__(self, index: int) -> HoledClip:
        frames = self.clips.pick(index, self.first)
        if self.size is not None and tuple(frames.shape[2:]) != self.size:
            frames = functional.interpolate(frames, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        synthetic = isinstance(self.clips, SyntheticClips)
        flows = self.clips.flows(index, self.first) if synthetic and self.size is None else None  # type: ignore[union-attr]
        return HoledClip(frames, dilate(self.masks(index, frames) > 0, self.dilation).float(), flows)

    def first(self, count: int) -> range:
        return range(min(count, self.length or count))

    def masks(self, index: int, frames: Tensor) -> Tensor:
        length, _, height, width = frames.shape
        files = test_masks(self.clips.sources[index].path) if isinstance(self.clips, FileClips) else []
        if not files:
            return irregular_masks(length, height, width, Draws.seeded(index))
        read = [(read_image(files[min(k, len(files) - 1)]) > 0).any(0, keepdim=True).float() for k in range(length)]
        return functional.interpolate(torch.stack(read), (height, width), mode="nearest-exact")


Method = Callable[[HoledClip], Tensor]  # to the filled frames (T, 3, H, W)


def filling(net: E2FGVINet, published: bool = False) -> Method:
    """The model over a whole clip; ``published``: its program's references, padding, rounding and blending."""
    settings: dict[str, Any] = {"nearest": None, "padding": "published"} if published else {}
    return lambda clip: net.inpaint(clip.frames[None], clip.masks[None], dilation=0, **settings)[0]


def baselines(net: E2FGVINet) -> dict[str, Method]:
    """What a model must beat, by name: no motion, the flows of its own network, and exact ones where they are known."""

    def exact(clip: HoledClip) -> Tensor:
        assert clip.flows is not None
        return fill_along_flows(clip.frames[None], clip.masks[None], *(flow[None] for flow in clip.flows))[0]

    return {
        "still": lambda clip: keep_still(clip.frames[None], clip.masks[None])[0],
        "flow": lambda clip: fill_by_network_flows(net, clip.frames[None], clip.masks[None])[0],
        "exact_flow": exact,
    }


class Judges:
    """``weights`` by name of ``WEIGHTS``: state dicts of I3D on Kinetics (RGB) and of PWC-Net (non-commercial)."""

    def __init__(
        self, weights: Mapping[str, Mapping[str, Tensor]], device: str | torch.device = "cpu", exact_flows: bool = False
    ) -> None:
        self.device = device
        self.vfid = VFID(weights["i3d"]).to(device) if "i3d" in weights else None
        self.flow: PWCNet | None = None
        if "pwcnet" in weights:
            self.flow = PWCNet().eval()
            self.flow.load_published(weights["pwcnet"])
            self.flow.to(device)
        known = {"vfid": self.vfid is not None, "e_warp": exact_flows or self.flow is not None}
        self.names = [name for name, able in known.items() if able]

    def flows(self, clip: HoledClip) -> tuple[Tensor, Tensor]:
        """Exact ones where they are known; else PWC-Net's on the clip itself (published: FlowNet2's)."""
        if clip.flows is not None:
            return clip.flows
        assert self.flow is not None
        frames = clip.frames.to(self.device)
        pairs = ((frames[:-1], frames[1:]), (frames[1:], frames[:-1]))
        ahead, back = (torch.cat([self.flow(a[None], b[None]) for a, b in zip(*pair)]).cpu() for pair in pairs)
        return ahead, back


def _hole(made: Tensor, clip: HoledClip) -> Tensor:
    error = (made.double() - clip.frames.double()).square().mean(1, keepdim=True)
    return -10 * ((error * clip.masks).sum() / clip.masks.sum()).log10()


# Of each frame that has a hole; means run over those of all clips.
FRAME_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": psnr,
    "ssim_wide": lambda made, frames: ssim(made, frames, "wide"),
    "ssim": ssim,
}
# Of a clip; means run over clips.
CLIP_METRICS: dict[str, Callable[[Tensor, HoledClip], Tensor]] = {
    "psnr_hole": _hole,
    "flicker": lambda made, clip: flicker(made, clip.frames),
}
METRICS = (*FRAME_METRICS, *CLIP_METRICS, *NEEDS)


@torch.no_grad()
def measure(
    method: Method, data: HoledClips, metrics: Sequence[str], judges: Judges, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """One row a clip: ``name``, ``frames`` (those with a hole) and the metrics; ``vfid`` is ``judges.vfid.compute()``.

    Frames are measured as they are made; VFID sees them cut to 8 bits, as published.
    """
    if judges.vfid is not None:
        judges.vfid.reset()
    for index in range(min(len(data), limit or len(data))):
        clip = data[index]
        if "ssim_wide" in metrics and min(clip.frames.shape[2:]) < WINDOW:
            size = "{1}x{0}".format(*clip.frames.shape[2:])
            raise InputError(f"{data.name(index)}: is {size}, expected at least {WINDOW} pixels a side for ssim_wide")
        made = method(clip).float().cpu()
        holed = clip.masks.flatten(1).any(1)  # others come back as they were: PSNR is infinite
        if not holed.any():
            raise InputError(f"{data.name(index)}: has no hole, expected one to measure")
        row: dict[str, Any] = {"name": data.name(index), "frames": int(holed.sum())}
        for name in metrics:
            if name in FRAME_METRICS:
                row[name] = float(FRAME_METRICS[name](made[holed], clip.frames[holed]).mean())
            elif name in CLIP_METRICS:
                row[name] = float(CLIP_METRICS[name](made, clip))
            elif name == "e_warp":
                row[name] = float(warping_error(made, *judges.flows(clip)))
            elif judges.vfid is not None:
                cut, real = ((255 * x).floor().div(255).to(judges.device) for x in (made.clamp(0, 1), clip.frames))
                judges.vfid.add(cut, real)
        yield row


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of ``measure``'s rows: over all frames with a hole where a metric is of frames, else over clips."""
    found = {}
    for name in rows[0].keys() - {"name", "frames"}:
        shares = [row["frames"] if name in FRAME_METRICS else 1 for row in rows]
        found[name] = sum(share * row[name] for share, row in zip(shares, rows)) / sum(shares)
    return found


def multiply_adds(net: E2FGVINet) -> float:
    """Billions of one call, 5 and 3 frames of 432x240: the FLOPs of published tables."""
    return macs(net, (torch.empty(1, 8, 3, 240, 432, device="meta"), 5)) / 1e9
