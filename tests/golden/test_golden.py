"""Every golden case through the adapter of its kind; ``VFIKIT_GOLDEN=<folder>`` runs the same over another folder."""

import os
from pathlib import Path

import pytest
import torch

from .adapters import ADAPTERS
from .adapters.case import DATA, Case
from .kinds import kind

FOLDER = Path(os.environ.get("VFIKIT_GOLDEN", DATA))
SLOW = (
    "e2fgvi.full",
    "e2fgvi_hq.full_60",
    "e2fgvi_hq.full_120",
    "e2fgvi_hq.full_no",
    "e2fgvi_hq.inference",
    "lvdm_i3d.forward",
    "lvdm.long_video",
    "lvdm.autoencoder_loss",
    "lvdm.conditional_sampling",
    "e2fgvi_hq.train_step",
)
FILES = sorted(FOLDER.glob("*.npz"))


def test_there_are_cases() -> None:
    assert FILES, f"no .npz file in {FOLDER}"


def is_slow(path: Path) -> bool:
    """Networks of the published size take half a minute each: not in every run of our own files."""
    return FOLDER == DATA and (path.stem.endswith("_full") or path.stem.startswith(SLOW))


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * is_slow(p)) for p in FILES])
def test_golden(path: Path) -> None:
    adapter = ADAPTERS.get(kind(path.stem))
    assert adapter, f"{path.name} is of kind {kind(path.stem)}, which has no adapter"
    for dtype in (torch.float64, torch.float32):
        case = Case(path, dtype)
        adapter(case)
        case.finish()
