"""Layers' widths as data: read them off a model, give a model others, on any device ``meta`` included."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .groups import inside

Model = TypeVar("Model", bound=nn.Module)
Width = dict[str, int]
# Integers that modules other than layers keep, under these names: how many heads, and how many channels go in or out.
HEADS = ("heads", "num_heads", "n_heads", "nheads", "n_head", "nhead", "num_attention_heads")
CHANNELS_IN = ("channels", "in_channels", "embed_dim")
CHANNELS_OUT = ("out_channels",)
NORMED = ("num_channels", "num_features", "normalized_shape")  # by norms that have no tensors
SIZES = (*HEADS, *CHANNELS_IN, *CHANNELS_OUT, *NORMED)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LAYERS = (_ConvNd, nn.Linear, *NORMS, nn.PReLU, nn.Embedding)  # what ``resize`` gives new tensors


def widths(model: nn.Module) -> dict[str, Width]:
    """``{module path: {"in": .., "out": .., "groups": ..}}`` of every convolution, linear and norm layer: plain JSON.

    ``groups`` stands where the layer has them. A norm's (and a PReLU's) ``in`` and ``out`` are its channels; a layer
    norm over several axes counts the last. Modules that keep their number of heads or channels as an integer
    (``heads``, ``num_heads``, ``channels``, ``in_channels`` ...) stand with it, and those that have tensors of their
    own with every axis: ``{"attention": {"heads": 4, "scale.0": 32}}``.
    """
    found = {path: _width(module) for path, module in model.named_modules()}
    return {path: width for path, width in found.items() if width is not None}


def resize(model: Model, widths: Mapping[str, Width]) -> Model:
    """Gives the layers of ``model`` these widths, in place, and returns it.

    A layer whose width is as it was keeps its tensors; another gets fresh ones by its own ``reset_parameters``, of the
    same device, type and ``requires_grad``. Tensors of modules that are no layers keep their first entries. A path that
    is not there, or a width that the layer cannot have, raises ``ValueError`` and leaves the model as it was.
    """
    modules = dict(model.named_modules())
    for path, width in widths.items():
        module = modules.get(path)
        current = None if module is None else _width(module)
        if current is None:
            raise ValueError(f"resize: {type(model).__name__} has no convolution, linear or norm layer {path!r}")
        if not isinstance(module, LAYERS):
            grown = [name for name in width if "." in name and width[name] > current.get(name, 0)]
            if width.keys() != current.keys() or min(width.values()) <= 0 or grown:
                raise ValueError(f"resize: {path} cannot have {dict(width)}, expected like {current}, no axis longer")
            continue
        groups = width.get("groups", 1)
        known = width.keys() == current.keys() and min(width.values()) > 0
        if not known or width["in"] % groups or width["out"] % groups:
            raise ValueError(f"resize: {path} cannot have {dict(width)}, expected like {current}, multiples of groups")
        if isinstance(module, (*NORMS, nn.PReLU)) and width["in"] != width["out"]:
            raise ValueError(f"resize: {path} cannot have {dict(width)}, expected in and out equal")
    for path, width in widths.items():
        if not isinstance(modules[path], LAYERS):
            _set_own(modules[path], width)
        elif dict(width) != _width(modules[path]):
            _set(modules[path], width["in"], width["out"], width.get("groups", 1))
    return model


def rebuild(model: Model, widths: Mapping[str, Width], modules: Sequence[str] = ()) -> Model:
    """A copy of ``model`` at these widths with fresh weights throughout: CDFI's route, training from scratch.

    ``modules`` (paths, or names inside paths) are the only ones with fresh weights, where there are any. Every module
    with tensors of its own must have ``reset_parameters``; one that has not raises ``ValueError``.
    """
    small = resize(copy.deepcopy(model), widths)
    # from the leaves up: a whole net's own rule has the last word
    for path, module in reversed(list(small.named_modules())):
        if modules and not inside(path, modules):
            continue
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))  # of torch's attention
        if reset is not None:
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"rebuild: {path} ({type(module).__name__}) has weights but no reset_parameters()")
    return small


def _width(module: nn.Module) -> Width | None:
    match module:
        case _ConvNd():
            return {"in": module.in_channels, "out": module.out_channels, "groups": module.groups}
        case nn.Linear():
            return {"in": module.in_features, "out": module.out_features}
        case nn.GroupNorm():
            return {"in": module.num_channels, "out": module.num_channels, "groups": module.num_groups}
        case _NormBase():
            return {"in": module.num_features, "out": module.num_features}
        case nn.LayerNorm() | nn.RMSNorm():
            return {"in": module.normalized_shape[-1], "out": module.normalized_shape[-1]}
        case nn.PReLU():
            return {"in": module.num_parameters, "out": module.num_parameters}
        case nn.Embedding():
            return {"in": module.num_embeddings, "out": module.embedding_dim}
    axes = {f"{name}.{axis}": n for name, tensor in own_tensors(module) for axis, n in enumerate(tensor.shape)}
    return {**stored(module, SIZES), **axes} or None


def own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """What ``module`` itself adds to the state dict, without scalars."""
    kept = module.state_dict(keep_vars=True).keys()
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [(name, tensor) for name, tensor in tensors if name in kept and tensor.ndim > 0]


def weight_names(module: nn.Module) -> list[str]:
    """The names of what multiplies in ``module`` itself: the weight of a convolution or a linear layer.

    Of torch's attention its projections; of modules of others a ``weight`` (out, in, kernel ..) of their own.
    """
    if isinstance(module, nn.MultiheadAttention):
        return [name for name, x in module.named_parameters(recurse=False) if name.endswith("proj_weight")]
    if isinstance(module, LAYERS):
        return ["weight"] if isinstance(module, _ConvNd | nn.Linear) else []
    weight = module._parameters.get("weight")
    return ["weight"] if weight is not None and weight.ndim >= 3 else []


def _set_own(module: nn.Module, width: Width) -> None:
    """Integers, and of the tensors of a module that is no layer the first entries."""
    for name, tensor in own_tensors(module):
        shape = [width[f"{name}.{axis}"] for axis in range(tensor.ndim)]
        if list(tensor.shape) != shape:
            new = tensor.detach()[tuple(slice(n) for n in shape)].clone()
            setattr(module, name, nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new)
    for name, value in width.items():
        if "." not in name:
            setattr(module, name, value)


def stored(module: nn.Module, names: Sequence[str]) -> Width:
    """The integers that ``module``, if it is no layer, keeps under any of these names."""
    if isinstance(module, LAYERS):
        return {}
    own = vars(module)
    return {name: own[name] for name in names if type(own.get(name)) is int and own[name] > 0}


def set_sizes(module: nn.Module, width: Width) -> None:
    """Makes the integers that ``module`` stores say ``width``; its tensors are the caller's affair."""
    match module:
        case _ConvNd():
            module.in_channels, module.out_channels, module.groups = width["in"], width["out"], width["groups"]
        case nn.Linear():
            module.in_features, module.out_features = width["in"], width["out"]
        case nn.GroupNorm():
            module.num_channels, module.num_groups = width["out"], width["groups"]
        case _NormBase():
            module.num_features = width["out"]
        case nn.LayerNorm() | nn.RMSNorm():
            module.normalized_shape = (*module.normalized_shape[:-1], width["out"])
        case nn.PReLU():
            module.num_parameters = width["out"]
        case nn.Embedding():
            module.num_embeddings, module.embedding_dim = width["in"], width["out"]


def _set(module: nn.Module, width_in: int, width_out: int, groups: int) -> None:
    set_sizes(module, {"in": width_in, "out": width_out, "groups": groups})
    shapes: dict[str, tuple[int, ...]] = {}
    match module:
        case _ConvTransposeNd():
            shapes = {"weight": (width_in, width_out // groups, *module.kernel_size), "bias": (width_out,)}
        case _ConvNd():
            shapes = {"weight": (width_out, width_in // groups, *module.kernel_size), "bias": (width_out,)}
        case nn.Embedding():
            shapes = {"weight": (width_in, width_out)}
        case nn.Linear():
            shapes = {"weight": (width_out, width_in), "bias": (width_out,)}
        case nn.LayerNorm() | nn.RMSNorm():
            shapes = dict.fromkeys(("weight", "bias"), tuple(module.normalized_shape))  # an RMS norm has no bias
        case _:
            shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width_out,))
    for name, shape in shapes.items():
        old: Any = getattr(module, name, None)
        if old is None:
            continue
        new = torch.empty(shape, dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
    module.reset_parameters()  # type: ignore[operator]
