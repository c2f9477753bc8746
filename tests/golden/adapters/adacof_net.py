"""AdaCoF, its compressed form and CDFI: whole forwards with their intermediates, the estimator, GridNet, training."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from vfikit.checkpoints import load_published
from vfikit.losses import Objective
from vfikit.losses.smoothness import charbonnier
from vfikit.models import build

from .case import Case, slices

MODELS = {"adacof": "adacof", "compressed_adacof": "adacof-compressed", "cdfi_adacof": "cdfi"}


def evaluate(case: Case) -> None:
    """The whole forward at any size, every stored intermediate."""
    net, parts = network(case)
    taps = tap(net, parts)
    with torch.no_grad():
        frame = net(case.take("in.frame0"), case.take("in.frame2"))
    taps["frame1"] = frame
    compare(case, complete(taps))


def get_kernel(case: Case) -> None:
    """The maps from centred frames."""
    net, parts = network(case)
    mean = torch.tensor(net.config.mean, dtype=case.dtype).view(1, 3, 1, 1)
    taps = tap(net, parts)
    with torch.no_grad():
        net(case.take("in.frame0_normalised") + mean, case.take("in.frame2_normalised") + mean)
    compare(case, complete(taps))


def gridnet(case: Case) -> None:
    """One sub-module alone; ``a_of_b`` is part a applied to part b's output."""
    net, parts = network(case)
    module = net.get_submodule(parts[case.meta["module"]])
    taps: dict[str, Tensor] = {}
    for name, part in module.named_children():
        keep_output(part, taps, name)
    with torch.no_grad():
        taps["output"] = module(case.take("in.x"))
        for name in case.outputs():
            found = re.fullmatch(r"out\.(\w+)_of_(\w+?)(_sample|_mean|_std)?", name)
            if found:
                outer, inner = found[1], found[2]
                taps[f"{outer}_of_{inner}"] = module.get_submodule(outer)(taps[inner])
    compare(case, taps)


def train(case: Case) -> None:
    """Loss, regularisers, the norm of every parameter's gradient and some gradients whole."""
    net, parts = network(case)
    taps = tap(net, parts)
    frame0, target, frame2 = (case.take(f"in.{name}") for name in ("frame0", "target", "frame2"))
    terms = net.terms(frame0, frame2)
    losses = Objective(case.meta["loss"])(
        frame0, target, frame2, terms.frame, g_spatial=terms.g_spatial, g_occlusion=terms.g_occlusion
    )
    losses.total.backward()
    taps |= {"frame1": terms.frame, "loss": losses.total, "charbonnier": charbonnier(terms.frame - target)}
    taps |= {"g_Spatial": terms.g_spatial, "g_Occlusion": terms.g_occlusion}
    ours = dict(net.published_keys())
    gradients = {key: net.get_parameter(ours[key]).grad for key in case.published().shapes}
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    case.check("out.grad_norm", norms, scale=1.0 if not norms.any() else None, most=1e-3)
    for name in case.outputs("out.grad."):
        # an offset that flips at a negative integer has another slope: one number may be farther off than a pixel
        case.check(name, gradients[name.removeprefix("out.grad.")], most=5e-3, all=1e-2)
    case.skip("out.published_grad*", "the published backward drops the input's gradient: a defect, see the op")
    compare(case, complete(taps))


def network(case: Case) -> tuple[Any, dict[str, str]]:
    """The net of the case's config with the published weights, and {published module: our module}."""
    published = case.published()
    config = dict(published.config)
    name = MODELS[config.pop("model")]
    net = build(name, "published", **config)
    if published.parameters is not None:
        counted = sum(parameter.numel() for parameter in net.parameters())
        assert counted == published.parameters, f"{name}: {counted} parameters, published {published.parameters}"
    load_published(net, published.state_dict(case.gain(published)))
    return net.to(case.dtype).eval(), modules(net.published_keys())


