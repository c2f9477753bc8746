"""Files that are whole or absent, and the error for input that a user can mend."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line: who, got, expected."""


def check_place(path: Path) -> None:
    """Raises ``InputError`` where ``path`` could not be made, before there is work to lose."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path}: {there} is no folder that can be written to")


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, with its suffix; renames it to ``path`` on success.

    On any failure (a full disk, an interrupt) nothing is left behind and an older ``path`` is untouched. The
    temporary path may be written as a file or made a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary = room / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Writes ``value`` as indented JSON, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def append_jsonl(path: str | os.PathLike[str], value: object) -> None:
    """Appends ``value`` as one line of JSON."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
