"""Batches that resume, losses of every model, and a quality that is measured as it is published."""

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from vfikit.data import Scenes, Triplet
from vfikit.losses import Objective
from vfikit.metrics import interpolation_error, psnr, quantise, ssim
from vfikit.models import MODELS, build
from vfikit.tasks import TASKS, interpolation


class Levels:
    """Flat frames that say which item they are of."""

    def __init__(self, length: int, side: int = 6) -> None:
        self.length, self.side = length, side

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Triplet:
        return Triplet(*(torch.full((3, self.side, self.side), index + time) for time in (0.0, 0.25, 0.5)))

    def name(self, index: int) -> str:
        return f"item {index}"


def items(batches: list[Triplet]) -> list[int]:
    return [int(level) for batch in batches for level in batch.target[:, 0, 0, 0]]


def same(a: list[Triplet], b: list[Triplet]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q))


NEEDED = ("split", "batches", "example", "inputs", "loss", "distilled", "quality")


def test_every_model_has_a_task() -> None:
    assert TASKS.keys() == MODELS.keys()
    for task in TASKS.values():
        assert all(callable(getattr(task, name)) for name in NEEDED)


def test_batches_resume_exactly() -> None:
    data = Scenes(7, 24, seed=1)
    whole = list(interpolation.batches(data, 2, 16, seed=5, steps=9))
    assert whole[0].target.shape == (2, 3, 16, 16)
    for start in (0, 4, 8):
        assert same(whole[start:], list(interpolation.batches(data, 2, 16, seed=5, steps=9, start=start)))
    assert not same(whole[:1], list(interpolation.batches(data, 2, 16, seed=6, steps=1)))
    assert not list(interpolation.batches(data, 2, 16, steps=3, start=3))


def test_every_epoch_sees_every_item_once() -> None:
    order = items(list(interpolation.batches(Levels(7), 2, seed=3, steps=14)))
    epochs = [order[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_shards_make_up_the_larger_batch() -> None:
    data = Scenes(5, 16, seed=2)
    whole = list(interpolation.batches(data, 4, 8, seed=1, steps=3))
    parts = [list(interpolation.batches(data, 2, 8, seed=1, steps=3, shard=(rank, 2))) for rank in (0, 1)]
    joined = [Triplet(*(torch.cat(frames) for frames in zip(*pair))) for pair in zip(*parts)]
    assert same(whole, joined)


def test_batches_augment() -> None:
    taken = list(itertools.islice(interpolation.batches(Levels(1), 1), 200))
    swapped = Counter(bool(batch.frame0[0, 0, 0, 0] > batch.frame1[0, 0, 0, 0]) for batch in taken)
    assert 70 < swapped[True] < 130


def test_batches_of_nothing() -> None:
    with pytest.raises(ValueError, match="there are no triplets"):
        next(interpolation.batches(Levels(0), 1))


def batch() -> Triplet:
    return next(interpolation.batches(Scenes(2, 32, seed=3), 2, 32))


@pytest.mark.parametrize("name", ["adacof", "cdfi"])
def test_loss(name: str) -> None:
    torch.manual_seed(0)
    model, frames = build(name, "small"), batch()
    losses = interpolation.loss(model, frames)
    terms = model.terms(frames.frame0, frames.frame1)
    expected = {"Charb": (terms.frame - frames.target).square().add(1e-6).sqrt().mean(), "g_Spatial": terms.g_spatial}
    total = expected["Charb"] + 0.01 * terms.g_spatial
    if name == "adacof":
        expected["g_Occlusion"] = terms.g_occlusion
        total = total + 0.005 * terms.g_occlusion
    assert losses.parts.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(losses.parts[part], value)
    torch.testing.assert_close(losses.total, total)
    losses.total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_terms_that_were_asked_for_must_be_there() -> None:
    model = build("cdfi", "small")
    with pytest.raises(ValueError, match="the model has no g_Occlusion"):
        interpolation.loss(model, batch(), interpolation.TERMS)
    with pytest.raises(ValueError, match="VGG needs"):
        interpolation.loss(model, batch(), "1*VGG")


def test_loss_without_smoothness_is_of_the_same_frame() -> None:
    model, frames = build("adacof", "small"), batch()
    plain = interpolation.loss(model, frames, "1*Charb").total
    torch.testing.assert_close(plain, interpolation.loss(model, frames).parts["Charb"])
    objective = Objective("3*Charb")
    losses, made = interpolation.Training(model, objective)(*frames)
    torch.testing.assert_close(losses.total, 3 * plain)
    torch.testing.assert_close(made, model(frames.frame0, frames.frame1))


class Average(nn.Module):
    """Stands for a model; knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.tensor(0.5)), 0

    def forward(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        self.calls += 1
        return self.weight * (frame0 + frame1) + 0.1

    def interpolate(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        return self(frame0, frame1).clamp(0, 1)


def test_quality() -> None:
    data, model = Scenes(5, (24, 32), seed=7), Average()
    quality = interpolation.quality(model, data, limit=3)
    assert model.calls == 3
    assert [row["name"] for row in quality.per_image] == ["scene 0", "scene 1", "scene 2"]
    for index, row in enumerate(quality.per_image):
        frame0, target, frame1 = (frame[None] for frame in data[index])
        frame = quantise(model(frame0, frame1).detach())
        assert row["psnr"] == pytest.approx(psnr(frame, target).item())
        assert row["ssim"] == pytest.approx(ssim(frame, target).item())
        assert row["ie"] == pytest.approx(interpolation_error(frame, target).item())
    for name in ("psnr", "ssim", "ie"):
        assert getattr(quality, name) == pytest.approx(sum(row[name] for row in quality.per_image) / 3)


def test_measure_raw_and_baselines() -> None:
    data = Scenes(2, (24, 32), seed=7)
    (row, _) = interpolation.measure(Average(), data, ("psnr_raw", "psnr", "ssim_gaussian", "nie"))
    frame0, target, frame1 = data[0]
    raw = (frame0 + frame1) / 2 + 0.1
    assert row["psnr_raw"] == pytest.approx(-10 * math.log10((raw - target).double().square().mean().item()), abs=1e-4)
    assert row["psnr_raw"] != row["psnr"]
    assert list(row) == ["name", "psnr_raw", "psnr", "ssim_gaussian", "nie"]
    (repeat, _) = interpolation.measure(interpolation.BASELINES["repeat"], data, ("psnr_raw",))
    assert repeat["psnr_raw"] == pytest.approx(psnr(frame0[None], target[None]).item())


@pytest.mark.parametrize(("metric", "message"), [("fvd", "expected psnr"), ("lpips_scaled", "needs its weights")])
def test_unknown_metrics(metric: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(interpolation.measure(Average(), Scenes(1, 24), (metric,)))
