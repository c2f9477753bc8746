"""E2FGVI-HQ beside the same network as its published program runs it: one window of frames, and a whole clip."""

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor

from vfikit.models import build
from vfikit.models.e2fgvi import E2FGVINet, stream
from vfikit.recipe import in_layout, keep_freed_memory

from .paired import Compare, Prepare, measure_memory
from .plain import e2fgvi as plain_e2fgvi

LOCAL, FRAMES = 5, 8  # of a window: consecutive ones, and those far away


def network() -> E2FGVINet:
    torch.manual_seed(0)
    net: E2FGVINet = in_layout(build("e2fgvi-hq").eval().requires_grad_(False))
    return net


def clip(length: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    masks = torch.zeros(1, length, 1, height, width)
    masks[..., height // 3 : height // 2, width // 3 : width // 2] = 1
    return torch.rand(1, length, 3, height, width), masks


@pytest.mark.parametrize(("dtype", "target"), [(torch.float32, 1.7), (torch.bfloat16, 2.5)], ids=str)
@torch.no_grad()
def test_window(compare: Compare, dtype: torch.dtype, target: float) -> None:
    if dtype == torch.bfloat16 and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU does not multiply in bfloat16")
    net = network()
    baseline, ours = plain_e2fgvi.plain(net), net.to(dtype)
    frames = 2 * torch.rand(1, FRAMES, 3, 240, 432) - 1
    error = (ours(frames.to(dtype), LOCAL).frames - baseline(frames, LOCAL).frames).abs()
    assert error.max() < (1e-4 if dtype == torch.float32 else 0.1)
    compare(
        f"e2fgvi-hq, {FRAMES} frames 432x240, {dtype}",
        lambda: ours(frames.to(dtype), LOCAL),
        {"as published, float32": lambda: baseline(frames, LOCAL)},
        {"as published, float32": target},
        rounds=2,
    )


def ours(net: E2FGVINet) -> E2FGVINet:
    return net


def window_of(kind: Callable[[E2FGVINet], E2FGVINet]) -> tuple[Callable[[], Iterable[Tensor]], Iterable[Tensor]]:
    """For ``measure_memory``: one window as ``kind`` makes it of our network."""
    net, frames = kind(network()), 2 * torch.rand(1, FRAMES, 3, 240, 432) - 1

    def call() -> Iterable[Tensor]:
        with torch.no_grad():
            return net(frames, LOCAL)

    return call, [frames]


def test_window_memory(memory: Callable[[str, Prepare, float], None]) -> None:
    """At most half of what the published program takes."""
    what = f"e2fgvi-hq, {FRAMES} frames 432x240"
    theirs = measure_memory(what, partial(window_of, plain_e2fgvi.plain), 1.0)
    target = theirs.extra_mib / 2 / theirs.tensors_mib
    memory(f"{what} (as published: {theirs.extra_mib:.0f} MiB)", partial(window_of, ours), target)


def stream_of(length: int) -> tuple[Callable[[], Iterable[Tensor]], Iterable[Tensor]]:
    """Filling a clip that comes and goes frame by frame, as ``inpaint.py`` does it; beside it stands the size of a
    frame and its mask.
    """
    keep_freed_memory()
    torch.manual_seed(0)
    net = build("e2fgvi-hq", "small").eval()
    frames, masks = clip(1, 60, 108)

    def fill() -> list[Tensor]:
        for filled in stream(net, ((frames[:, 0].clone(), masks[:, 0]) for _ in range(length))):
            last = filled
        return [last]

    return fill, [frames, masks]


@pytest.mark.parametrize("length", [200, 400])
def test_clip_memory(memory: Callable[[str, Prepare, float], None], length: int) -> None:
    """A long clip takes no more than a short one; a twentieth is left to chance, which moves the peak of either."""
    what = "e2fgvi-hq small, a clip of {} frames 108x60, streamed"
    short = measure_memory(what.format(50), partial(stream_of, 50), 1.0)
    target = 1.05 * short.extra_mib / short.tensors_mib
    memory(f"{what.format(length)} (50 frames: {short.extra_mib:.0f} MiB)", partial(stream_of, length), target)


def test_clip(compare: Compare) -> None:
    net, (frames, masks) = network(), clip(50, 60, 108)
    baseline = plain_e2fgvi.plain(net)
    with torch.no_grad():
        compare(
            "e2fgvi-hq, a clip of 50 frames 108x60",
            lambda: net.inpaint(frames, masks, nearest=None),
            {"as published": lambda: plain_e2fgvi.inpaint(baseline, frames, masks)},
            {"as published": 2.2},
            rounds=2,
        )
