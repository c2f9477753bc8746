"""Video-LDM's temporal layers with the weights that stand under their published names."""

import json
import re

import torch
from torch import Tensor, nn

from vfikit.layers import Conv3DLayer, TemporalAttentionLayer
from vfikit.layers.temporal import causal_mask, positional_encoding, project, window_mask

from .case import DATA, Case, Published
from .weights import mixed

DOUBLE = 1e-5  # the reference ran in float32


def state_of(case: Case, op: str) -> dict[str, Tensor]:
    """The weights of a stand-alone layer or block."""
    families = dict.fromkeys((case.name.partition(".")[0], "video_ldm"))
    paths = [folder / f"{family}_ops.keys.json" for folder in (case.path.parent, DATA) for family in families]
    ops = json.loads(next(path for path in paths if path.exists()).read_text())["ops"]
    return mixed(Published({"config": {}, "keys": ops[op]["keys"]}).state_dict(1.0))


def encodings(case: Case) -> None:
    """``dim<width>`` is the published form, ``standard_dim<width>`` the standard one, ``*_last_rows`` end at 511."""
    for name in list(case.arrays):
        if found := re.fullmatch(r"(standard_)?dim(\d+)(_last_rows)?", name):
            standard, width, last = found.groups()
            rows = len(case.arrays[name])
            table = positional_encoding(512 if last else rows, int(width), "standard" if standard else "published")
            case.check(name, table[-rows:], all=2e-5, double=DOUBLE)


def convolution(case: Case) -> None:
    """Any number of variants, each with its own factor."""
    state = state_of(case, f"Conv3DLayer_{case.arrays['input'].shape[1]}")
    frames = int(case.take("frames"))
    x, grad_output = case.take("input"), case.take("grad_output")
    for variant in [name.removeprefix("output_") for name in case.outputs("output_")]:
        alpha = float(case.take(f"const_alpha_{variant}"))
        layer = Conv3DLayer(x.shape[1])
        layer.load_state_dict({**state, "alpha": torch.full((1,), alpha)})
        layer.to(case.dtype)
        given = x.clone().requires_grad_()
        output = layer(given, frames)
        (output * grad_output).sum().backward()
        gradients = gradients_of(layer)
        case.check(f"output_{variant}", output, double=DOUBLE)
        case.check(f"grad_input_{variant}", grad(given), double=DOUBLE)
        case.check(f"grad_alpha_{variant}", gradients["alpha"], most=2e-5, double=2e-5)
        if variant == "mixed" and "grad_block1_conv" in case:
            case.check("grad_block1_conv", gradients["block1.2.weight"][::4], most=2e-5, double=2e-5)
        assert layer.alpha.item() == alpha, "forward wrote into alpha"
        project(layer)
        case.check(f"const_alpha_after_{variant}", layer.alpha, double=DOUBLE)
    layer.load_state_dict({**state, "alpha": torch.zeros(1)})
    case.check("branch", layer(x, frames), double=DOUBLE)


def attention(case: Case) -> None:
    """Any number of variants: of frames or to a text, with a mask or without."""
    for variant in [
        name.removesuffix("_input") for name in case.arrays if name.endswith("_input") and "_grad_" not in name
    ]:
        state = state_of(case, f"TemporalAttentionLayer_{variant}")
        x = case.take(f"{variant}_input").requires_grad_()
        crosses = f"{variant}_context" in case
        context = case.take(f"{variant}_context").requires_grad_() if crosses else None
        mask = case.take(f"mask_{variant}") if f"mask_{variant}" in case else None
        width = context.shape[2] if context is not None else None
        layer = TemporalAttentionLayer(x.shape[1], int(case.take(f"{variant}_heads")), width)
        case.check(f"const_{variant}_alpha", state["alpha"], double=DOUBLE)
        layer.load_state_dict(state)
        layer.to(case.dtype)
        output = layer(x, int(case.take(f"{variant}_frames")), context, mask)
        (output * case.take(f"{variant}_grad_output")).sum().backward()
        gradients = gradients_of(layer)
        case.check(f"{variant}_output", output, double=DOUBLE)
        case.check(f"{variant}_grad_input", grad(x), double=DOUBLE)
        case.check(f"{variant}_grad_alpha", gradients["alpha"], most=2e-5, double=2e-5)
        case.check(f"{variant}_grad_q_proj", gradients["q_proj.weight"][::4], most=2e-5, double=2e-5)
        if context is not None:
            case.check(f"{variant}_grad_context", grad(context), double=DOUBLE)


def masks(case: Case) -> None:
    """``mask_causal``, ``mask_causal_strict`` and ``mask_window<distance>`` of any number of frames."""
    for name in list(case.arrays):
        if found := re.fullmatch(r"mask_(?:window(\d+)|causal(_strict)?)", name):
            distance, strict = found.groups()
            frames = len(case.arrays[name])
            mask = window_mask(frames, int(distance)) if distance else causal_mask(frames, diagonal=not strict)
            case.check(name, mask, all=0, double=0)


def grad(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: grad(parameter) for name, parameter in module.named_parameters()}
