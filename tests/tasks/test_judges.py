"""Metrics that are networks: those whose weights are given, equal to the metrics themselves."""

import pytest
import torch
from torch import Tensor

from vfikit.data import Scenes
from vfikit.layers.pwcnet import PWCNet, published_keys
from vfikit.metrics import FID, LPIPS, FloLPIPS, psnr, quantise, ssim
from vfikit.tasks import interpolation
from vfikit.tasks.judges import Judges

from ..metrics.test_flolpips import alex
from ..metrics.test_frechet import inception
from ..metrics.test_lpips import weights


def pwcnet() -> dict[str, Tensor]:
    """Random weights under the names of the published file, which say module for net."""
    torch.manual_seed(0)
    own = PWCNet().state_dict()
    return {theirs.replace("net", "module"): own[ours] for theirs, ours in published_keys()}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), []),
        (("lpips",), ["lpips_unscaled", "lpips_scaled"]),
        (("lpips_alex",), ["lpips_alex"]),
        (("pwcnet",), []),
        (("lpips_alex", "pwcnet"), ["lpips_alex", "flolpips"]),
        (("inception",), ["fid"]),
    ],
)
def test_what_the_weights_allow(given: tuple[str, ...], names: list[str]) -> None:
    states = {"lpips": weights, "lpips_alex": alex, "pwcnet": pwcnet, "inception": inception}
    judges = Judges({name: states[name]() for name in given})
    assert judges.names == names
    assert {*judges.single, *(["fid"] if judges.fid else [])} == set(names)


def test_figures() -> None:
    """Each is of the frame as an 8-bit file holds it."""
    data = Scenes(2, 64)
    judges = Judges({"lpips_alex": alex(), "pwcnet": pwcnet(), "inception": inception()})
    names = ["psnr_capped", "ssim_volume", "lpips_alex", "flolpips", "fid"]
    found = list(interpolation.measure(interpolation.BASELINES["average"], data, names, judges))
    lpips, fid = LPIPS(alex(), "alex"), FID(inception())
    flow = PWCNet(stretched=True).eval()
    flow.load_published(pwcnet())
    for index, row in enumerate(found):
        frame0, target, frame1 = (frame[None] for frame in data[index])
        frame = quantise((frame0 + frame1) / 2)
        expected = {
            "psnr_capped": float(psnr(frame, target, 1e-8)),
            "ssim_volume": float(ssim(frame, target, "volume")),
            "lpips_alex": float(lpips(frame, target)),
            "flolpips": float(FloLPIPS(lpips, flow)(frame, target, frame0, frame1)),
        }
        assert row.pop("name") == data.name(index)
        assert row == pytest.approx(expected, rel=1e-5)
        fid.add(frame, target)
    assert judges.fid is not None
    assert judges.fid.compute() == pytest.approx(fid.compute(), rel=1e-4)


def test_wrong_weights() -> None:
    with pytest.raises(ValueError, match=r"LPIPS \(alex\) weights lack"):
        Judges({"lpips_alex": weights()})
