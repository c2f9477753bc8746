"""I3D and what measures videos: Frechet and kernel distances, VFID's features, warping error, PSNR and SSIM."""

import torch

from vfikit.layers import I3D
from vfikit.metrics import (
    VFID,
    frechet_distance,
    kernel_distance,
    occlusion,
    psnr,
    published_frechet_distance,
    ssim,
    warping_error,
)
from vfikit.metrics.video_distances import load_i3d, prepared, published_root

from . import sampled
from .case import Case
from .weights import keep_output


def features(case: Case) -> None:
    """Of a video in [0, 1], as VFID takes them: by trained statistics, and by its own."""
    video = case.take("video").to(case.dtype) / 255
    weights = case.published().state_dict(1.0)
    taps: dict[str, torch.Tensor] = {}
    trained = load_i3d(weights, case.published().config["batch_norm_eps"]).to(case.dtype)
    keep_output(trained.Conv3d_1a_7x7, taps, "conv1_eval")
    keep_output(trained.get_submodule("Mixed_3c"), taps, "mixed_3c_eval")
    case.check("features_eval", trained.features(video.transpose(1, 2)).mean((2, 3, 4)), double=2e-5)
    for name, value in taps.items():
        sampled.check(case, name, value)
    # norms by statistics of a dozen numbers carry float32 differences on: the reference ran in float32
    published = VFID(weights).to(case.dtype)
    found = torch.stack([published.features(each) for each in video])
    case.check("features_train", found, most=2e-3, all=2e-3, double=2e-3)
    left = published.i3d.state_dict()
    assert all(torch.equal(left[name], value.to(case.dtype)) for name, value in weights.items())


def lvdm_i3d(case: Case) -> None:
    video = case.take("video_uint8").to(case.dtype).permute(0, 1, 4, 2, 3) / 255
    net = load_i3d(case.published().state_dict(1.0), 1e-5).to(case.dtype)
    cuts = {
        "conv1": ("Conv3d_1a_7x7", (16, 2, 16, 16)),
        "mixed_3b": ("Mixed_3b", (16, 2, 4, 4)),
        "mixed_4b": ("Mixed_4b", (16, 1, 4, 4)),
        "mixed_5c": ("Mixed_5c", (16, 1, 1, 1)),
    }
    taps: dict[str, torch.Tensor] = {}
    keep_output(net.pool, taps, "pooled")
    for name, (module, _) in cuts.items():
        keep_output(net.get_submodule(module), taps, name)
    case.check("logits", net(prepared(video)), most=5e-5, double=2e-5)
    case.check("pooled", taps["pooled"], most=5e-5, double=2e-5)
    for name, (_, (c, t, h, w)) in cuts.items():
        case.check(name, taps[name][:, ::c, ::t, ::h, ::w], most=5e-5, double=2e-5)
    assert len(I3D().state_dict()) == len(case.published().shapes)


def frechet(case: Case) -> None:
    case.check("distance", frechet_distance(case.take("real"), case.take("fake")), most=1e-5, double=1e-5)


def lvdm_metrics(case: Case) -> None:
    """Float32 numbers in float32, others in float64, whatever the case's precision."""
    a, b, c, e = (case.take(f"features_{name}") for name in "abce")
    single = case.dtype == torch.float32
    case.check("const_frechet", published_frechet_distance(a, b), most=1e-4, double=1e-4)
    case.check("const_frechet_f64", published_frechet_distance(a.double(), b.double()), most=1e-6)
    case.check("const_frechet_f64", frechet_distance(a, b), most=1e-6)
    # the root of a matrix that has none: float32's zeros and float64's are others
    case.check("const_frechet_deficient", published_frechet_distance(c, e), most=1e-2, all=1e-2, double=1e-2)
    covariance = torch.cov(a.T)
    case.check("cov_a", covariance)
    root = published_root(covariance)
    case.check("sqrt_cov", root, most=1e-4, double=1e-5)
    cross = published_root(root @ torch.cov(b.T) @ root).trace()
    case.check("const_trace_sqrt", cross, most=1e-4, double=1e-5)
    case.check("const_kvd_f64", kernel_distance(a, b), most=1e-5 if single else 1e-9)
    video = case.take("video_uint8").to(case.dtype).permute(0, 1, 4, 2, 3) / 255
    case.check("preprocessed_sample", prepared(video)[..., ::8, ::8], most=1e-5, double=1e-5)


def warp_error(case: Case) -> None:
    frames = case.take("frames").to(case.dtype) / 255
    flows = [case.take(f"flow_{way}").permute(0, 3, 1, 2) for way in ("forward", "backward")]
    case.check("warp_error", warping_error(frames, *flows), double=1e-6)
    sampled.check(case, "occlusion", occlusion(*flows).double())


def psnr_ssim(case: Case) -> None:
    first = case.take("img1").to(case.dtype).permute(2, 0, 1)[None] / 255
    second = (case.take("img2_times_4").to(case.dtype) / 4).permute(2, 0, 1)[None] / 255
    case.check("psnr", psnr(first, second)[0], double=1e-9)
    case.check("ssim", ssim(first, second, "wide")[0], double=1e-9)
