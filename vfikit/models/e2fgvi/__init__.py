"""E2FGVI and E2FGVI-HQ: flow-guided video inpainting (arXiv:2204.02663)."""

from .net import PRESETS, E2FGVIConfig, E2FGVINet, Inpainted
from .stream import stream
from .windows import Settings, Window, windows

__all__ = [
    "PRESETS",
    "E2FGVIConfig",
    "E2FGVINet",
    "Inpainted",
    "Settings",
    "Window",
    "stream",
    "windows",
]
