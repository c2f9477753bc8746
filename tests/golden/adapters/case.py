"""One golden file: its inputs, the weights under its published names, and a comparison that forgets nothing."""

import fnmatch
import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..fill import fill

DATA = Path(__file__).parent.parent / "data"


class Case:
    """A ``.npz`` case in one precision.

    ``take`` reads an input, ``check`` compares an output, ``skip`` names arrays that this precision or this project
    does not compute, with the reason. ``finish`` fails if an array differs or was neither read, compared nor skipped.
    """

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.path, self.name, self.dtype = path, path.stem, dtype
        self.meta = json.loads(str(self.arrays.pop("meta"))) if "meta" in self.arrays else {}
        self.untouched = set(self.arrays)
        self.failures: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def outputs(self, prefix: str = "out.") -> list[str]:
        """The stored names that begin with ``prefix``."""
        return [name for name in self.arrays if name.startswith(prefix)]

    def variants(self, prefix: str) -> list[str]:
        """What ``meta`` has under names that begin with ``prefix``."""
        return [name.removeprefix(prefix) for name in self.meta if name.startswith(prefix)]

    def take(self, name: str) -> Tensor:
        """An input as a tensor; floating point becomes the case's precision."""
        self.untouched.discard(name)
        tensor = torch.from_numpy(self.arrays[name])
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def skip(self, pattern: str, reason: str) -> None:
        """Arrays that match ``pattern`` are not compared, because of ``reason``."""
        assert reason, f"{self.name}: {pattern} is skipped without a reason"
        self.untouched -= set(fnmatch.filter(self.untouched, pattern))

    def check(
        self,
        name: str,
        value: Tensor,
        *,
        scale: float | None = None,
        most: float = 1e-5,
        all: float = 1e-3,
        double: float = 1e-6,
    ) -> None:
        """Compares ``value`` with the stored array, relative to the largest stored value (or ``scale``).

        float64: every number within ``double``, more than 1e-6 where the reference itself ran in float32. float32:
        99.9 % of them (or all but one pixel) within ``most``, because an offset at a negative integer may fall on its
        other side; all within ``all``.
        """
        self.untouched.discard(name)
        expected = self.arrays[name].astype(np.float64)
        got = value.detach().double().cpu().numpy()
        if got.shape != expected.shape:
            self.failures.append(f"{name}: shape {got.shape}, expected {expected.shape}")
            return
        if not np.isfinite(got).all():
            self.failures.append(f"{name}: {np.count_nonzero(~np.isfinite(got))} numbers are not finite")
            return
        error = np.abs(got - expected) / (scale or np.abs(expected).max(initial=0.0) or 1.0)
        worst = error.max(initial=0.0)
        if self.dtype == torch.float64:
            if worst > double:
                self.failures.append(f"{name}: off by {worst:.2e} of the largest value, allowed {double:.0e}")
            return
        pixel = expected.shape[1] if expected.ndim == 4 else min(expected.ndim, 1)
        flipped = np.count_nonzero(error > most)
        if flipped > max(pixel, 0.001 * error.size):
            self.failures.append(
                f"{name}: {flipped} of {error.size} are off by more than {most:.0e}, worst {worst:.2e}"
            )
        if worst > all:
            self.failures.append(f"{name}: off by {worst:.2e} of the largest value, allowed {all:.0e}")

    def finish(self) -> None:
        """Raises ``AssertionError`` with everything that differs and everything that was forgotten."""
        forgotten = [f"{name}: never compared" for name in sorted(self.untouched)]
        assert not self.failures + forgotten, "\n".join([f"{self.name}, {self.dtype}:", *self.failures, *forgotten])

    def published(self, family: str | None = None) -> "Published":
        """The ``<family>.keys.json`` beside the file, else the one shipped; the family is the file's unless given."""
        family = family or self.name.partition(".")[0]
        names = (family, family.removesuffix("_hidden"))
        paths = [folder / f"{name}.keys.json" for folder in (self.path.parent, DATA) for name in names]
        found = next((path for path in paths if path.exists()), None)
        assert found, f"{self.name}: no {family}.keys.json beside it"
        return Published(json.loads(found.read_text()))

    def gain(self, published: "Published") -> float:
        """The case's own gain, or that of its weights."""
        return float(self.take("gain")) if "gain" in self else self.meta.get("gain", published.gain)


class Published:
    """A published state dict: its keys and shapes, and the deterministic weights that stand under them."""

    def __init__(self, spec: dict) -> None:
        self.config: dict = spec["config"]
        self.shapes: dict[str, tuple[int, ...]] = {key: tuple(shape) for key, shape in spec["keys"].items()}
        self.left: list[str] = spec.get("left", [])
        self.gain: float = spec.get("gain", 1.0)
        self.parameters: int | None = spec.get("parameters")
        # "<pattern> are abs(fill(...)) with gain 1": weights that must not be negative
        self.absolute: str = spec.get("absolute", "").partition(" ")[0]

    def state_dict(self, gain: float) -> dict[str, Tensor]:
        """float32 tensors under the published names, without those that the constructor makes."""
        return {
            key: _weight(key, shape, gain, bool(self.absolute) and fnmatch.fnmatch(key, self.absolute)).clone()
            for key, shape in self.shapes.items()
            if key not in self.left
        }


@lru_cache(maxsize=400)
def _weight(key: str, shape: tuple[int, ...], gain: float, absolute: bool) -> Tensor:
    tensor = torch.from_numpy(np.asarray(fill(key, shape)))
    if absolute:
        return tensor.abs()
    return tensor * gain if len(shape) >= 2 else tensor


def slices(text: str) -> dict[str, tuple[slice, ...]]:
    """``"[:, ::6, 1::7] of maps, [:, ::4] of others"`` as {"maps": slices, "others": slices}."""
    found = re.findall(r"\[([\d:, ]+)\] (?:of|for) ([^\[;]+)", text)
    return {what.strip(" ,"): tuple(_slice(part) for part in rule.split(",")) for rule, what in found}


def _slice(text: str) -> slice:
    numbers = [int(part) if part.strip() else None for part in text.split(":")]
    return slice(*numbers)
