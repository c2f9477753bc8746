"""What every task module offers, so that one recipe serves every model: its data, its loss, its measure of quality."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..compress.plan import Rule


class Defaults(NamedTuple):
    """What compressing a model of this task takes unless told otherwise; sizes in pixels."""

    batch_size: int
    crop: int
    size: tuple[int, int]  # of the held-out items: quality, cost and time are measured on them
    pool: int  # made-up items to train on, kept in memory
    lr: float = 2e-3
    steps: int = 600  # of fine-tuning
    rule: Rule = "consumer"  # how widths are planned
    ratio: float | None = 8.0  # times fewer parameters, or
    macs: float | None = None  # multiply-accumulates
    sampled: int | None = None  # steps at most where a model that samples is measured; None: it does not sample


class Split(NamedTuple):
    """Data to train on and data held out, by index; ``held_out`` says in words what the latter is."""

    train: Any
    test: Any
    held_out: str


class Task(Protocol):
    """A module of ``vfikit.tasks``. A batch is a named tuple of tensors, the first axis over items."""

    DEFAULTS: Defaults

    def split(
        self,
        spec: str,
        crop: int,
        size: tuple[int, int],
        pool: int,
        seed: int,
        watch: Callable[[Iterable[int]], Iterable[int]],
    ) -> Split:
        """Opens ``spec``, say "synthetic" or folders; ``watch`` wraps what takes long, to show progress."""

    def batches(self, data: Any, batch_size: int, crop: int, seed: int, steps: int, start: int = 0) -> Iterator[Any]:
        """Batches of random crops from step ``start`` to ``steps``, each a function of ``seed`` and its step alone."""

    def example(self, data: Any) -> Any:
        """The first item, whole, as a batch of one."""

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """What the model is called with."""

    def distilled(self, model: Any, teacher: Any | None, batch: Any, share: float) -> Tensor:
        """The loss, and ``share`` of the distance to what ``teacher`` makes, or of what stands in for it."""

    def quality(self, model: Any, data: Any, limit: int | None = None) -> Any:
        """``psnr`` in dB and ``ssim`` of the first ``limit`` items, or all."""
