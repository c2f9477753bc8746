"""The models by name: ``build("adacof", "small")``, or ``build(config)`` with a typed config."""

from dataclasses import fields, replace
from typing import Any

from . import adacof, cdfi, e2fgvi, ldmvfi, lvdm, video_ldm
from .adacof import AdaCoFConfig, AdaCoFNet
from .cdfi import CDFIConfig, CDFINet
from .e2fgvi import E2FGVIConfig, E2FGVINet
from .ldmvfi import LDMVFIConfig, LDMVFINet
from .lvdm import LVDMConfig, LVDMNet
from .pretrained import Pretrained
from .video_ldm import VideoLDMConfig, VideoLDMNet

MODELS: dict[str, type[Pretrained]] = {
    "adacof": AdaCoFNet,
    "adacof+": AdaCoFNet,
    "adacof-compressed": AdaCoFNet,
    "adacof+-compressed": AdaCoFNet,
    "cdfi": CDFINet,
    "ldmvfi": LDMVFINet,
    "e2fgvi": E2FGVINet,
    "e2fgvi-hq": E2FGVINet,
    "lvdm": LVDMNet,
    "video-ldm": VideoLDMNet,
}
PRESETS: dict[str, dict[str, Any]] = {
    **adacof.PRESETS,
    **cdfi.PRESETS,
    **ldmvfi.PRESETS,
    **e2fgvi.PRESETS,
    **lvdm.PRESETS,
    **video_ldm.PRESETS,
}

__all__ = [
    "MODELS",
    "PRESETS",
    "AdaCoFConfig",
    "AdaCoFNet",
    "CDFIConfig",
    "CDFINet",
    "E2FGVIConfig",
    "E2FGVINet",
    "LDMVFIConfig",
    "LDMVFINet",
    "LVDMConfig",
    "LVDMNet",
    "VideoLDMConfig",
    "VideoLDMNet",
    "build",
]


def build(name: Any, preset: str = "published", **overrides: Any) -> Any:
    """A new, randomly initialised model.

    ``name`` is a key of ``MODELS`` and ``preset`` one of ``PRESETS[name]`` ("published", "small"); ``overrides``
    replace fields of its config. Or ``name`` is a config itself. An unknown name, preset or field raises
    ``ValueError``.
    """
    if not isinstance(name, str):
        for model in MODELS.values():
            if isinstance(name, model.config_type):
                return _from(model, name, overrides)
        raise ValueError(f"build: {type(name).__name__} is no model's config")
    if name not in MODELS:
        raise ValueError(f"build: unknown model {name!r}, expected one of {', '.join(MODELS)}")
    if preset not in PRESETS[name]:
        raise ValueError(f"build: {name} has no preset {preset!r}, expected one of {', '.join(PRESETS[name])}")
    return _from(MODELS[name], PRESETS[name][preset], overrides)


def _from(model: Any, config: Any, overrides: dict[str, Any]) -> Any:
    known = [field.name for field in fields(config)]
    for name in overrides.keys() - known:
        raise ValueError(f"build: {type(config).__name__} has no {name!r}, expected one of {', '.join(known)}")
    return model(replace(config, **overrides))
