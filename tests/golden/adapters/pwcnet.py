"""PWC-Net, its parts, FloLPIPS, and LDMVFI's evaluation metrics."""

import re
from itertools import chain

import torch
from torch import Tensor

from vfikit.layers.pwcnet import PWCNet, backwarp, correlation, published_keys, to_pixels
from vfikit.metrics import LPIPS, FloLPIPS, psnr, quantise, ssim

from .case import Case, Published

BOUNDS = {"most": 5e-5, "all": 2e-4, "double": 2e-5}  # the reference ran in float32


def correlate(case: Case) -> None:
    first, second = (case.take(f"input_{name}").requires_grad_() for name in ("first", "second"))
    out = correlation(first, second)
    case.check("expect_output", out, **BOUNDS)
    gradients = torch.autograd.grad(out, (first, second), case.take("input_grad_output"))
    for name, gradient in zip(("first", "second"), gradients, strict=True):
        case.check(f"expect_grad_{name}", gradient, **BOUNDS)


def warp(case: Case) -> None:
    features, flow = (case.take(f"input_{name}").requires_grad_() for name in ("features", "flow"))
    out = backwarp(features, flow, stretched=True)
    case.check("expect_output", out, **BOUNDS)
    gradients = torch.autograd.grad(out, (features, flow), case.take("input_grad_output"))
    for name, gradient in zip(("features", "flow"), gradients, strict=True):
        case.check(f"expect_grad_{name}", gradient, **BOUNDS)


def forward(case: Case) -> None:
    net, (first, second) = network(case), images(case, "first", "second")
    taps: dict[str, Tensor] = {}
    raw = net.raw_flow(net.pyramid(first), net.pyramid(second), taps)
    for stored in case.outputs("expect_"):
        name = stored.removeprefix("expect_")
        if name == "flow":
            value = to_pixels(raw, first.shape[2:])
        elif found := re.fullmatch(r"(\w+)_c(\d+)", name):
            value = taps[found[1]][:, : int(found[2])]
        elif found := re.fullmatch(r"(\w+)_every(\d+)", name):
            value = taps[found[1]][:, :: int(found[2])]
        else:
            value = taps[name]
        case.check(stored, value, **BOUNDS)


def estimate(case: Case) -> None:
    net, (first, second) = network(case), images(case, "first", "second")
    taps: dict[str, Tensor] = {}
    net.raw_flow(net.pyramid(first), net.pyramid(second), taps)
    case.check("expect_flow", net(first, second), **BOUNDS)
    case.check("expect_flow_2", taps["flow_2"], **BOUNDS)
    case.check("expect_refinement", taps["refinement"], **BOUNDS)


def flolpips(case: Case) -> None:
    metric = FloLPIPS(alex(case), network(case))
    inputs, targets, outputs = images(case, "inputs", "target", "output")
    previous, following = inputs[:-1], inputs[1:]
    scores = metric(outputs, targets, previous, following)
    differences, each = [], []
    for t in range(len(targets)):
        for to in (following[t : t + 1], previous[t : t + 1]):
            difference = metric.flow(targets[t : t + 1], to) - metric.flow(outputs[t : t + 1], to)
            differences.append(difference)
            each.append(metric.weighted(targets[t : t + 1], outputs[t : t + 1], difference))
    case.check("expect_flow_differences", torch.cat(differences), most=2e-4, all=1e-3, double=1e-4)
    case.check("expect_scores", torch.cat(each), **BOUNDS)
    case.check("expect_score", scores.mean(), **BOUNDS)
    terms = metric.terms(targets[:1], outputs[:1], differences[0])
    case.check("expect_layer_terms", torch.cat(terms), **BOUNDS)
    # input 0, target 0, input 1, target 1, input 2, ...; the outputs stand where the targets do
    between = ([*chain(*zip(inputs, middle)), inputs[-1]] for middle in (outputs, targets))
    video = metric.video(*map(torch.stack, between))
    case.check("expect_video_scores", video, **BOUNDS)
    case.check("expect_video_score", video.mean(), **BOUNDS)


def evaluation(case: Case) -> None:
    target, output = (case.take(f"input_{name}") for name in ("gt", "output"))
    metric = FloLPIPS(alex(case), PWCNet())
    difference = case.take("input_flow_difference")
    case.check("expect_flolpips", metric.weighted((target + 1) / 2, (output + 1) / 2, difference), **BOUNDS)
    target, output = (quantise((x + 1) / 2) for x in (target, output))
    case.check("expect_psnr", psnr(output, target, epsilon=1e-8), **BOUNDS)
    case.check("expect_ssim", ssim(output, target, "volume"), **BOUNDS)
    case.check("expect_lpips_alex", metric.lpips(output, target), **BOUNDS)


def network(case: Case) -> PWCNet:
    published = case.published("pwcnet")
    net = PWCNet(stretched=True)
    assert sum(p.numel() for p in net.parameters()) == published.parameters
    assert {theirs for theirs, _ in published_keys()} == published.shapes.keys()
    net.load_published(published.state_dict(published.gain))
    return net.to(case.dtype).eval().requires_grad_(False)


def alex(case: Case) -> LPIPS:
    keys, absolute = case.meta["keys"], case.meta["absolute"]
    state = Published({"config": {}, "keys": keys, "left": case.meta["left"]}).state_dict(1.0)
    return LPIPS({key: value.abs() if key in absolute else value for key, value in state.items()}, "alex").to(
        case.dtype
    )


def images(case: Case, *names: str) -> list[Tensor]:
    return [case.take(f"input_{name}").to(case.dtype) / 255 for name in names]
