"""Measuring video inpainting: what a clip scores, whose holes and flows are measured with, what means run over."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from vfikit.data import SyntheticClips, open_clips
from vfikit.data.images import write_image
from vfikit.files import InputError
from vfikit.metrics import psnr, warping_error
from vfikit.models import build
from vfikit.tasks.inpainting_quality import (
    HoledClip,
    HoledClips,
    Judges,
    baselines,
    filling,
    means,
    measure,
    multiply_adds,
)

from ..models.test_e2fgvi import toy

METRICS = ("psnr", "ssim", "psnr_hole", "flicker", "e_warp")


def clips() -> HoledClips:
    return HoledClips(SyntheticClips(2, 32, seed=1), length=4)


def test_rows_are_of_frames_with_holes_and_of_clips() -> None:
    data = clips()

    def lighter(clip: HoledClip) -> torch.Tensor:
        return clip.frames + 0.1 * clip.masks

    rows = list(measure(lighter, data, METRICS, Judges({}, exact_flows=True)))
    assert [row["name"] for row in rows] == ["scene 0", "scene 1"]
    for row, clip in zip(rows, (data[0], data[1])):
        assert row["frames"] == 4
        assert row["psnr_hole"] == pytest.approx(20, abs=1e-3)
        made = lighter(clip)
        assert row["psnr"] == pytest.approx(float(psnr(made, clip.frames).mean()))
        assert clip.flows is not None
        assert row["e_warp"] == pytest.approx(float(warping_error(made, *clip.flows)))
    exact = list(measure(lambda clip: clip.frames, data, ("flicker",), Judges({}), limit=1))
    assert len(exact) == 1
    assert exact[0]["flicker"] == 0


def test_frames_too_small_to_measure_are_not_filled_first() -> None:
    def never(clip: HoledClip) -> torch.Tensor:
        raise AssertionError

    with pytest.raises(InputError, match="scene 0: is 32x32, expected at least 65 pixels a side for ssim_wide"):
        next(measure(never, clips(), ("psnr", "ssim_wide"), Judges({})))


def test_means_run_over_frames_or_over_clips() -> None:
    rows = [
        {"name": "a", "frames": 3, "psnr": 20.0, "flicker": 1.0},
        {"name": "b", "frames": 1, "psnr": 40.0, "flicker": 2.0},
    ]
    assert means(rows) == {"psnr": 25.0, "flicker": 1.5}


def test_holes_are_the_data_sets_own_grown(tmp_path: Path) -> None:
    for number in range(3):
        write_image(torch.full((3, 24, 32), 0.5), tmp_path / f"JPEGImages/c/{number:05}.png")
        mask = torch.zeros(3, 24, 32)
        mask[:, 10, 8 + number] = 1
        write_image(mask, tmp_path / f"test_masks/c/{number:05}.png")
    (tmp_path / "test.json").write_text(json.dumps({"c": 3}))
    data = HoledClips(open_clips(str(tmp_path), "test", None), dilation=1)
    masks = data[0].masks
    assert masks.flatten(1).sum(1).tolist() == [5.0, 5.0, 5.0]  # a cross around each
    assert all(masks[k, 0, 10, 8 + k] == 1 for k in range(3))
    assert data[0].flows is None
    assert HoledClips(open_clips(str(tmp_path), "test", None), size=(12, 16))[0].frames.shape == (3, 3, 12, 16)


def test_holes_are_resized_as_the_published_program_does(tmp_path: Path) -> None:
    write_image(torch.full((3, 24, 32), 0.5), tmp_path / "JPEGImages/c/00000.png")
    (tmp_path / "test_masks/c").mkdir(parents=True)
    mask = Image.fromarray(numpy.random.default_rng(0).integers(0, 2, (36, 48), numpy.uint8) * 255)
    mask.save(tmp_path / "test_masks/c/00000.png")
    (tmp_path / "test.json").write_text(json.dumps({"c": 1}))
    for height, width in ((24, 32), (12, 16), (20, 64)):
        data = HoledClips(open_clips(str(tmp_path), "test", None), size=(height, width), dilation=0)
        expected = numpy.asarray(mask.resize((width, height), Image.Resampling.NEAREST)) > 0
        assert torch.equal(data[0].masks[0, 0] > 0, torch.tensor(expected))


def test_only_what_has_its_weights_is_computed() -> None:
    assert Judges({}).names == []
    assert Judges({}, exact_flows=True).names == ["e_warp"]


def test_the_model_and_what_it_must_beat() -> None:
    net, data = toy(), clips()
    methods, clip = {"net": filling(net), **baselines(net)}, data[0]
    found = {}
    for name, method in methods.items():
        made = method(clip)
        assert torch.equal(made * (1 - clip.masks), clip.frames * (1 - clip.masks)), name
        found[name] = means(list(measure(method, data, ("psnr_hole",), Judges({}), limit=1)))["psnr_hole"]
    assert found["exact_flow"] > found["still"]


@pytest.mark.slow
def test_multiply_adds_are_those_of_the_published_table() -> None:
    with torch.device("meta"):
        net = build("e2fgvi", "published")
    assert multiply_adds(net) == pytest.approx(695, rel=0.03)  # other counts of what is not a product
