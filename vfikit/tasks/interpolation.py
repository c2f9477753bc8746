"""What training, evaluating and compressing need to know of models that make the frame between two."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..compress import distill
from ..data import Pool, Triplet, Triplets, augment, held_out, open_triplets
from ..losses import Losses, Objective
from ..metrics import interpolation_error, normalized_interpolation_error, psnr, quantise, ssim
from .judges import NEEDS, Judges
from .task import Defaults, Split

DEFAULTS = Defaults(batch_size=8, crop=96, size=(256, 256), pool=400, rule="sensitivity")
TERMS = "1*Charb+0.01*g_Spatial+0.005*g_Occlusion"
VGG_TERMS = "1*Charb+0.01*g_Spatial+0.005*VGG"  # published for CDFI and the compressed forms; needs VGG-16 weights

# What is measured, of (prediction, target). All but psnr_raw are of the prediction as an 8-bit file holds it.
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": lambda prediction, target: psnr(quantise(prediction), target),
    "psnr_raw": psnr,
    "ssim": lambda prediction, target: ssim(quantise(prediction), target),
    "ssim_gaussian": lambda prediction, target: ssim(quantise(prediction), target, "gaussian"),
    "ie": lambda prediction, target: interpolation_error(quantise(prediction), target),
    "psnr_capped": lambda prediction, target: psnr(quantise(prediction), target, epsilon=1e-8),
    "ssim_volume": lambda prediction, target: ssim(quantise(prediction), target, "volume"),
    "nie": lambda prediction, target: normalized_interpolation_error(quantise(prediction), target),
}

# What a model must beat: frames made without one.
BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": lambda frame0, frame1: (frame0 + frame1) / 2,
    "repeat": lambda frame0, frame1: frame0,
}


class Quality(NamedTuple):
    """Means over images, and a row of each: PSNR in dB, SSIM (7x7 uniform), IE, of 8-bit frames."""

    psnr: float
    ssim: float
    ie: float
    per_image: list[dict[str, Any]]


def split(
    spec: str,
    crop: int,
    size: tuple[int, int],
    pool: int,
    seed: int,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Split:
    """Triplets to train on and, whatever the folders' layouts, others held out; synthetic ones come from a ``Pool``."""
    train_spec, test_spec = held_out(spec)
    side = crop * 5 // 4
    train = open_triplets(train_spec, "train", side, seed)
    test = open_triplets(test_spec, "test", size, seed)
    return Split(Pool(train, pool, side, watch) if spec == "synthetic" else train, test, test_spec)


def batches(
    data: Triplets,
    batch_size: int,
    crop: int | tuple[int, int] | None = None,
    seed: int = 0,
    steps: int | None = None,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Triplet]:
    """Batches (N, 3, H, W) of augmented triplets, from step ``start`` up to ``steps`` (None: without end).

    Each step depends on ``seed`` and its number alone, so training resumes by ``start``. Items come in a new random
    order each epoch, an epoch ending where every item was seen. ``shard`` (rank, world) gives each of several
    processes its own part of a batch that is ``world`` times larger.
    """
    if not len(data):
        raise ValueError("batches: there are no triplets, expected at least one")
    rank, world = shard
    generator, epoch, order = torch.Generator(), -1, []
    step = start
    while steps is None or step < steps:
        items = []
        for place in range((step * world + rank) * batch_size, (step * world + rank + 1) * batch_size):
            if place // len(data) != epoch:
                epoch = place // len(data)
                order = torch.randperm(len(data), generator=generator.manual_seed(_mix(seed, epoch, 1))).tolist()
            items.append(augment(data[order[place % len(data)]], generator.manual_seed(_mix(seed, place, 2)), crop))
        yield Triplet(*(torch.stack(frames) for frames in zip(*items, strict=True)))
        step += 1


