"""What a result was measured on."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import vfikit


def machine() -> dict[str, object]:
    """Date, commit, device, threads, load and versions, now."""
    lscpu = _output("lscpu").splitlines()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "lscpu": {name: value.strip() for name, _, value in (line.partition(":") for line in lscpu)},
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "versions": {"python": platform.python_version(), "vfikit": vfikit.__version__, **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "numpy", "mmcv", "torch-pruning", "cupy-cuda13x", "cupy-cuda12x"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
