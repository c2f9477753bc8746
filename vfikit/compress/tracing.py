"""Runs a network on ``meta`` and sees every operation, with the module it is in, for a limited time."""

import ctypes
import inspect
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .atoms import Atoms
from .folds import FIXED, Labels, Sets
from .groups import CouplingError
from .resize import CHANNELS_IN, CHANNELS_OUT, HEADS, NORMED, NORMS, stored
from .rules import CHANNEL_MAPS, IN_PLACE, Rule, rule_of

GRACE = 2.0  # seconds
SILENT = {"clone", "alias", "detach", "contiguous", "lift_fresh"}  # may or may not be there, as layouts have it


class _TimeUp(BaseException):
    """Raised in the tracing thread; no ``except Exception`` of a network stops it."""


class Limit:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()


class Watcher(TorchDispatchMode):
    """Calls ``seen`` after every operation, and after every module with a channel map, whose inside runs unseen."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self.limit = limit
        self.stack: list[tuple[str, nn.Module, Iterator[Any]]] = []
        self.paused = 0

    def place(self, default: str) -> str:
        if not self.stack:
            return default
        path, module, _ = self.stack[-1]
        return f"{path or type(module).__name__} ({type(module).__name__})"

    def seen(self, rule: Rule | None, name: str, args: Any, kwargs: Any, out: Any) -> None:
        raise NotImplementedError

    def entered(self, inputs: Sequence[Tensor]) -> None:
        """A module has been given ``inputs``; it is on top of the stack."""

    def left(self, outputs: Sequence[Tensor]) -> None:
        """The module on top of the stack has made ``outputs``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.limit.left() < 0:
            raise _TimeUp
        name = func._schema.name.removeprefix("aten::")
        if name not in IN_PLACE:
            out = func(*args, **(kwargs or {}))
        else:  # changes the shape of its own argument
            before, out = torch.ops.aten.alias(args[0]), func(*args, **(kwargs or {}))
            self.inherit(before, args[0])
            args = (before, *args[1:])
        if not self.paused:
            self.seen(rule_of(func), name, args, kwargs or {}, out)
        return out

    def inherit(self, new: Tensor, old: Tensor) -> None:
        """``new`` is what ``old`` was."""

    def run(self, model: nn.Module, inputs: Sequence[Any]) -> Any:
        """``model(*inputs)``; raises what it raises, or ``CouplingError`` once time is up."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole transformer layer: no rule
        try:
            with torch.no_grad(), _deadline(self.limit), _watched(model, self), self:
                return model(*inputs)
        except _TimeUp as error:
            raise CouplingError(
                f"coupling: tracing took over {self.limit.seconds:g} s; it was in {self.place('the model')}"
            ) from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _deadline(limit: Limit) -> Iterator[None]:
    """Raises ``_TimeUp`` here a while after ``limit``: for loops of pure Python, where no operation looks at the clock.

    One call into C is waited for. The while is for imports at a first use, which must not be broken off.
    """
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def strike() -> None:
        with lock:
            if not over:
                raise_in(thread, ctypes.py_object(_TimeUp))

    timer = threading.Timer(max(0.0, limit.left()) + GRACE, strike)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over = True
            raise_in(thread, None)  # takes back what has not been raised yet
        timer.cancel()


@contextmanager
def _watched(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """Follows which module runs."""
    handles = []
    for path, module in model.named_modules():

        def enter(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            watcher.stack.append((path, module, count()))
            if not watcher.paused:
                watcher.entered(tensors_of((args, kwargs)))
            watcher.paused += type(module) in CHANNEL_MAPS

        def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            if type(module) in CHANNEL_MAPS:
                watcher.paused -= 1
                if not watcher.paused:
                    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments.values()
                    known = (*given, dict(module.named_parameters()))
                    watcher.seen(CHANNEL_MAPS[type(module)], type(module).__name__, known, {}, out)
            if not watcher.paused:
                watcher.left(tensors_of(out))
            watcher.stack.pop()

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Step:
    """An operation on channels: what it was given and what it made."""

    name: str
    where: str
    shapes: list[tuple[int, ...]]  # of its outputs
    labels: list[list[Labels | None]]  # of its outputs
    inputs: list[Labels] = field(default_factory=list)

    def touched(self) -> list[Labels]:
        return [*self.inputs, *(labels for axes in self.labels for labels in axes if labels is not None)]


class Labeller(Watcher):
    """Applies the rule of every operation that runs; ``steps`` are those that channels took part in."""

    def __init__(self, atoms: Atoms, limit: Limit) -> None:
        super().__init__(limit)
        self.atoms = atoms
        self.used: set[int] = set()
        self.steps: list[Step] = []

    def seen(self, rule: Rule | None, name: str, args: Any, kwargs: Any, out: Any) -> None:
        atoms, tensors = self.atoms, tensors_of((args, kwargs))
        self.used.update(map(id, tensors))
        inputs = [labels for x in tensors for labels in atoms.of(x) if labels is not None]
        if not inputs:
            return
        self._locate()
        if rule is None or tensors_of(kwargs):
            atoms.fix_all(tensors, f"{name}, which has no rule,")
        else:
            rule(atoms, args, out)
        if name in SILENT:
            return
        results = tensors_of(out)
        shapes = [tuple(x.shape) for x in results]
        self.steps.append(Step(name, atoms.where, shapes, [atoms.of(x) for x in results], inputs))

    def inherit(self, new: Tensor, old: Tensor) -> None:
        """``old`` has changed its shape already; what it was called before is in its labels."""
        self.atoms.rename(old, new)

    def _locate(self) -> None:
        """Tells the atoms where they are: for reasons, and for the records of reshapes."""
        self.atoms.where, self.atoms.operation = self.place(""), len(self.steps)
        if self.stack:
            _, module, ordinals = self.stack[-1]
            self.atoms.keys = ((type(module), ordinal) for ordinal in ordinals)
        self.atoms.counters = next(filter(None, map(self._counters, reversed(self.stack))), [])

    def _counters(self, frame: tuple[str, nn.Module, Any]) -> list[Labels]:
        path, module, _ = frame
        return [self.atoms.new(_join(path, name), 0, size) for name, size in stored(module, HEADS).items()]

    def entered(self, inputs: Sequence[Tensor]) -> None:
        path, module, _ = self.stack[-1]
        if isinstance(module, NORMS) and not module.state_dict():
            name = next(name for name in NORMED if name in vars(module))
            labels = self.atoms.of(inputs[0])[-1 if name == "normalized_shape" else 1]
            if labels is not None:
                self.atoms.join(labels, self.atoms.new(_join(path, name), 0, len(labels)), "a norm of fixed channels")
        self._store(CHANNELS_IN, inputs[:1])

    def left(self, outputs: Sequence[Tensor]) -> None:
        self._store(CHANNELS_OUT, outputs[:1])

    def _store(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        """Integers that the module keeps are the number of channels that it reads or writes, if they are now."""
        path, module, _ = self.stack[-1]
        for name, size in stored(module, names).items():
            for x in tensors:
                axes = [axis for axis in (1, x.ndim - 1) if x.ndim > 1 and x.shape[axis] == size]
                labels = next((own for axis in axes if (own := self.atoms.of(x)[axis]) is not None), None)
                if labels is not None:
                    self.atoms.join(labels, self.atoms.new(_join(path, name), 0, size), "channels counted")


class Misfit(Exception):
    """A network of other widths does not run as the rules say; ``step`` is where."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Comparer(Watcher):
    """Follows a network of other widths: every operation must make what the ``steps`` of the first one say.

    ``more`` holds by how much the sets (by root) have become more; ``used`` the ids of the tensors with channels.
    """

    def __init__(self, steps: Sequence[Step], sets: Sets, more: dict[int, int], used: set[int], limit: Limit) -> None:
        super().__init__(limit)
        self.steps, self.sets, self.more = steps, sets, more
        self.done = 0
        self._channels = used
        self._alive: list[Tensor] = []  # so that no id is used again
        self._sizes: dict[int, int] = {}

    def seen(self, rule: Rule | None, name: str, args: Any, kwargs: Any, out: Any) -> None:
        results = tensors_of(out)
        if not any(id(x) in self._channels for x in tensors_of((args, kwargs))):
            return
        self._alive += results
        if name in SILENT:
            self._channels.update(map(id, results))
            return
        step = self.steps[self.done] if self.done < len(self.steps) else None
        if step is None or _kind(step.name) != _kind(name):
            raise Misfit(self.done, f"{name} runs where {step.name if step else 'nothing'} did")
        for x, shape, labels in zip(results, step.shapes, step.labels):
            if len(results) > 1 and all(own is None for own in labels):
                continue  # statistics beside a norm's output
            expected = tuple(size if own is None else self._size(own) for size, own in zip(shape, labels, strict=True))
            if tuple(x.shape) != expected:
                raise Misfit(self.done, f"{name} makes {tuple(x.shape)}, expected {expected}")
            (self._channels.add if any(own is not None for own in labels) else self._channels.discard)(id(x))
        self.done += 1

    def inherit(self, new: Tensor, old: Tensor) -> None:
        if id(old) in self._channels:
            self._alive.append(new)
            self._channels.add(id(new))

    def _size(self, labels: Labels) -> int:
        if id(labels) not in self._sizes:
            more = (self.more.get(self.sets.find(atom), 0) for atom in labels.tolist() if atom != FIXED)
            self._sizes[id(labels)] = len(labels) + sum(more)
        return self._sizes[id(labels)]


def _kind(name: str) -> str:
    return "view" if name in ("_unsafe_view", "reshape") else name


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def tensors_of(tree: Any) -> list[Tensor]:
    return [x for x in _pytree.tree_leaves(tree) if isinstance(x, Tensor)]
