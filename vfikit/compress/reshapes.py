"""How operations that only move, cut or join channels map those of their inputs to those of their output."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from .atoms import Atoms
from .folds import FIXED, Labels

Rule = Callable[[Atoms, tuple[Any, ...], Any], None]  # (atoms, arguments, output): joins, fixes, labels the output


def both(atoms: Atoms, a: Labels | None, b: Labels | None) -> Labels | None:
    return None if a is None and b is None else atoms.join(a, b, "joined with something that has no channels")


def keep(atoms: Atoms, args: tuple[Any, ...], out: Any) -> None:
    """Pooling, resizing, padding: axes stay what they are; one whose size changes has no channels."""
    out = out[0] if isinstance(out, tuple) else out
    result = atoms.of(args[0])
    for axis, labels in enumerate(result):
        if args[0].shape[axis] != out.shape[axis]:
            atoms.fix(labels, "resized along the channels")
            result[axis] = None
    atoms.set(out, result)


def cat(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    tensors, axis = args[0], (args[1] if len(args) > 1 else 0) % out.ndim
    tensors = [x for x in tensors if x.ndim == out.ndim]
    result = atoms.of(tensors[0])
    for x in tensors[1:]:
        for other, labels in enumerate(atoms.of(x)):
            if other != axis:
                result[other] = both(atoms, result[other], labels)
    parts = [atoms.of(x)[axis] for x in tensors]
    if any(part is not None for part in parts):
        pieces = [np.full(x.shape[axis], FIXED) if p is None else p for x, p in zip(tensors, parts)]
        result[axis] = np.concatenate(pieces)
    atoms.set(out, result)


def stack(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Along a new axis: what lies at the same place is one channel."""
    tensors, axis = args[0], (args[1] if len(args) > 1 else 0) % out.ndim
    result = atoms.of(tensors[0])
    for x in tensors[1:]:
        result = [both(atoms, own, labels) for own, labels in zip(result, atoms.of(x))]
    result.insert(axis, None)
    atoms.set(out, result)


def split(atoms: Atoms, args: tuple[Any, ...], out: Sequence[Tensor]) -> None:
    axis, first = (args[2] if len(args) > 2 else 0) % args[0].ndim, 0
    whole = atoms.of(args[0])[axis]
    for part in out:
        labels = atoms.of(args[0])
        labels[axis] = None if whole is None else whole[first : first + part.shape[axis]]
        first += part.shape[axis]
        atoms.set(part, labels)
    if whole is not None and len(out) > 1 and len({part.shape[axis] for part in out}) == 1:
        atoms.tie(np.split(whole, len(out)))


