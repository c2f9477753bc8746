"""The report of an evaluation."""

import errno
from pathlib import Path

import pytest

from vfikit.evaluation import Measured, write

MEASURED = Measured(
    "image", ["psnr"], ["psnr"], (), {}, {"model": [{"name": "a", "psnr": 34.0}]}, {"model": {"psnr": 34.0}}, {}
)


def test_reports_are_there_both_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may fill between one and the other."""
    written = Path.write_text

    def fill(path: Path, text: str) -> int:
        if path.suffix == ".md":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", fill)
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path, "adacof", {}, MEASURED)
    assert not list(tmp_path.iterdir())
    write(tmp_path, "adacof", {}, MEASURED)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}
