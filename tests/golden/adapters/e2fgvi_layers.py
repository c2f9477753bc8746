"""E2FGVI's layers, each alone: warp, SPyNet, soft split and composition, attention, feed-forward, whole blocks."""

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from vfikit.layers.focal import FocalAttention, FocalBlock, FusionFeedForward
from vfikit.layers.propagation import BidirectionalPropagation, DeformableAlignment
from vfikit.layers.propagation import published_keys as propagation_keys
from vfikit.layers.spynet import SPyNet, published_keys
from vfikit.ops import SoftComposition, SoftSplit, warp

from .case import Case, Published
from .sampled import check, cotangent, stored
from .weights import keep_input, keep_output, load

LAYER = 1e-5  # the reference ran in float32
KINKS = 2e-2
KERNEL, STRIDE, PADDING = 7, 3, 3  # of soft split and composition, in every configuration


def flow_warp(case: Case) -> None:
    for mode in [name.removeprefix("output_") for name in case.outputs("output_")]:
        x, flow = case.take("x").requires_grad_(), case.take("flow").requires_grad_()
        out = warp(x, flow.permute(0, 3, 1, 2), padding_mode=mode, align_corners=True)
        case.check(f"output_{mode}", out, double=LAYER)
        grad_x, grad_flow = torch.autograd.grad(out, (x, flow), case.take("grad_output"))
        case.check(f"grad_x_{mode}", grad_x, double=LAYER)
        # on a pixel the derivative is that of either side, as rounding has it: the reference ran in float32
        place = flow + torch.stack(torch.meshgrid(*map(torch.arange, flow.shape[1:3]), indexing="ij")[::-1], dim=-1)
        either = ((place - place.round()).abs() < 1e-5).any(-1, keepdim=True)
        either &= case.dtype == torch.float64 and min(flow.shape[1:3]) > 1  # an axis of one pixel has no sides
        assert either.float().mean() < 0.25
        stored_here = case.take(f"grad_flow_{mode}")
        case.check(f"grad_flow_{mode}", torch.where(either, stored_here, grad_flow), double=LAYER)


def spynet(case: Case) -> None:
    net = SPyNet()
    fill(case, net, dict(published_keys()), prefix=case.meta["prefix"])
    taps: dict[str, Tensor] = {}
    for index, level in enumerate(net.levels):
        keep_input(level, taps, f"level{index}_input")
        keep_output(level, taps, f"level{index}_residue")
    ref, supp = (case.take(name).requires_grad_() for name in ("ref", "supp"))
    flow = net(ref, supp)
    check(case, "flow", flow)
    for name, value in taps.items():
        if stored(case, name):
            check(case, name, value)
    if "grad_output" in case or "grad_output_seed" in case:
        gradients = torch.autograd.grad(flow, (ref, supp, *net.parameters()), cotangent(case, flow))
        kinked(case, "grad_ref", gradients[0])
        kinked(case, "grad_supp", gradients[1])
        norms(case, "grad_weight_norms", gradients[2:], KINKS / 10)


def soft_split_comp(case: Case) -> None:
    config = case.meta["config"]
    channels, hidden, size = config["channel"], config["hidden"], tuple(config["size"])
    split = SoftSplit(channels, hidden, KERNEL, STRIDE, PADDING)
    compose = SoftComposition(hidden, channels, KERNEL, STRIDE, PADDING)
    state = weights(case)
    load(split, {"embedding.weight": state["ss.embedding.weight"], "embedding.bias": state["ss.embedding.bias"]})
    load(compose, {"embedding.weight": state["sc.embedding.weight"], "embedding.bias": state["sc.embedding.bias"]})
    split.to(case.dtype), compose.to(case.dtype)
    x = case.take("x").requires_grad_()
    tokens = split(x)
    output = compose(tokens, size)
    if config["hq"]:
        weight, bias = (state[f"sc.bias_conv.{part}"].to(case.dtype) for part in ("weight", "bias"))
        output = nn.functional.conv2d(output, weight, bias, padding=1)
    else:
        output = output + state["sc.bias"].to(case.dtype)
    check(case, "tokens", tokens.unflatten(0, (config["batch"], config["frames"])))
    check(case, "output", output)
    check(case, "grad_x", torch.autograd.grad(output, x, cotangent(case, output))[0])


