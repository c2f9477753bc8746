import pytest
import torch

from vfikit.layers import I3D
from vfikit.metrics import VFID, VideoDistance, frechet_distance, kernel_distance, published_frechet_distance
from vfikit.metrics.video_distances import prepared, truncated


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return I3D().state_dict()


def test_published_distance_is_the_exact_one_where_covariances_have_full_rank() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(50, 6).double(), 1.5 * torch.randn(40, 6).double() + 0.3
    torch.testing.assert_close(published_frechet_distance(a, b), frechet_distance(a, b), rtol=1e-9, atol=1e-9)


def test_kernel_distance_is_unbiased_and_grows() -> None:
    torch.manual_seed(2)
    pairs = [kernel_distance(torch.randn(30, 4), torch.randn(30, 4)) for _ in range(200)]
    assert abs(torch.stack(pairs).mean()) < 0.05
    assert min(pairs) < 0
    assert kernel_distance(torch.randn(300, 4), torch.randn(300, 4) + 1) > 1


def test_kernel_distance_against_a_loop() -> None:
    torch.manual_seed(3)
    a, b = torch.randn(4, 3).double(), torch.randn(5, 3).double()

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = sum(
        sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j) / (len(x) * (len(x) - 1))
        for x in (a, b)
    )
    across = sum(k(x, y) for x in a for y in b) / 20
    assert kernel_distance(a, b).item() == pytest.approx(within - 2 * across, rel=1e-12)


def test_vfid_of_the_same_videos_is_zero_and_norms_stay() -> None:
    torch.manual_seed(4)
    metric, videos = VFID(weights()), torch.rand(3, 4, 3, 32, 40)
    before = {name: value.clone() for name, value in metric.i3d.state_dict().items()}
    for video in videos:
        metric.add(video, video)
    assert metric.compute() == pytest.approx(0, abs=1e-6)
    metric.add(videos[0], videos[0].flip(-1))
    assert metric.compute() > 0
    after = metric.i3d.state_dict()
    counted = "num_batches_tracked"
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.endswith(counted))
    metric.reset()
    assert metric._seen == ([], [])


def test_vfid_standard_form_sees_the_trained_range_and_statistics() -> None:
    torch.manual_seed(5)
    metric, video = VFID(weights(), published=False), torch.rand(2, 3, 32, 32)
    expected = metric.i3d.features((2 * video - 1).transpose(0, 1)[None]).mean((0, 2, 3, 4))
    assert torch.equal(metric.features(video), expected)
    assert not any(module.training for module in metric.i3d.modules())


def test_fvd_collects_logits_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(6)
    made, real = torch.rand(6, 2, 3, 8, 8), torch.rand(5, 2, 3, 8, 8)
    for published, frechet in ((True, published_frechet_distance), (False, frechet_distance)):
        metric = distance(published, monkeypatch)
        metric.add(made, real)
        seen = [truncated(videos) if published else videos for videos in (made, real)]
        a, b = (prepared(videos).mean((2, 3, 4)) for videos in seen)
        found = metric.compute()
        assert found == {
            "fvd": pytest.approx(frechet(a, b).item()),
            "kvd": pytest.approx(kernel_distance(a, b).item()),
        }


def distance(published: bool, monkeypatch: pytest.MonkeyPatch) -> VideoDistance:
    """Means of colours stand in for the network."""
    metric = VideoDistance(weights(), published)
    monkeypatch.setattr(metric.i3d, "forward", lambda video: video.mean((2, 3, 4)))
    return metric


def test_published_colours_are_bytes_cut_off() -> None:
    """As of what LVDM saves: clamp((x + 1) 127.5, 0, 255), truncated, for x in [-1, 1]."""
    colours = torch.tensor([-0.2, 0.0, 0.4999, 0.5, 0.9999, 1.0, 1.3])
    assert (truncated(colours) * 255).round().tolist() == [0, 0, 127, 127, 254, 255, 255]
    x = 2 * torch.rand(1000) - 1
    expected = ((x + 1) * 127.5).clamp(0, 255).byte()
    assert ((truncated((x + 1) / 2) * 255).round() - expected).abs().max() <= 1  # at the edge of a byte
    assert (truncated((x + 1) / 2) <= (x + 1) / 2 + 1e-6).all()


def test_published_runs_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means and deviations over runs of real videos; of made ones, what fills batches of 32."""
    torch.manual_seed(7)
    made, runs = torch.rand(37, 2, 3, 8, 8), [torch.rand(9, 2, 3, 8, 8) for _ in range(3)]
    metric, alone = distance(True, monkeypatch), []
    metric.add(made, runs[0])
    for run in (1, 2):
        metric.add_real(runs[run][:4], run)
        metric.add_real(runs[run][4:], run)
    for real in runs:
        single = distance(True, monkeypatch)
        single.add(made[:32], real)
        alone.append(single.compute())
    found = metric.compute()
    for name in ("fvd", "kvd"):
        values = torch.tensor([each[name] for each in alone])
        assert found[name] == pytest.approx(values.mean().item(), rel=1e-5)
        assert found[f"{name}_std"] == pytest.approx(values.std(correction=0).item(), rel=1e-3)
    assert len(metric.made) == 32


def test_weights_that_do_not_fit_are_named() -> None:
    some = weights()
    del some["logits.conv3d.bias"]
    with pytest.raises(ValueError, match=r"I3D weights lack logits.conv3d.bias"):
        VFID(some)
