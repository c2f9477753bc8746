"""Training E2FGVI: its discriminator, its losses, a whole step, learning rates, the masks that are drawn."""

import random
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vfikit.data.masks import Draws, Motion, irregular_masks
from vfikit.layers import SPyNet, TemporalPatchDiscriminator
from vfikit.layers.spynet import published_keys as spynet_keys
from vfikit.losses import GAMES, FlowTargets, InpaintingLoss, region_errors
from vfikit.training import cosine_restarts, stepped

from . import sampled
from .case import Case
from .e2fgvi_nets import network, unpacked
from .weights import load

NEAR = {"most": 1e-4, "all": 1e-3, "double": 5e-5}  # the reference ran in float32
NORMS = NEAR | {"most": 1e-4, "double": 1e-4}  # norms of large tensors, taken in float32


def judge(case: Case) -> TemporalPatchDiscriminator:
    """The published discriminator; its vectors are filled, then brought to length 1."""
    published = case.published("e2fgvi_discriminator")
    net = TemporalPatchDiscriminator()
    assert sum(p.numel() for p in net.parameters()) == published.parameters
    published.left = []  # the vectors too are filled
    state = published.state_dict(published.gain)
    load(net, {k: v / v.norm() if k.endswith(("weight_u", "weight_v")) else v for k, v in state.items()})
    return net.to(case.dtype)


def discriminator(case: Case) -> None:
    net, frames = judge(case), case.take("frames_uint8").to(case.dtype) / 255 * 2 - 1
    last = torch.sigmoid if case.meta["config"]["use_sigmoid"] else torch.nn.Identity()
    first = net.get_submodule("conv.0")
    for name in ("first", "second"):
        sampled.check(case, f"output_train_{name}_call", last(net.train()(frames)), **NEAR)
        case.check(f"u0_after_{name}_call", first.weight_u, **NEAR)
    case.check("v0_after_second_call", first.weight_v, **NEAR)
    sampled.check(case, "output_eval_after_two_calls", last(net.eval()(frames)), **NEAR)
    sigmas = [layer.sigma() for layer in net.conv if hasattr(layer, "sigma")]
    case.check("sigmas", torch.stack(sigmas), **NEAR)


def frozen_flow(case: Case) -> FlowTargets:
    """SPyNet under its published names, filled as ``fix_spynet.*``."""
    published = case.published("e2fgvi_hq" if case.name.startswith("e2fgvi_hq") else "e2fgvi")
    names = {f"update_spynet.{theirs}": ours for theirs, ours in spynet_keys()}
    published.shapes = {
        f"fix_spynet.{key.removeprefix('update_spynet.')}": shape
        for key, shape in published.shapes.items()
        if key in names
    }
    state = published.state_dict(published.gain)
    flow = SPyNet()
    load(flow, {names[f"update_spynet.{key.removeprefix('fix_spynet.')}"]: value for key, value in state.items()})
    return FlowTargets(flow.to(case.dtype))


def losses(case: Case) -> None:
    config, real, made = case.meta["config"], case.take("d_real"), case.take("d_fake")
    hinge = GAMES["hinge"]
    case.check("hinge_d_real", hinge.real(real), **NEAR)
    case.check("hinge_d_fake", hinge.made(made), **NEAR)
    case.check("hinge_g", hinge.generator(made), **NEAR)
    case.check("nsgan_real", GAMES["nsgan"].real(real), **NEAR)
    case.check("lsgan_fake", GAMES["lsgan"].made(made), **NEAR)
    frames = case.take("frames_uint8").to(case.dtype) / 255
    masks = case.take("masks").to(case.dtype)
    assert masks.shape == (config["batch"], config["frames"], 1, config["height"], config["width"])
    hole, valid = region_errors(case.take("pred"), 2 * frames - 1, masks)
    case.check("hole", hole, **NEAR)
    case.check("valid", valid, **NEAR)
    flow = frozen_flow(case)
    sampled.check(case, "quarter_frames", flow.quarter(frames), **NEAR)
    sampled.check(case, "gt_flow_forward", flow.targets(frames)[0].flatten(0, 1), **NEAR)
    case.check("flow", flow(case.take("pred_flow_forward"), case.take("pred_flow_backward"), frames), **NEAR)