def fusion_feed_forward(case: Case) -> None:
    config = case.meta["config"]
    shapes = case.meta["keys"]
    layer = FusionFeedForward(config["dim"], shapes["mlp.conv1.0.bias"][0] // KERNEL**2, KERNEL, STRIDE, PADDING)
    fill(case, layer, {theirs: f"{theirs[4:9]}.{theirs[12:]}" for theirs in shapes})
    rows, columns = ((side - 1) // STRIDE + 1 for side in config["size"])
    x = case.take("x").requires_grad_()
    tokens = x.unflatten(1, (-1, rows, columns)).flatten(0, 1)
    output = layer(tokens, tuple(config["size"])).view_as(x)
    check(case, "output", output)
    check(case, "grad_x", torch.autograd.grad(output, x, cotangent(case, output))[0])


def window_attention(case: Case) -> None:
    config = case.meta["config"]
    window, frames = tuple(config["window"]), config["frames"]
    layer = FocalAttention(config["dim"], config["heads"], window, tuple(config.get("focal_window", window)))
    names = [key for key in case.meta["keys"] if not key.endswith("valid_ind_rolled")]
    fill(case, layer, {key: key.removeprefix("attn.") for key in names})
    x, pooled = case.take("x").requires_grad_(), case.take("pooled").requires_grad_()
    levels = [pooled.permute(0, 3, 1, 2, 4)] if config["focal_level"] > 1 else []
    output = layer(x, levels)
    check(case, "output", in_windows(output, window))
    gradients = torch.autograd.grad(
        output,
        (x, pooled),
        from_windows(cotangent(case, in_windows(output, window)), output, window),
        allow_unused=True,
    )
    check(case, "grad_x", gradients[0])
    if levels:
        check(case, "grad_pooled", gradients[1])
    rolled, order = published_order(layer, x, levels)
    check(case, "valid_ind_rolled", rolled)
    with torch.no_grad():
        keys = layer.keys(tuple(x.shape[2:4]), [tuple(level.shape[2:4]) for level in levels])
        q, k, _ = layer.project(x, layer.rows(x, levels), keys)
        ours = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        far = torch.full_like(ours[..., :1], -100.0)  # published: a pooled token outside the map
        own, count = window[0] * window[1], keys.places.shape[1]
        by_frame = torch.cat([ours.unflatten(3, (frames, count)), far[..., None].expand(-1, -1, -1, frames, -1)], -1)
        groups = [own, len(rolled), order.shape[1] - own - len(rolled)]
        index = order.repeat(x.shape[0], 1)[:, None, None, None].expand(*by_frame.shape[:4], -1)
        parts = by_frame.gather(4, index).split(groups, dim=4)
        logits = torch.cat([part.flatten(3) for part in parts], dim=3)
    check(case, "logits", logits)
    check(case, "probs", logits.softmax(-1))
    check(case, "probs_window0_head0_query0", logits.softmax(-1)[0, 0, 0])


def published_order(layer: FocalAttention, x: Tensor, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The kept positions of the four rolled copies; for each window where the published keys of a frame are in ours.

    One more than the last of ours stands for padding.
    """
    (height, width), around = layer.window, layer.surroundings()
    above, left = height // 2, width // 2
    place = torch.arange(around.numel()).view(around.shape)
    own = torch.zeros_like(around, dtype=torch.bool)
    own[above : above + height, left : left + width] = True
    corners = [(2 * above, 2 * left), (2 * above, 0), (0, 2 * left), (0, 0)]  # a roll by -shift shows what lies below
    seen = torch.cat([place[top : top + height, start : start + width].flatten() for top, start in corners])
    rolled = (~own.flatten()[seen]).nonzero()[:, 0]
    counts = torch.bincount(torch.cat([place[own], seen[rolled]]), minlength=around.numel()).view_as(around)
    assert torch.equal(counts.float(), around), "how often the surroundings count"
    fine = torch.cat([place[own], seen[rolled]])
    windows = x.shape[2] // height, x.shape[3] // width
    order = [fine.repeat(windows[0] * windows[1], 1)]
    if levels:
        order.append(around.numel() + pooled_order(layer, windows))
    return rolled, torch.cat(order, dim=1)


def pooled_order(layer: FocalAttention, windows: tuple[int, int]) -> Tensor:
    """(windows, focal positions): which of the pooled tokens of ours stands there; the number of ours for padding."""
    shown = [min(extent, count) for extent, count in zip(layer.focal_window, windows)]
    rows = []
    for row in range(windows[0]):
        for column in range(windows[1]):
            first = [
                min(max(place - extent // 2, 0), count - show)
                for place, extent, count, show in zip((row, column), layer.focal_window, windows, shown)
            ]
            for i in range(layer.focal_window[0]):
                for j in range(layer.focal_window[1]):
                    y, x = row - layer.focal_window[0] // 2 + i, column - layer.focal_window[1] // 2 + j
                    inside = 0 <= y < windows[0] and 0 <= x < windows[1]
                    rows.append((y - first[0]) * shown[1] + x - first[1] if inside else shown[0] * shown[1])
    return torch.tensor(rows).view(windows[0] * windows[1], -1)


def block(case: Case) -> None:
    config, keys = case.meta["config"], case.meta["keys"]
    prefix = case.meta["prefix"]
    hidden = next(shape[0] for key, shape in keys.items() if key.endswith("mlp.conv1.0.bias")) // KERNEL**2
    window, size = tuple(config["window"]), tuple(config["size"])
    feed_forward = FusionFeedForward(config["dim"], hidden, KERNEL, STRIDE, PADDING)
    focal = tuple(config.get("focal_window", window)), config.get("focal_level", 2)
    layer = FocalBlock(config["dim"], config["heads"], window, *focal, feed_forward)
    names = [key.removeprefix(prefix) for key in keys if not key.endswith("valid_ind_rolled")]
    fill(case, layer, {name: block_name(name) for name in names}, prefix)
    taps: dict[str, Tensor] = {}
    keep_output(layer.pool, taps, "pooled")
    keep_output(layer.attn, taps, "attention")
    keep_output(layer.mlp, taps, "feed_forward")
    x = case.take("x").requires_grad_()
    output = layer(x, size)
    check(case, "output", output)
    check(case, "pooled", taps["pooled"][0].permute(0, 2, 3, 1, 4))
    check(case, "attention", in_windows(taps["attention"], window))
    check(case, "feed_forward", taps["feed_forward"].reshape(x.shape[0], -1, x.shape[4]))
    ours = dict(layer.named_parameters())
    order = [ours[block_name(name.removeprefix(prefix))] for name in case.meta["param_order"]]
    gradients = torch.autograd.grad(output, (x, *order), cotangent(case, output))
    check(case, "grad_x", gradients[0])
    norms(case, "grad_param_norms", gradients[1:])


BLOCK_NAMES = (("pool_layers.", "pool.levels."), ("mlp.conv1.0.", "mlp.conv1."), ("mlp.conv2.1.", "mlp.conv2."))


def block_name(published: str) -> str:
    for theirs, ours in BLOCK_NAMES:
        published = published.replace(theirs, ours)
    return published


def in_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B, T, H, W, C) as published: (B * windows, T * height * width, C)."""
    return rearrange(x, "n t (r i) (c j) d -> (n r c) (t i j) d", i=window[0], j=window[1])


def from_windows(x: Tensor, like: Tensor, window: tuple[int, int]) -> Tensor:
    _, frames, height, width, _ = like.shape
    sizes = {"t": frames, "i": window[0], "j": window[1], "r": height // window[0], "c": width // window[1]}
    return rearrange(x, "(n r c) (t i j) d -> n t (r i) (c j) d", **sizes)


def weights(case: Case) -> dict[str, Tensor]:
    """The tensors of ``meta.keys`` under just those names."""
    return Published({"config": {}, "keys": case.meta["keys"]}).state_dict(1.0)


def fill(case: Case, module: nn.Module, names: Mapping[str, str], prefix: str = "") -> None:
    """Fills ``module`` with the tensors of ``prefix`` + the keys of ``names``, whose values are our names."""
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    keys = {prefix + theirs: shapes[ours] for theirs, ours in names.items()}
    state = Published({"config": {}, "keys": keys}).state_dict(1.0)
    load(module, {ours: state[prefix + theirs] for theirs, ours in names.items()})
    module.to(case.dtype).eval()


def kinked(case: Case, name: str, gradient: Tensor) -> None:
    """A gradient through warps: it jumps where a flow ends on a pixel, on either side of which rounding may put it.

    In float32 and float64 they differ by up to 9e-3 of the largest value; most of their numbers by far less.
    """
    check(case, name, gradient, most=KINKS, all=KINKS, double=KINKS)
    if name in case:
        off = (gradient.double() - torch.from_numpy(case.arrays[name]).double()).abs().median()
        if off > 1e-4 * gradient.abs().max():
            case.failures.append(f"{name}: half of its numbers are off by {off:.2e}")


def norms(case: Case, name: str, gradients: tuple[Tensor, ...], allowed: float = 1e-4) -> None:
    check(case, name, torch.stack([gradient.norm() for gradient in gradients]), most=allowed, double=allowed)


def deform_align(case: Case) -> None:
    config, keys = case.meta["config"], case.meta["keys"]
    groups = config.get("deform_groups", keys["conv_offset.6.bias"][0] // 27)
    layer = DeformableAlignment(config["channel"], groups)
    fill(case, layer, {name: name for name in keys}, case.meta["prefix"])
    taps: dict[str, Tensor] = {}
    keep_output(layer.conv_offset, taps, "conv_offset_output")
    inputs = [case.take(name).requires_grad_() for name in ("x", "extra_feat", "flow_1", "flow_2")]
    output = layer(*inputs)
    check(case, "output", output)
    check(case, "conv_offset_output", taps["conv_offset_output"])
    ours = dict(layer.named_parameters())
    order = [ours[name] for name in case.meta["param_order"]]
    gradients = torch.autograd.grad(output, (*inputs, *order), cotangent(case, output))
    for name, gradient in zip(("x", "extra_feat", "flow_1", "flow_2"), gradients):
        check(case, f"grad_{name}", gradient)
    norms(case, "grad_param_norms", gradients[len(inputs) :])


def propagation(case: Case) -> None:
    config, keys = case.meta["config"], case.meta["keys"]
    groups = config.get("deform_groups", keys["deform_align.backward_.conv_offset.6.bias"][0] // 27)
    layer = BidirectionalPropagation(config["channel"], groups)
    fill(case, layer, dict(propagation_keys()), case.meta["prefix"])
    branches: dict[str, list[Tensor]] = {}
    for way, branch in (("backward", layer.backward_branch), ("forward", layer.forward_branch)):
        branch.register_forward_hook(lambda _m, _i, output, way=way: branches.__setitem__(way, output))
    with torch.no_grad():
        output = layer(*(case.take(name) for name in ("x", "flows_forward", "flows_backward")))
    check(case, "output", output)
    check(case, "backward_features", torch.stack(branches["backward"][::-1], dim=1))
    check(case, "forward_features", torch.stack(branches["forward"], dim=1))