def slice_(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    full: tuple[Any, ...] = (*args, *(0, None, None, 1)[len(args) - 1 :])
    x, axis, start, stop, step = full
    labels = atoms.of(x)
    chosen = labels[axis % x.ndim]
    labels[axis % x.ndim] = None if chosen is None else chosen[slice(start, stop, step)]
    atoms.set(out, labels)


def select(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    labels = atoms.of(args[0])
    atoms.fix(labels.pop(args[1]), "an index into the channels")
    atoms.set(out, labels)


def unbind(atoms: Atoms, args: tuple[Any, ...], out: Sequence[Tensor]) -> None:
    for part in out:
        select(atoms, (args[0], args[1] if len(args) > 1 else 0), part)


def permute(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    labels = atoms.of(args[0])
    if len(args) == 3:  # transpose
        order = list(range(len(labels)))
        order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
    else:
        order = args[1] if len(args) == 2 else list(range(len(labels)))[::-1]
    atoms.set(out, [labels[axis] for axis in order])


def roll(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Along axes that are no channels."""
    labels = atoms.of(args[0])
    for axis in (args[2] if len(args) > 2 else ()) or range(out.ndim):
        atoms.fix(labels[axis], "channels moved along")
    atoms.set(out, labels)


def flip(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    roll(atoms, (args[0], None, args[1]), out)


def expand(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    x, labels = args[0], atoms.of(args[0])
    new = out.ndim - x.ndim
    for axis, own in enumerate(labels):
        if x.shape[axis] != out.shape[new + axis]:
            atoms.fix(own, "one channel spread over many")
            labels[axis] = None
    atoms.set(out, [*[None] * new, *labels])


def repeat(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    x, labels = args[0], atoms.of(args[0])
    labels = [*[None] * (out.ndim - x.ndim), *labels]
    atoms.set(out, [None if own is None else np.tile(own, times) for own, times in zip(labels, args[1])])


def view(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Axes that are cut apart or merged, in runs of equal products."""
    x, labels = args[0], atoms.of(args[0])
    result: list[Labels | None] = [None] * out.ndim
    i = j = 0
    while i < x.ndim or j < out.ndim:
        sources, targets = [i] if i < x.ndim else [], [j] if j < out.ndim else []
        i, j = i + len(sources), j + len(targets)
        while prod(x.shape[s] for s in sources) != prod(out.shape[t] for t in targets):
            if prod(x.shape[s] for s in sources) < prod(out.shape[t] for t in targets):
                sources, i = [*sources, i], i + 1
            else:
                targets, j = [*targets, j], j + 1
        long = [s for s in sources if x.shape[s] > 1] or sources[:1]
        wide = [t for t in targets if out.shape[t] > 1] or targets[:1]
        for source in set(sources) - set(long):
            atoms.fix(labels[source], "an axis of one channel that goes")
        flat = _merged(atoms, [x.shape[s] for s in long], [labels[s] for s in long])
        if flat is None or not wide:
            atoms.fix(flat, "an axis of one channel that goes")
        elif len(wide) == 1:
            result[wide[0]] = flat
        else:
            for target, own in zip(wide, atoms.cut(flat, [out.shape[t] for t in wide])):
                result[target] = own
    atoms.set(out, result)


def _merged(atoms: Atoms, sizes: list[int], labels: list[Labels | None]) -> Labels | None:
    """Labels of neighbouring axes merged into one: of those that have channels, repeated over the others."""
    carriers = [axis for axis, own in enumerate(labels) if own is not None]
    own = [x for x in labels if x is not None]
    if not carriers:
        return None
    grid = own[0] if len(own) == 1 else atoms.merge(own)
    shape = [size if axis in carriers else 1 for axis, size in enumerate(sizes)]
    return np.broadcast_to(grid.reshape(shape), sizes).reshape(-1)


def pixel_shuffle(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    labels = atoms.of(args[0])
    labels[-3] = atoms.blocks(labels[-3], args[1] ** 2)
    atoms.set(out, labels)


def pixel_unshuffle(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    labels = atoms.of(args[0])
    labels[-3] = None if labels[-3] is None else np.repeat(labels[-3], args[1] ** 2)
    atoms.set(out, labels)


def channel_shuffle(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    labels = atoms.of(args[0])
    labels[1] = None if labels[1] is None else labels[1].reshape(args[1], -1).T.reshape(-1)
    atoms.evenly(atoms.of(args[0])[1], args[1])
    atoms.set(out, labels)


def unfold(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """(n, c, h, w) -> (n, c * taps, places): a channel is a run of as many columns as the kernel has taps."""
    labels = atoms.of(args[0])
    channels = labels[-3]
    result: list[Labels | None] = [None] * out.ndim
    result[-2] = None if channels is None else np.repeat(channels, prod(args[1]))
    for other in labels[-2:]:
        atoms.fix(other, "unfolded")
    atoms.set(out, result)


def fold(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """(n, c * taps, places) -> (n, c, h, w)."""
    labels = atoms.of(args[0])
    atoms.fix(labels[-1], "folded")
    result: list[Labels | None] = [None] * out.ndim
    result[-3] = atoms.blocks(labels[-2], prod(args[2]))
    atoms.set(out, result)


def windows(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """Tensor.unfold: overlapping windows along an axis that is no channels, in a new last axis."""
    labels, axis = atoms.of(args[0]), args[1] % args[0].ndim
    atoms.fix(labels[axis], "windows along channels")
    labels[axis] = None
    atoms.set(out, [*labels, None])


def copy(atoms: Atoms, args: tuple[Any, ...], out: Tensor) -> None:
    """In place: only a whole tensor takes over labels, a part of one may be seen through its other views."""
    if out._is_view() or tuple(args[0].shape) != tuple(args[1].shape):
        atoms.fix_all(args[:2], "a copy into a part of a tensor")
    else:
        atoms.set(out, atoms.of(args[1]))


_KEEPING = [
    *("clone", "_to_copy", "detach", "alias", "contiguous", "lift_fresh", "constant_pad_nd"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn")),
    *(f"{kind}_pad{n}d" for n in (1, 2, 3) for kind in ("reflection", "replication")),
    *(f"{kind}{n}d" for n in (1, 2, 3) for kind in ("avg_pool", "upsample_nearest", "_upsample_nearest_exact")),
    *("max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
]
RESHAPES: dict[str, Rule] = {
    **dict.fromkeys(_KEEPING, keep),
    **dict.fromkeys(("view", "_unsafe_view", "unsqueeze", "squeeze", "reshape"), view),
    **dict.fromkeys(("permute", "transpose", "t"), permute),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), split),
    "roll": roll,
    "flip": flip,
    "cat": cat,
    "stack": stack,
    "slice": slice_,
    "select": select,
    "unbind": unbind,
    "expand": expand,
    "repeat": repeat,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "im2col": unfold,
    "col2im": fold,
    "unfold": windows,
    "copy_": copy,
}
IN_PLACE = {f"{name}_": RESHAPES[name] for name in ("squeeze", "unsqueeze", "transpose", "t")}  # the tensor's own shape
