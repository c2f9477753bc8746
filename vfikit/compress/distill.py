"""What a compressed network learns from the full one, beside the task itself."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree


def distill(student: Any, teacher: Any, epsilon: float = 1e-3) -> Tensor:
    """Charbonnier distance mean(sqrt(d^2 + epsilon^2)) of two outputs: tensors, or trees of tensors alike.

    The teacher's is taken as a constant. Parts that are not floating point are left out; trees or shapes that differ
    raise ``ValueError``.
    """
    ours, theirs = ([x for x in _pytree.tree_leaves(tree) if _is_float(x)] for tree in (student, teacher))
    if [x.shape for x in ours] != [x.shape for x in theirs] or not ours:
        shapes = [[tuple(x.shape) for x in part] for part in (ours, theirs)]
        raise ValueError(f"distill: student gives {shapes[0]}, teacher {shapes[1]}, expected the same, at least one")
    parts = [((a.float() - b.detach().float()).square() + epsilon**2).sqrt().mean() for a, b in zip(ours, theirs)]
    return torch.stack(parts).mean()


@contextmanager
def features(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the modules at ``paths`` make in the latest call of ``model`` within the context, by path.

    The ends of resolution levels are a good choice. A path that is not there, or whose module makes no tensor, raises
    ``ValueError``.
    """
    modules, found, handles = dict(model.named_modules()), {}, []
    unknown = sorted(set(paths) - modules.keys())
    if unknown:
        raise ValueError(f"features: {type(model).__name__} has no module {unknown[0]!r}")
    for path in paths:

        def keep(module: nn.Module, args: Any, out: Any, path: str = path) -> None:
            if not _is_float(out):
                raise ValueError(f"features: {path} makes a {type(out).__name__}, expected a tensor of numbers")
            found[path] = out

        handles.append(modules[path].register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def distill_features(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean squared distance of what layers of two networks attend to (arXiv:1612.03928); their widths may differ.

    A feature (n, c, ...) of four axes or more, or (.., c) of fewer, becomes its mean square over channels, divided by
    the norm over all places. The teacher's are taken as constants. Other names or places raise ``ValueError``.
    """
    if student.keys() != teacher.keys() or not student:
        raise ValueError(
            f"distill_features: student has {sorted(student)}, teacher {sorted(teacher)}, expected the same"
        )
    parts = []
    for name in student:
        ours, theirs = _attention(student[name]), _attention(teacher[name].detach())
        if ours.shape != theirs.shape:
            shapes = tuple(student[name].shape), tuple(teacher[name].shape)
            raise ValueError(
                f"distill_features: {name} is {shapes[0]}, teacher's {shapes[1]}, expected the same places"
            )
        parts.append((ours - theirs).square().sum(1).mean())
    return torch.stack(parts).mean()


def _attention(feature: Tensor) -> Tensor:
    """(n, places), of norm 1."""
    squares = feature.float().square().mean(1 if feature.ndim >= 4 else -1).flatten(1)
    return nn.functional.normalize(squares, dim=1)


def sampling(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Distance of two sets of AdaCoF maps by what they sample, as the same sampling has many arrangements of taps.

    ``weightN``, ``alphaN`` and ``betaN`` (N, F*F, H, W) are compared by the expected offset and its spread, both in
    pixels (the taps' own places left out); maps of one channel (occlusion, blend) as they are. F may differ.
    """
    parts = []
    for name in student:
        if name.startswith(("alpha", "beta")):
            weight = "weight" + name[-1]
            mean, spread = _moments(student[weight], student[name])
            mean_t, spread_t = _moments(teacher[weight].detach(), teacher[name].detach())
            parts += [distill(mean, mean_t), distill(spread, spread_t)]
        elif not name.startswith("weight"):
            parts.append(distill(student[name], teacher[name]))
    return torch.stack(parts).mean()


def fade(start: float, step: int, steps: int) -> float:
    """The weight of the teacher at ``step`` (from 0): from ``start`` straight down to 0 at ``steps``, then 0."""
    return start * max(0.0, 1 - step / max(1, steps))


def _moments(weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    weight, offset = weight.float(), offset.float()
    mean = (weight * offset).sum(1)
    return mean, (weight * (offset - mean[:, None]).square()).sum(1).clamp_min(1e-12).sqrt()


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()
