"""E2FGVI-HQ beside the same network as its published program runs it: one window of frames, and a whole clip."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor

from vfikit.models import build
from vfikit.models.e2fgvi import E2FGVINet, stream
from vfikit.recipe import in_layout

from .paired import Compare, Prepare
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


def stream_of(length: int) -> tuple[Callable[[], Iterable[Tensor]], Iterable[Tensor]]:
    """Filling a clip that comes and goes frame by frame; beside it stands its size in memory."""
    torch.manual_seed(0)
    net = build("e2fgvi-hq", "small").eval()
    frames, masks = clip(1, 60, 108)

    def fill() -> list[Tensor]:
        for filled in stream(net, ((frames[:, 0], masks[:, 0]) for _ in range(length))):
            last = filled
        return [last]

    return fill, [torch.empty(length, *frames.shape[2:])]


@pytest.mark.parametrize("length", [50, 200])
def test_clip_memory(memory: Callable[[str, Prepare, float], None], length: int) -> None:
    """The longer clip is to take no more than the shorter one."""
    memory(f"e2fgvi-hq small, a clip of {length} frames 108x60, streamed", partial(stream_of, length), math.inf)


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
