"""How each operation of a network maps the channels of its inputs to those of its output.

One rule an operation (specified by its aten name), a few lines each; an operation without a rule fixes the channels
that reach it, so that nothing wrong is ever cut. ``CHANNEL_MAPS`` holds the same for whole Modules: those whose inside
has no channels to cut, or whose rearrangement only the Module knows. A new layer adds one line there. Their rules are
given the arguments of ``forward`` in its order, and last a dict of the Module's parameters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..ops import AdaCoF
from ..ops.fold import CutPatches, JoinPatches
from .atoms import Atoms
from .folds import Labels
from .reshapes import IN_PLACE, RESHAPES, Rule, both


def samples_first(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """The first argument's channels come out in their places; the other arguments are outputs of the net, never cut."""
    atoms.fix_all((x for x in args[1:] if isinstance(x, Tensor)), "a map that steers sampling")
    atoms.set(out, [None, atoms.of(args[0])[1], *[None] * (out.ndim - 2)])


def last_axis(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """The first argument's channels stay the last axis."""
    atoms.set(out, [*[None] * (out.ndim - 1), atoms.of(args[0])[-1]])


def pointwise(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Operands share their channels; one channel spread over many is no channel to cut."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    result: list[Labels | None] = []
    for axis in range(-out.ndim, 0):
        parts = []
        for x in tensors:
            if x.ndim < -axis:
                continue
            labels = atoms.of(x)[axis]
            if x.shape[axis] == out.shape[axis]:
                parts.append(labels)
            else:
                atoms.fix(labels, "one channel spread over many")
        joined = parts[0] if parts else None
        if any(part is not None for part in parts):
            for part in parts[1:]:
                joined = atoms.join(joined, part, "joined with something that has no channels")
        result.append(joined)
    atoms.set(out, result)


def convolution(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    x, weight, bias, *_, transposed, _, groups = args
    width, labels = atoms.of(x), atoms.of(weight)
    for other in (width[0], *width[2:], *labels[2:]):
        atoms.fix(other, "an axis of a convolution that has no channels")
    inputs, outputs = (labels[0], labels[1]) if transposed else (labels[1], labels[0])
    if groups == 1:
        atoms.join(width[1], inputs, "an input with fixed channels")
    elif groups == x.shape[1] and not transposed:
        atoms.fix(inputs, "one input channel a group")
        per_input = atoms.blocks(outputs, out.shape[1] // groups)
        atoms.join(width[1], per_input, "an input with fixed channels")
    elif transposed:  # the weight has all inputs, and the outputs of one group
        inputs = atoms.join(width[1], inputs, "an input with fixed channels")
        atoms.evenly(inputs, groups)
        outputs = None if outputs is None else np.tile(outputs, groups)
    else:  # the weight has the inputs of one group, and all outputs
        atoms.join(atoms.evenly(width[1], groups), inputs, "an input with fixed channels")
        atoms.evenly(outputs, groups)
    if bias is not None:
        atoms.join(outputs, atoms.of(bias)[0], "a bias with fixed channels")
    atoms.set(out, [None, outputs, *[None] * (out.ndim - 2)])


def deformable(names: Sequence[str]) -> Rule:
    """A convolution whose offsets and mask stay; a group of offsets moves a run of input channels, evenly cut."""

    def rule(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
        given = dict(zip(names, args))
        x, weight, offset = given["input"], given["weight"], given["offset"]
        steering = (given[name] for name in ("offset", "mask") if given.get(name) is not None)
        atoms.fix_all(steering, "a map that steers sampling")
        atoms.evenly(atoms.of(x)[1], offset.shape[1] // (2 * weight.shape[2] * weight.shape[3]))
        convolution(atoms, (x, weight, given.get("bias"), False, None, x.shape[1] // weight.shape[1]), out)

    return rule


def matmul(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """(.., m, k) @ (.., k, n). Where k is no layer's weight (attention), its size sets a scale elsewhere: never cut."""
    a, b = args[-2:]
    left, right = atoms.of(a), atoms.of(b)
    if a.ndim == 3:
        for labels in (left[2], right[1]):
            atoms.fix(labels, "a product of two features")
    else:
        atoms.join(left[-1], right[-2], "an input with fixed channels")
    result = [*left[:-1], right[-1]]
    if a.ndim == 3:
        result[0] = both(atoms, left[0], right[0])
    if len(args) == 3:
        result[-1] = atoms.join(right[-1], atoms.of(args[0])[-1], "a bias with fixed channels")
    atoms.set(out, result)


def batch_norm(atoms: Atoms, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> None:
    labels = atoms.of(args[0])
    for x in args[1:5]:
        if x is not None:
            labels[1] = atoms.join(labels[1], atoms.of(x)[0], "a norm of fixed channels")
    atoms.set(out[0], labels)


def group_norm(atoms: Atoms, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> None:
    """Whole groups: another number of channels in one would change its statistics. A single one is as a layer norm."""
    x, weight, bias, _, channels, _, groups = args[:7]
    labels = atoms.of(x)
    for other in (weight, bias):
        if other is not None:
            labels[1] = atoms.join(labels[1], atoms.of(other)[0], "a norm of fixed channels")
    if groups > 1:
        atoms.blocks(labels[1], channels // groups)
    atoms.set(out[0], labels)


def layer_norm(atoms: Atoms, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> None:
    x, shape, *affine = args[:4]
    labels = atoms.of(x)
    for other in (x for x in affine if x is not None):
        for axis, own in enumerate(atoms.of(other), start=x.ndim - len(shape)):
            labels[axis] = atoms.join(labels[axis], own, "a norm of fixed channels")
    atoms.set(out[0], labels)


def rms_norm(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    x, affine = args[0], tuple(args[-1].values())
    layer_norm(atoms, (x, affine[0].shape if affine else (), *affine), (out,))


def multihead_attention(atoms: Atoms, args: tuple[Any, ...], out: tuple[Tensor, Any]) -> None:
    """torch's own takes its heads together to be as wide as the query: a head goes with as many channels of that."""
    streams, parameters = [atoms.of(x)[-1] for x in args[:3]], args[-1]
    heads, outputs, why = atoms.counters[0], None, "an attention of fixed channels"
    width = args[0].shape[-1] // len(heads)
    atoms.join(atoms.blocks(streams[0], width), heads, why)
    for name, tensor in parameters.items():
        labels = atoms.of(tensor)
        if name.startswith("out_proj"):
            outputs = atoms.join(outputs, labels[0], why) if name.endswith("bias") else labels[0]
        elif name.endswith("weight"):
            for stream in streams if name == "in_proj_weight" else [streams["qkv".index(name[0])]]:
                atoms.join(labels[1], stream, why)
        for axis in (0, 1) if name.startswith("bias_") else ():
            atoms.fix(labels[axis], "one more key and value")
        inner = labels[{"out_proj.weight": 1, "bias_k": 2, "bias_v": 2}.get(name, 0)]
        if name != "out_proj.bias" and inner is not None:
            for part in inner.reshape(-1, width * len(heads)):  # queries, keys and values in one, or one of them
                atoms.join(atoms.blocks(part, width), heads, why)
    atoms.set(out[0], [*[None] * (out[0].ndim - 1), outputs])


def reduce(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Sums, means, maxima and softmax over the axes named by the second argument, all where it names none."""
    x, labels = args[0], atoms.of(args[0])
    axes = args[1] if len(args) > 1 and args[1] is not None else list(range(x.ndim))
    named = {axis % x.ndim for axis in ([axes] if isinstance(axes, int) else axes or range(x.ndim))}
    for axis in named:
        atoms.fix(labels[axis], "a sum over channels")
    kept: list[Labels | None] = [None if axis in named else own for axis, own in enumerate(labels)]
    if out.ndim != x.ndim:
        kept = [own for axis, own in enumerate(kept) if axis not in named]
    atoms.set(out, kept)


def embedding(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Rows are indices, columns channels."""
    atoms.set(out, [*[None] * (out.ndim - 1), atoms.of(args[0])[1]])


def gated(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """glu: the first half times the sigmoid of the second."""
    axis = (args[1] if len(args) > 1 else -1) % out.ndim
    labels = atoms.of(args[0])
    labels[axis] = atoms.evenly(labels[axis], 2)
    atoms.set(out, labels)


CHANNEL_MAPS: dict[type[nn.Module], Rule] = {
    AdaCoF: samples_first,
    CutPatches: last_axis,
    JoinPatches: last_axis,
    nn.RMSNorm: rms_norm,
    nn.MultiheadAttention: multihead_attention,
}
DEFORMABLE = ("vfikit::deform_conv2d", "torchvision::deform_conv2d")
RULES: dict[str, Rule] = {
    **RESHAPES,
    **IN_PLACE,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "prod"), reduce),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), reduce),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), matmul),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), batch_norm),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d"), samples_first),
    "linalg_vector_norm": lambda atoms, args, out: reduce(atoms, (args[0], *args[2:]), out),
    "_prelu_kernel": pointwise,
    "convolution": convolution,
    "vfikit::conv3x3": lambda atoms, args, out: convolution(atoms, (*args[:3], False, None, args[4]), out),
    "native_group_norm": group_norm,
    "native_layer_norm": layer_norm,
    "glu": gated,
    "embedding": embedding,
    **dict.fromkeys(("vfikit::adacof", "vfikit::dsepconv"), samples_first),
}


def rule_of(operation: Any) -> Rule | None:
    """The rule of an aten overload; None where there is none."""
    name = operation._schema.name.removeprefix("aten::")
    if name in DEFORMABLE:
        return deformable([argument.name for argument in operation._schema.arguments])
    if name in RULES:
        return RULES[name]
    return pointwise if torch.Tag.pointwise in operation.tags else None
