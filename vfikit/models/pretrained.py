"""One file a model: a .safetensors whose metadata says what to build before the weights go in."""

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..compress.resize import resize, widths
from ..files import InputError, atomic

FILE_NAME = "model.safetensors"


class Pretrained(nn.Module):
    """A model that is built from a frozen ``config`` and keeps itself in one self-describing file."""

    config: Any
    config_type: type

    def published_keys(self) -> list[tuple[str, str]]:
        """Pairs (name in the published state dict, name in ours)."""
        raise TypeError(f"{type(self).__name__} has no published checkpoint")

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of a published state dict is to be loaded: a model drops what it knows to be dead or double."""
        return state

    def save_pretrained(self, folder: str | Path, **extra: Any) -> None:
        """Writes ``folder/model.safetensors``; ``extra`` goes into its metadata."""
        write(self, Path(folder) / FILE_NAME, **extra)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Reads what ``save_pretrained`` or ``vfikit.checkpoints.save`` wrote: a folder or a file."""
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        metadata = read_metadata(path)
        if metadata["model"] != cls.__name__:
            raise InputError(f"{path}: holds a {metadata['model']}, expected a {cls.__name__}")
        return read(cls, path, metadata, device)


Model = TypeVar("Model", bound=Pretrained)


def write(model: Pretrained, path: str | Path, storage: torch.dtype | None = None, **extra: Any) -> None:
    """Writes the model's class, config, widths and tensors to ``path``, whole or not at all.

    ``storage`` (say ``torch.float16``) is how floating-point tensors are kept; they come back in the model's type.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
    if storage is not None:
        state = {name: t.to(storage) if t.is_floating_point() else t for name, t in state.items()}
    header = {
        "model": type(model).__name__,
        "config": asdict(model.config),
        "widths": widths(model),
        "dtype": str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else None,
        **extra,
    }
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(state, temporary, metadata={"vfikit": json.dumps(header)})
        except SafetensorError as error:
            raise OSError(f"{path}: could not be written ({error})") from error
        temporary.chmod(mode)  # safetensors gives it to its owner alone


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What ``write`` recorded: model, config, widths, dtype and the extras."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a .safetensors file ({error}); published files go through convert.py") from error
    if "vfikit" not in metadata:
        raise InputError(f"{path}: no vfikit metadata; published files go through recipes/convert.py first")
    return json.loads(metadata["vfikit"])


def read(model_type: type[Model], path: str | Path, metadata: dict[str, Any], device: str | torch.device) -> Model:
    """Builds on ``meta``, resizes to the stored widths and puts the tensors in."""
    with torch.device("meta"):
        model = model_type(to_config(model_type.config_type, metadata["config"]))
    resize(model, metadata["widths"])
    dtype = getattr(torch, metadata["dtype"]) if metadata.get("dtype") else None
    with safe_open(path, framework="pt", device=str(device)) as file:
        state = {name: _cast(file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    return model.eval()


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def to_config(config_type: type, values: dict[str, Any]) -> Any:
    """The frozen dataclass from its JSON form: lists become tuples, mappings become nested dataclasses."""
    names = {field.name: field.type for field in fields(config_type)}
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(f"{config_type.__name__}: unknown fields {unknown}, expected {sorted(names)}")
    return config_type(**{name: _frozen(value, names[name]) for name, value in values.items()})


def _frozen(value: Any, field_type: Any) -> Any:
    if value is not None and isinstance(field_type, UnionType):  # of a dataclass and None
        field_type = field_type.__args__[0]
    if isinstance(field_type, type) and is_dataclass(field_type):
        return to_config(field_type, value)
    return tuple(_frozen(v, None) for v in value) if isinstance(value, list) else value