def modules(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """{published module: our module} for every module whose tensors keep their names inside it."""
    found: dict[str, set[str]] = {}
    for theirs, ours in pairs:
        parts = theirs.split(".")
        for end in range(1, len(parts)):
            inside = "." + ".".join(parts[end:])
            found.setdefault(".".join(parts[:end]), set()).add(
                ours.removesuffix(inside) if ours.endswith(inside) else ""
            )
    return {module: names.pop() for module, names in found.items() if len(names) == 1 and "" not in names}


def tap(net: nn.Module, parts: dict[str, str]) -> dict[str, Tensor]:
    """Fills the returned dict, at each forward, with the outputs of the published modules under the file's names."""
    taps: dict[str, Tensor] = {}

    for theirs, ours in parts.items():
        if found := re.fullmatch(r"get_kernel\.(module\w+)", theirs):
            keep_output(net.get_submodule(ours), taps, found[1])
    if "context_synthesis" in parts:
        synthesis = net.get_submodule(parts["context_synthesis"])
        keep_output(synthesis, taps, "synthesis")
        keep_output(synthesis, taps, "combined", source="input")
    return taps


def keep_output(module: nn.Module, taps: dict[str, Tensor], name: str, source: str = "output") -> None:
    """At each forward, ``taps[name]`` becomes what comes out of ``module`` (or goes in)."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taps[name] = output if source == "output" else inputs[0]

    module.register_forward_hook(hook)


def complete(taps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds what the file names otherwise or what follows from the taps."""
    taps = dict(taps)
    for name in [name for name in taps if name.startswith("module")]:
        if found := re.fullmatch(r"module(Weight|Alpha|Beta|Occlusion|Blend)(\d?)", name):
            taps[found[1].lower() + found[2]] = taps[name]
        elif found := re.fullmatch(r"module1by1_(\d)", name):
            taps[f"feature{found[1]}"] = taps[name]
    if "combined" in taps:  # frames sampled with set 1 and set 2 come first
        first, second = taps["combined"][:, 0:3], taps["combined"][:, 3:6]
        taps["warped_frame"] = taps["occlusion"] * first + (1 - taps["occlusion"]) * second
    offsets = torch.cat([taps[f"{name}{side}"].flatten() for name in ("alpha", "beta") for side in (1, 2)]).double()
    negative = offsets[offsets.round() < 0]
    # the least distance of an offset to a negative integer, where the op jumps; far away if none comes near one
    taps["offset_margin"] = (negative - negative.round()).abs().min() if len(negative) else offsets.new_tensor(1e9)
    return taps


def compare(case: Case, taps: dict[str, Tensor]) -> None:
    """Every stored output: whole, or a strided sample with mean and deviation."""
    rules = slices(case.meta.get("samples", ""))
    # Nearer to a negative integer than float32 can tell: a sample flips, and GridNet spreads it over all that follows.
    spread = {"synthesis", "frame1"} if "combined" in taps and taps["offset_margin"] < 1e-5 else set()
    for name in [name for name in case.outputs() if name in case.untouched]:
        most = 1e-4 if spread & set(re.findall("[a-z0-9]+", name)) else 1e-5
        base, _, what = name.removeprefix("out.").rpartition("_")
        if name == "out.offset_margin":
            margin(case, taps["offset_margin"])
        elif name.removeprefix("out.") in taps:
            case.check(name, taps[name.removeprefix("out.")], most=most)
        elif base in taps and what == "sample":
            case.check(name, taps[base][rule(rules, base, taps[base])], most=most)
        elif base in taps and what in ("mean", "std"):
            value = getattr(taps[base].double(), what)()
            case.check(name, value, scale=taps[base].abs().max().item(), most=most)


def rule(rules: dict[str, tuple[slice, ...]], name: str, value: Tensor) -> tuple[slice, ...]:
    """The slices for the map ``name``: the rule that names it, else the one for its number of channels."""
    if len(rules) == 1:
        return next(iter(rules.values()))
    named = [cut for what, cut in rules.items() if name in re.findall(r"\w+", what)]
    kind = "one-channel" if value.shape[1] == 1 else "multi-channel"
    return named[0] if named else next(cut for what, cut in rules.items() if kind in what)


def margin(case: Case, value: Tensor) -> None:
    """How near the nearest offset is to a jump: known to the precision of an offset, not of itself."""
    case.untouched.discard("out.offset_margin")
    expected, allowed = float(case.arrays["out.offset_margin"]), 1e-9 if case.dtype == torch.float64 else 1e-4
    if abs(value.item() - expected) > allowed + 1e-6 * expected:
        case.failures.append(f"out.offset_margin: {value.item():.3e}, expected {expected:.3e}")
