"""Judges of sets of videos compute what their weights are given for, each as the metric alone does."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.metrics import FID, InceptionScore, VideoDistance, frechet_random
from vfikit.tasks.video_judges import NEEDS, VideoJudges

from ..metrics.test_frechet import inception
from ..metrics.test_inception_score import weights as c3d
from ..metrics.test_video_distances import weights as i3d


def means(videos: Tensor) -> Tensor:
    return videos.mean(tuple(range(2, videos.ndim)))


def test_without_weights() -> None:
    judges, generator = VideoJudges(), torch.Generator().manual_seed(0)
    assert judges.names == ["frechet_random"]
    made, real = (torch.rand(3, 4, 3, 16, 16, generator=generator) for _ in range(2))
    for one, other in zip(made, real, strict=True):
        judges.add(one[None], other[None], [""])
    assert judges.compute() == {"frechet_random": pytest.approx(float(frechet_random(made, real)), rel=1e-9)}


def test_all_but_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks stand in for by means: what they compute has tests of its own."""
    judges = VideoJudges({"i3d": i3d(), "c3d": c3d(), "inception": inception()}, published=False)
    assert judges.names == [name for name in NEEDS if name != "clipsim"]
    assert isinstance(judges.distance, VideoDistance)
    assert not judges.distance.published
    assert isinstance(judges.classes, InceptionScore)
    assert isinstance(judges.fid, FID)
    for net in (judges.distance.i3d, judges.classes.c3d, judges.fid.inception):
        assert isinstance(net, nn.Module)
        monkeypatch.setattr(net, "forward", means)
    made, real = torch.rand(4, 4, 3, 16, 16), torch.rand(4, 4, 3, 16, 16)
    judges.add(made, real, [""] * 4)
    found = judges.compute()
    assert [*found] == judges.names
    assert all(torch.isfinite(torch.tensor(list(found.values()))))
    assert found["fid"] > 0
    assert found["inception_score"] > 1
