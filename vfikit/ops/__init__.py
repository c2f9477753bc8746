"""Stateless tensor functions and their nn.Module twins: ``from vfikit.ops import AdaCoF, adacof``."""

from ._backends import backends
from .adacof import AdaCoF, adacof
from .dsepconv import DSepConv, dsepconv
from .warp import warp

__all__ = ["AdaCoF", "DSepConv", "adacof", "backends", "dsepconv", "warp"]
