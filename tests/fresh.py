"""Python code in a process of its own, at once: forked from one that has imported torch, and nothing of vfikit."""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "pytest"])


class Done(NamedTuple):
    """How it ended: 0, 1 for an exception, less than 0 for a signal; and what it printed."""

    returncode: int | None
    stdout: str
    stderr: str


def python(code: str, **environment: str) -> Done:
    """Runs ``code``, with ``environment`` beside this process's own."""
    with tempfile.TemporaryDirectory() as folder:
        child = _CONTEXT.Process(target=_run, args=(code, {**os.environ, **environment}, folder))
        child.start()
        child.join(300)
        if child.is_alive():
            child.kill()
            raise TimeoutError(f"still running after 300 s: {code}")
        return Done(child.exitcode, *((Path(folder) / name).read_text() for name in ("stdout", "stderr")))


def _run(code: str, environment: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), number)
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