def _mix(*numbers: int) -> int:
    """One seed from several numbers, so that neighbours in one do not meet neighbours in another."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**63
        mixed ^= mixed >> 29
    return mixed


class Training(nn.Module):
    """A model and its objective as one module, so that wrappers (several devices, autocast) see the whole step.

    ``objective`` None is the published AdaCoF loss ``TERMS``, without the occlusion term for a model that has none.
    """

    def __init__(self, model: nn.Module, objective: Objective | str | None = None) -> None:
        super().__init__()
        self.model = model
        self.optional = objective is None
        self.objective = objective if isinstance(objective, Objective) else Objective(objective or TERMS)

    def forward(self, frame0: Tensor, target: Tensor, frame1: Tensor) -> tuple[Losses, Tensor]:
        """Frames (N, 3, H, W) in [0, 1] -> the losses, and the frame that the model made."""
        terms = self.model.terms(frame0, frame1)  # type: ignore[operator]
        if self.optional and not terms.occlusion_term:
            self.objective.weights.pop("g_Occlusion", None)
        wanted = self.objective.weights.keys()
        losses = self.objective(
            frame0,
            target,
            frame1,
            terms.frame,
            terms.g_spatial if "g_Spatial" in wanted else None,  # costs a tenth of a step
            terms.g_occlusion if "g_Occlusion" in wanted else None,
            (terms.warped0, terms.warped1),
        )
        return losses, terms.frame


def loss(model: nn.Module, batch: Triplet, terms: str | Objective | None = None) -> Losses:
    """The training loss of ``model`` on a batch, and its parts; see ``Training`` for ``terms``."""
    losses: Losses = Training(model, terms)(*batch)[0]
    return losses


def example(data: Triplets) -> Triplet:
    """The first triplet, whole, as a batch of one."""
    return Triplet(*(frame[None] for frame in data[0]))


def inputs(batch: Triplet) -> tuple[Tensor, Tensor]:
    """What the model is called with: frames (N, 3, H, W) in [0, 1]."""
    return batch.frame0, batch.frame1


def distilled(model: nn.Module, teacher: nn.Module | None, batch: Triplet, share: float) -> Tensor:
    """The loss to the target, and ``share`` of what a teacher adds: its frame, and both its warped frames.

    To the target it is Charbonnier's and 20 times the mean square, as PSNR is what compression is judged by. The warped
    frames are what makes a small net learn motion in minutes; without a teacher, they are drawn to the target instead.
    """
    terms = model.terms(*inputs(batch))  # type: ignore[operator]
    total = distill(terms.frame, batch.target) + 20 * (terms.frame.float() - batch.target).square().mean()
    if share <= 0:
        return total
    if teacher is None:
        height, width = batch.target.shape[2:]
        warped = [x[..., :height, :width] for x in (terms.warped0, terms.warped1)]
        return total + share * distill(warped, [batch.target] * 2)
    with torch.no_grad():
        wanted = teacher.terms(*inputs(batch))  # type: ignore[operator]
    alike = distill([terms.warped0, terms.warped1], [wanted.warped0, wanted.warped1])
    return total + share * (distill(terms.frame, wanted.frame) + alike)


@torch.no_grad()
def measure(
    interpolate: Callable[[Tensor, Tensor], Tensor],
    data: Triplets,
    metrics: Sequence[str] = ("psnr", "ssim", "ie"),
    judges: Judges | None = None,
    limit: int | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, Any]]:
    """One row an image, ``name`` and the metrics asked for, of the first ``limit`` triplets, whole and unaugmented.

    ``interpolate(frame0, frame1)`` takes and gives (1, 3, H, W); give the model itself for ``psnr_raw``, which is of
    the raw output. Metrics of ``judges.NEEDS`` need ``judges`` with their weights; ``fid`` has no rows: ask
    ``judges.fid`` in the end. An unknown metric raises ValueError.
    """
    judges = judges or Judges()
    single = [name for name in metrics if name != "fid"]
    for name in metrics:
        if name not in METRICS and name not in judges.names:
            why = "needs its weights" if name in NEEDS else f"expected {', '.join((*METRICS, *NEEDS))}"
            raise ValueError(f"metric {name!r}: {why}")
    if judges.fid is not None:
        judges.fid.reset()
    for index in range(min(len(data), limit or len(data))):
        frame0, target, frame1 = (frame[None].to(device) for frame in data[index])
        frame = interpolate(frame0, frame1).float()
        row: dict[str, Any] = {"name": data.name(index)}
        for name in single:
            if name in METRICS:
                row[name] = float(METRICS[name](frame, target))
            else:
                row[name] = float(judges.single[name](quantise(frame), target, frame0, frame1))
        if judges.fid is not None and "fid" in metrics:
            judges.fid.add(quantise(frame), target)
        yield row


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each metric over ``measure``'s rows; those named SEQUENCE#FRAME count as their sequence's mean."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for index, row in enumerate(rows):
        sequence, mark, _ = row["name"].partition("#")
        groups.setdefault((sequence, -1) if mark else ("", index), []).append(row)

    def mean(name: str) -> float:
        return sum(sum(row[name] for row in group) / len(group) for group in groups.values()) / len(groups)

    return {name: mean(name) for name in rows[0] if name != "name"}


def quality(model: Any, data: Triplets, limit: int | None = None) -> Quality:
    """How well ``model.interpolate`` makes the middle of the first ``limit`` triplets (all: None)."""
    device = next(model.parameters()).device
    rows = list(measure(model.interpolate, data, limit=limit, device=device))
    return Quality(**means(rows), per_image=rows)
