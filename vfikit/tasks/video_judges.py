"""Metrics of sets of videos: computed as far as the weights of their networks are given, never with others."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Clips
from ..metrics import FID, CLIPSimilarity, InceptionScore, RandomFeatures, VideoDistance, frechet_distance
from . import generation
from .clips import read_long_enough

# What of sets of made and real videos, and the weights that it needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "frechet_random": (),
    "fvd": ("i3d",),
    "kvd": ("i3d",),
    "inception_score": ("c3d",),
    "fid": ("inception",),
    "clipsim": ("clip",),
}
RUNS = 10  # over which LVDM's FVD and KVD are means, of one set of made videos against others of real clips
WEIGHTS = ("i3d", "c3d", "inception")


def judged(
    model: Any, data: Clips, judges: "VideoJudges", frames: int, limit: int, steps: int | None = None, seed: int = 0
) -> Iterator[str]:
    """Has ``judges`` see as many made videos as there are real clips, at most ``limit``; gives the clips' names.

    By judges of published figures the clips are random ones from random places, and in ``RUNS`` runs others.
    """
    published = judges.distance is not None and judges.distance.published
    for video in generation.sampled(model, data, frames, limit, steps, seed, shuffled=published):
        judges.add(video.made, video.real, [video.text])
        yield data.name(video.item)
    for run in range(1, RUNS if published else 1):
        for _, real in read_long_enough(data, frames, limit, seed + run):
            judges.add_real(real[None].to(judges.device), run)


class VideoJudges:
    """``weights`` by name of ``WEIGHTS``: state dicts of I3D of Kinetics-400, of C3D of UCF-101, of FID's Inception.

    ``clip`` is a name or a folder of CLIP as transformers takes it. ``published`` is FVD and KVD as LVDM measured them,
    see ``VideoDistance``. ``names`` are those of what is computed.
    """

    def __init__(
        self,
        weights: Mapping[str, Mapping[str, Tensor]] | None = None,
        clip: str | Path | None = None,
        published: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        weights, self.device = weights or {}, device
        given = {*weights, *(() if clip is None else ("clip",))}
        self.names = [name for name, needs in NEEDS.items() if given.issuperset(needs)]
        self.random = RandomFeatures().to(device)
        self.distance = VideoDistance(weights["i3d"], published).to(device) if "i3d" in weights else None
        self.classes = InceptionScore(weights["c3d"]).to(device) if "c3d" in weights else None
        self.fid = FID(weights["inception"]).to(device) if "inception" in weights else None
        self.clip = None if clip is None else CLIPSimilarity(clip).to(device)
        self._seen: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def add(self, made: Tensor, real: Tensor, texts: Sequence[str]) -> None:
        """Takes in videos (N, T, 3, H, W) in [0, 1], real ones, and the texts that the former were made of, or ""."""
        for seen, videos in zip(self._seen, (made, real), strict=True):
            seen.append(self.random(videos).cpu())
        if self.distance is not None:
            self.distance.add(made, real)
        if self.classes is not None:
            self.classes.add(made)
        if self.fid is not None:
            self.fid.add(made.flatten(0, 1), real.flatten(0, 1))
        if self.clip is not None:
            self.clip.add(made, texts)

    def add_real(self, real: Tensor, run: int) -> None:
        """Takes in real videos of a further run, which the distances by I3D are a mean over."""
        if self.distance is not None:
            self.distance.add_real(real, run)

    def compute(self) -> dict[str, float]:
        """Every metric of ``names`` over all videos."""
        made, real = (torch.cat(features) for features in self._seen)
        found = {"frechet_random": float(frechet_distance(made, real))}
        if self.distance is not None:
            found |= self.distance.compute()
        for name, judge in (("inception_score", self.classes), ("fid", self.fid), ("clipsim", self.clip)):
            if judge is not None:
                found[name] = judge.compute()
        return found
