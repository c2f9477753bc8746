"""Judges of sets of videos compute what their weights are given for, each as the metric alone does."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.data import SyntheticClips
from vfikit.metrics import FID, InceptionScore, VideoDistance, frechet_random
from vfikit.tasks import video_judges
from vfikit.tasks.video_judges import NEEDS, VideoJudges, judged

from ..metrics.test_frechet import inception
from ..metrics.test_inception_score import weights as c3d
from ..metrics.test_video_distances import weights as i3d
from ..models.toys import toy


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


@pytest.mark.parametrize("published", [True, False])
def test_published_figures_are_of_reshuffled_clips(published: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made videos are seen once, real clips of every run anew: random ones from random places."""
    monkeypatch.setattr(video_judges, "RUNS", 3)
    judges = VideoJudges({"i3d": i3d()}, published=published)
    assert judges.distance is not None
    monkeypatch.setattr(judges.distance.i3d, "forward", lambda video: video.mean((2, 3, 4)))
    reads: list[tuple[int, float]] = []

    class Watched(SyntheticClips):
        def read(self, index: int, num_frames: int, stride: int = 1, place: float = 0.0) -> Tensor:
            reads.append((index, place))
            return super().read(index, num_frames, stride, place)

    net = toy("lvdm")
    named = list(judged(net, Watched(9, 8), judges, 4, 5, 1, seed=0))
    runs = [reads[k : k + 5] for k in range(0, len(reads), 5)]
    assert len(runs) == (3 if published else 1)
    assert all(len({index for index, _ in run}) == 5 for run in runs)
    assert len({tuple(run) for run in runs}) == len(runs)
    assert ([index for index, _ in runs[0]] == list(range(5))) != published
    assert ({place for _, place in reads} == {0.0}) != published
    assert named == [SyntheticClips(9, 8).name(index) for index, _ in runs[0]]
    assert ("fvd_std" in judges.compute()) == published
