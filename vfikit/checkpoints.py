"""Checkpoints: ours (one self-describing .safetensors file) and the published ones (as their authors ship them)."""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .files import InputError
from .models import MODELS
from .models.pretrained import Pretrained, read, read_metadata, write

__all__ = ["Misfit", "load", "load_published", "read_state_dict", "save", "shipped"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "params")  # what published files keep the state dict under
SHIPPED = Path(__file__).parent / "weights"


class Misfit(InputError):
    """A published checkpoint that is not one of this model; ``parts`` are the names by what is wrong with them."""

    def __init__(self, model: Pretrained, parts: Mapping[str, list[str]]) -> None:
        self.parts = {what: keys for what, keys in parts.items() if keys}
        listed = "; ".join(f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in self.parts.items())
        super().__init__(f"load_published: this is no checkpoint of this {type(model).__name__}: {listed}")

    def in_short(self, most: int = 8) -> str:
        """How many names are wrong in which way, and the first of them."""
        names = [name for keys in self.parts.values() for name in keys]
        counts = ", ".join(f"{len(keys)} {what}" for what, keys in self.parts.items())
        more = f" and {len(names) - most} more" if len(names) > most else ""
        return f"{counts}: {', '.join(names[:most])}{more}"


def save(model: Pretrained, path: str | Path, storage: torch.dtype | None = None, **extra: Any) -> None:
    """Writes ``model`` to one .safetensors file, pruned nets included; ``extra`` (JSON) goes into its metadata.

    ``storage`` (say ``torch.float16``) is the type that tensors are kept in; ``load`` gives the model's own type back.
    """
    write(model, path, storage, **extra)


def load(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """The model that ``save`` wrote, in evaluation mode. Nothing in the file is executed."""
    metadata = read_metadata(path)
    for model_type in MODELS.values():
        if model_type.__name__ == metadata["model"]:
            return read(model_type, path, metadata, device)
    raise InputError(f"{path}: holds a {metadata['model']}, which this version of vfikit does not know")


def shipped(name: str, preset: str) -> Path | None:
    """The weights that come with vfikit for this model and preset, or None."""
    path = SHIPPED / f"{name}-{preset}.safetensors"
    return path if path.exists() else None


def load_published(model: Pretrained, source: str | Path | Mapping[str, Any]) -> Pretrained:
    """Puts a published checkpoint into ``model``: a file, a folder of diffusers, or the state dict itself.

    Every key of the one must have its place in the other, in the same shape; if not, ``Misfit`` lists what does not,
    and the model is untouched. What a model knows to be dead or double in its checkpoints is left out, and
    averaged weights are preferred (``published_state``). A file is read without running anything that it holds.
    """
    published = model.published_state(read_state_dict(source))
    names = dict(model.published_keys())
    ours = model.state_dict()
    missing = sorted(set(names) - set(published))
    unknown = sorted(set(published) - set(names))
    wrong = [
        f"{name} is {tuple(published[name].shape)}, expected {tuple(ours[names[name]].shape)}"
        for name in sorted(set(names) & set(published))
        if published[name].shape != ours[names[name]].shape
    ]
    if missing or unknown or wrong:
        raise Misfit(model, {"missing": missing, "unknown": unknown, "of another shape": wrong})
    model.load_state_dict({names[name]: tensor for name, tensor in published.items()})
    return model


def read_state_dict(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a .pth, .ckpt or .safetensors file or a mapping, out of what wraps it; nothing is run.

    Of a folder of diffusers, be it a network's or a pipeline's, those of its networks together (U-Net, autoencoder).
    """
    found = dict(source) if isinstance(source, Mapping) else _read_published(Path(source))
    while not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            where = "" if isinstance(source, Mapping) else f"{source}: "
            raise InputError(f"{where}no state dict found among the keys {sorted(map(str, found))[:8]}")
        found = dict(inner)
    if strange := [str(name) for name, value in found.items() if not isinstance(value, Tensor)]:
        where = "read_state_dict" if isinstance(source, Mapping) else str(source)
        raise InputError(f"{where}: no tensors under {', '.join(strange[:8])}")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _read_published(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        return {name: tensor for part in _networks(path) for name, tensor in read_state_dict(part).items()}
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise _not_a_checkpoint(path, error) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # Lightning and others pickle their own classes beside the tensors
        restricted = SimpleNamespace(__name__="restricted", Unpickler=_Restricted, load=_load_restricted)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False, pickle_module=restricted)
        except Exception as error:  # a pickle of unknown origin can fail in any way
            raise _not_a_checkpoint(path, error) from error
    except Exception as error:  # so can the unpickling of what is none
        raise _not_a_checkpoint(path, error) from error
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, expected a dict with the state dict")
    return dict(loaded)


def _networks(folder: Path) -> list[Path]:
    """The files of weights in a folder of diffusers, one of each network."""
    found = []
    for part in (folder, folder / "unet", folder / "vae"):
        files = [part / f"diffusion_pytorch_model.{suffix}" for suffix in ("safetensors", "bin")]
        found += [file for file in files if file.exists()][:1]
    if not found:
        raise InputError(f"{folder}: no diffusion_pytorch_model.safetensors or .bin in it, nor in its unet and vae")
    return found


def _not_a_checkpoint(path: Path, error: Exception) -> InputError:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path}: not a PyTorch checkpoint ({why})")


class _Inert:
    """Stands for an object of any class that a checkpoint names: takes everything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


_ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
}


class _Restricted(pickle.Unpickler):
    """Rebuilds tensors and containers; every other name in the file becomes ``_Inert`` and is never imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return _Inert


def _load_restricted(file: IO[bytes], **arguments: Any) -> Any:
    return _Restricted(file, **arguments).load()
