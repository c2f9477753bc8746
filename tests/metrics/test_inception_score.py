"""The score by its definition, C3D's shapes, and weights under other names."""

import math

import pytest
import torch
from torch import Tensor

from vfikit.layers import C3D
from vfikit.metrics import InceptionScore, inception_score
from vfikit.metrics.inception_score import load_c3d


def weights(classes: int = 5) -> dict[str, Tensor]:
    """Random ones, of narrow linear layers, under the published names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return C3D(classes, hidden=8).state_dict()


def test_the_definition() -> None:
    p = torch.rand(7, 4, dtype=torch.float64).softmax(1)
    average = p.mean(0)
    divergences = [sum(float(q * (q / a).log()) for q, a in zip(row, average, strict=True)) for row in p]
    assert float(inception_score(p.log())) == pytest.approx(math.exp(sum(divergences) / 7))
    certain = 100 * torch.eye(4, dtype=torch.float64)
    assert float(inception_score(certain)) == pytest.approx(4)
    assert float(inception_score(certain[:1].expand(3, -1))) == pytest.approx(1)


def test_published_size() -> None:
    with torch.device("meta"):
        c3d = C3D()
    assert sum(parameter.numel() for parameter in c3d.parameters()) == 78_409_573


def test_names_of_others() -> None:
    """Chainer's, and those of ports that count single convolutions without a letter."""
    given = weights()
    chainer = {name.replace(".weight", "/W").replace(".bias", "/b"): value for name, value in given.items()}
    ported = {name.replace("1a", "1").replace("2a", "2"): value for name, value in given.items()}
    for named in (chainer, ported):
        for name, value in load_c3d(named).state_dict().items():
            assert torch.equal(value, given[name]), name


def test_what_c3d_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 frames from the first to the last, blue first, of 0 to 255, less the mean; added at once or one by one."""
    shown: list[Tensor] = []

    def c3d(clips: Tensor) -> Tensor:
        shown.append(clips)
        return clips[:, :, 0, 0, 0] / 100

    metric = InceptionScore(weights(), mean=torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
    monkeypatch.setattr(metric.c3d, "forward", c3d)
    colours = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.3]])
    videos = colours[:, None, :, None, None] * torch.linspace(1, 0, 31)[:, None, None, None].expand(31, 1, 20, 24)
    metric.add(videos)
    assert shown[0].shape == (2, 3, 16, 112, 112)
    expected = 255 * colours.flip(1)[..., None] * torch.linspace(1, 0, 16) - torch.tensor([1.0, 2.0, 3.0])[:, None]
    torch.testing.assert_close(shown[0], expected[..., None, None].expand_as(shown[0]), rtol=1e-4, atol=1e-3)
    score = metric.compute()
    assert score == pytest.approx(float(inception_score(shown[0][:, :, 0, 0, 0].double() / 100)))
    metric.reset()
    for video in videos:
        metric.add(video[None])
    assert metric.compute() == pytest.approx(score)


@pytest.mark.slow
def test_a_whole_c3d() -> None:
    metric = InceptionScore(weights())
    dim = torch.tensor([1, 0.1]).view(2, 1, 1, 1, 1)
    metric.add(dim * torch.rand(2, 18, 3, 20, 24, generator=torch.Generator().manual_seed(1)))
    assert 1 < metric.compute() <= 5


def test_missing_weights_are_listed() -> None:
    state = weights()
    del state["conv5b.bias"]
    with pytest.raises(ValueError, match=r"C3D weights lack conv5b\.bias$"):
        InceptionScore(state)