def train_step(case: Case) -> None:
    config = case.meta["config"]
    count, local = config["batch"], config["local_frames"]
    frames = case.take("frames").to(case.dtype) / 255 * 2 - 1
    masks = unpacked(case.take("masks"), (count, frames.shape[1], 1, *frames.shape[3:])).to(case.dtype)
    net, game = network(case).train().requires_grad_(True), InpaintingLoss(frozen_flow(case), judge(case).train())
    assert isinstance(game.discriminator, TemporalPatchDiscriminator)
    made = net(frames * (1 - masks), local)
    sampled.check(case, "pred", made.frames.flatten(0, 1) if case.arrays["pred.shape"].size == 4 else made.frames)
    scores: list[Tensor] = []
    hook = game.discriminator.register_forward_hook(lambda _module, _inputs, output: scores.append(output))
    judged = game.discriminator_loss(made.frames, frames, masks).total
    hook.remove()
    case.check("dis_loss", judged, **NEAR)
    case.check("real_scores", scores[0], **NEAR)
    case.check("fake_scores", scores[1], **NEAR)
    opponent = torch.optim.Adam(game.discriminator.parameters(), lr=1e-4, betas=(0.0, 0.99))
    judged.backward()
    case.check("discriminator_grad_norms", norms(game.discriminator.named_parameters()), **NORMS)
    opponent.step()
    found = game(*made, frames, masks)
    for name in ("hole", "valid", "flow"):
        case.check(name, getattr(found, name), **NEAR)
    case.check("gan", 0.01 * found.adversarial, scale=1.0, most=1e-6, all=1e-6)
    case.check("total", found.total, **NEAR)
    before = (last := net.decoder[-1].weight).detach().clone()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.0, 0.99))
    found.total.backward()
    ours = dict(net.published_keys())
    named = [(name, net.get_parameter(ours[name])) for name in case.meta["generator_params"]]
    case.check("generator_grad_norms", norms(named), **NORMS)
    optimizer.step()
    case.check("decoder6_weight_change", (last.detach() - before)[:, ::8], most=2e-3, all=2.0, double=2e-3)


def norms(named) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.stack([parameter.grad.norm() for _, parameter in named])


def lr_schedule(case: Case) -> None:
    steps = range(max(len(values) for values in case.arrays.values()))
    rates = {
        "multistep": [stepped(1e-4, k, (20, 40, 40)) for k in steps],
        "multistep_restart": [stepped(1e-4, k, (10, 35), 0.5, ((30, 0.5),)) for k in steps],
        "cosine": [cosine_restarts(1e-4, k, (20, 20, 30), (1, 0.5, 0.25)) for k in steps],
    }
    for name, values in rates.items():
        case.check(name, torch.tensor(values[: len(case.arrays[name])], dtype=torch.float64), double=1e-9)


def mask_motion(case: Case) -> None:
    config = case.meta["config"]
    (width, height), (row, column) = config["region"], config["start"]
    room, rows = (config["height"] - height, config["width"] - width), []
    for seed in config["seeds"]:
        draw = np.random.RandomState(seed)
        motion = Motion(row, column, draw.uniform(3, 1), draw.uniform(0, 2 * np.pi))
        for _ in range(config["steps"] + 1):
            rows.append((seed, *motion))
            motion = motion.next(room, draw)
    case.check("trace_seed_x_y_speed_angle", torch.tensor(rows, dtype=torch.float64), double=1e-9)


def mask_samples(case: Case) -> None:
    """The published rasteriser is another: coverages to a thousandth, shapes but for their edges."""
    config = case.meta["config"]
    clips = drawn(*(config[name] for name in ("seed", "trials", "frames", "height", "width")))
    still = torch.tensor([bool((clip == clip[0]).all()) for clip in clips])
    coverage = torch.tensor([clip[0].float().mean() for clip in clips])
    stored = unpacked(case.take("first_and_last_bits"), tuple(case.take("first_and_last_shape").tolist()))
    same = _follows(case, coverage, still)
    kept = torch.stack([clip[[0, -1]] for clip in clips[: config["keep"]]]).reshape(stored.shape)
    first = len(stored) if same else 1
    both, either = (kept & stored)[:first], (kept | stored)[:first]
    overlap = both.flatten(1).sum(1) / either.flatten(1).sum(1)
    if overlap.min() < 0.97:
        case.failures.append(f"first_and_last_bits: overlaps are {overlap.tolist()}, expected at least 0.97")


@lru_cache
def drawn(seed: int, trials: int, length: int, height: int, width: int) -> list[Tensor]:
    """Masks (T, H, W) as bool."""
    draws = Draws(random.Random(seed), np.random.RandomState(seed))
    return [irregular_masks(length, height, width, draws).bool()[:, 0] for _ in range(trials)]


def _follows(case: Case, coverage: Tensor, still: Tensor) -> bool:
    """Whether all draws were the same; a box that is off by a pixel can shift later ones, then statistics agree."""
    wanted, wanted_still = case.take("coverage").float(), case.take("still")
    apart = (coverage - wanted).abs()
    if apart.max() < 1e-3 and torch.equal(still, wanted_still):
        return True
    if apart[0] >= 1e-3 or still[0] != wanted_still[0]:
        case.failures.append(f"coverage: the first clip is off by {apart[0]:.1e}")
    if abs(coverage.mean() - wanted.mean()) > 0.02 or abs(still.double().mean() - wanted_still.double().mean()) > 0.25:
        case.failures.append(f"coverage: mean {coverage.mean():.4f}, expected {wanted.mean():.4f} within 0.02")
    return False
