"""What README, CONTRIBUTING and docs/ show: Python runs, commands have real scripts and flags, links lead somewhere.

A block that takes minutes is fenced as ```` ```python slow ````; it runs with ``-m slow``.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from .repo import ROOT
from .test_recipes_cli import flags

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCES = {"python", "python slow", "bash", "text", "json", "toml", ""}
ELSEWHERE = {"git", "cd", "ffmpeg", "nvidia-smi", "source", "python3", "ln"}  # commands that are not ours to check


class Block(NamedTuple):
    page: Path
    line: int
    fence: str
    text: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, match[1].strip(), match[2]))
    return found


BLOCKS = blocks()
PYTHON = [page for page in PAGES if any(block.page == page and block.fence.startswith("python") for block in BLOCKS)]
COMMANDS = [
    pytest.param(block.page, command, id=f"{block.page.stem}:{block.line}:{command[:50]}")
    for block in BLOCKS
    if block.fence == "bash"
    for line in block.text.replace("\\\n", " ").splitlines()
    for command in re.split(r"\s*(?:&&|;)\s*", re.sub(r"(^|\s)#.*", "", line).strip())
    if command
]


def furnish(text: str, folder: Path) -> None:
    """Small pictures and clips under the names that a block reads."""
    from PIL import Image

    from vfikit.data.synthetic import Scenes

    frames = None
    for name in sorted(set(re.findall(r"""["']([\w./-]+\.(?:png|jpg|mp4))["']""", text))):
        path = folder / name
        if path.exists() or Path(name).is_absolute():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = frames or list(Scenes(1, size=64)[0])
        pixels = [(frame.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy() for frame in frames]
        if path.suffix == ".mp4":
            write_clip(path, pixels)
        else:
            Image.fromarray(pixels[0]).save(path)


def write_clip(path: Path, pixels: list) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = pixels[0].shape[:2]
        for picture in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, fences: tuple[str, ...]) -> dict:
    """The page's blocks in order, in one namespace, as a reader would paste them; returns it."""
    monkeypatch.chdir(folder)
    namespace: dict = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]):
        for block in [block for block in BLOCKS if block.page == page and block.fence in fences]:
            furnish(block.text, folder)
            code = compile("\n" * block.line + block.text, str(page), "exec")
            exec(code, namespace)
    return namespace


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, ("python",))


SLOW = [page for page in PYTHON if any(b.page == page and b.fence == "python slow" for b in BLOCKS)]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.stem)
def test_slow_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch, ("python", "python slow"))


def test_fences() -> None:
    """Every block says what it is, so that none escapes its check."""
    wrong = [f"{block.page.name}:{block.line}: {block.fence!r}" for block in BLOCKS if block.fence not in FENCES]
    assert not wrong, f"{wrong}, expected one of {sorted(FENCES)}"


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands(page: Path, command: str) -> None:
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"]:
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    if words[:2] == ["pip", "install"]:
        check_install(words[2:])
    elif words[:3] == ["python", "-m", "pytest"] or words[0] == "pytest":
        check_paths([word for word in words[1:] if "/" in word or word.endswith(".py")])
    elif words[0] == "bash":
        check_paths(words[1:2])
    elif words[0] == "python" and words[1].startswith("recipes/"):
        check_paths(words[1:2])
        unknown = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - flags(Path(words[1]))
        assert not unknown - {"--help"}, f"{words[1]} has no {sorted(unknown)}"
    elif words[0] == "python":
        check_paths([word for word in words[1:2] if word.endswith(".py")])
    else:
        assert words[0] in ELSEWHERE, f"{page.name}: nobody checks {command!r}"


def check_paths(paths: list[str]) -> None:
    missing = [path for path in paths if not (ROOT / path.partition("::")[0]).exists()]
    assert not missing, f"no such file: {missing}"


def check_install(words: list[str]) -> None:
    """``-c constraints.txt -e '.[extra,...]'`` or ``vfikit[extra]``: the file and the extras exist."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for word, before in zip(words, ["", *words]):
        if before in ("-c", "-r"):
            check_paths([word])
        elif found := re.fullmatch(r"(?:\.|vfikit)\[([\w,]+)\]", word):
            unknown = set(found[1].split(",")) - extras
            assert not unknown, f"no extra {sorted(unknown)}, expected some of {sorted(extras)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    broken = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert not broken, f"{page.name}: broken links {broken}"
