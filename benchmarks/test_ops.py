"""The ops beside the best plain PyTorch, ``torch.compile`` of it and other packages, all computing the same numbers.

Offsets are white noise of 3 pixels (every read far from its neighbour's) or smooth (as a network's are).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from vfikit.ops import adacof, deform_conv2d, dsepconv

from .paired import Call, Compare, Prepare
from .peers import peers
from .plain import deform_conv2d as plain_deform
from .plain import dsepconv as plain_dsepconv
from .plain.adacof import a_thread_a_number, embedded, grid_sampled, grid_sampled_at_once, indexed

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ["cpu", CUDA]
ON_CUDA = [pytest.param("cuda", dtype, marks=CUDA.marks) for dtype in (torch.float32, torch.float16)]
HD = (720, 1280)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Separable = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def field(shape: tuple[int, int, int, int], offsets: str, generator: torch.Generator) -> Tensor:
    """Offsets of all taps, of a standard deviation of 3 pixels: "noise", or "smooth" over 32 pixels."""
    if offsets == "noise":
        return torch.randn(shape, generator=generator).mul_(3)
    coarse = torch.randn(*shape[:2], shape[2] // 32 + 1, shape[3] // 32 + 1, generator=generator).mul_(3)
    return functional.interpolate(coarse, shape[2:], mode="bicubic", align_corners=True)


def adacof_inputs(
    size: tuple[int, int], kernel: int, dilation: int, channels: int, offsets: str, device: str = "cpu"
) -> Inputs:
    """input, weight (softmax), offset_i, offset_j in float32, batch 1."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    reach, shape = (kernel - 1) * dilation, (1, kernel**2, height, width)

    image = torch.rand(1, channels, height + reach, width + reach, generator=generator)
    weight = torch.randn(shape, generator=generator).softmax(1)
    down, right = (field(shape, offsets, generator).to(device) for _ in range(2))
    return image.to(device), weight.to(device), down, right


def dsepconv_inputs(size: tuple[int, int], kernel: int, channels: int, offsets: str, device: str = "cpu") -> Separable:
    """input, vertical, horizontal, offset_x, offset_y, mask in float32, batch 1."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, kernel**2, *size)
    image = torch.rand(1, channels, size[0] + kernel - 1, size[1] + kernel - 1, generator=generator)
    v, h = (torch.randn(1, kernel, *size, generator=generator).to(device) for _ in range(2))
    down, right = (field(shape, offsets, generator).to(device) for _ in range(2))
    return image.to(device), v, h, down, right, torch.rand(shape, generator=generator).to(device)


def gradients(op: Callable[..., Tensor], inputs: Iterable[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward, to all inputs."""
    return torch.autograd.grad(op(*inputs), inputs, grad)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offsets", ["noise", "smooth"])
def test_adacof_forward(compare: Compare, offsets: str, device: str) -> None:
    inputs = adacof_inputs(HD, 5, 1, 3, offsets, device)
    others = {
        "grid_sample a tap": grid_sampled if device == "cpu" else grid_sampled_at_once,
        "torch.compile, indexed": torch.compile(indexed, dynamic=False),
        **peers("adacof"),
    }
    calls: dict[str, Call] = {name: partial(other, *inputs) for name, other in others.items()}
    targets = {"grid_sample a tap": 14.0, "torch.compile, indexed": 11.0}
    if device == "cuda":  # a copy of half their size moves as many bytes as reading the maps once
        half = [t[:, : t.shape[1] // 2].contiguous() for t in inputs[1:]]
        calls["maps at copy bandwidth"] = lambda: [t.clone() for t in half]
        calls["a thread a number, as published"] = partial(a_thread_a_number, *inputs)
        targets = {"maps at copy bandwidth": 0.5, "a thread a number, as published": 3.0}
    with torch.no_grad():
        compare(f"adacof forward 1280x720 F5 C3 {offsets}", partial(adacof, *inputs), calls, targets, 7, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offsets", ["noise", "smooth"])
def test_adacof_forward_backward(compare: Compare, offsets: str, device: str) -> None:
    inputs = adacof_inputs(HD, 5, 1, 3, offsets, device)
    for t in inputs:
        t.requires_grad_()
    grad = torch.rand(1, 3, *HD, device=device)
    compiled = torch.compile(indexed, dynamic=False)
    others = {"grid_sample a tap": grid_sampled_at_once, "torch.compile, indexed": compiled}
    compare(
        f"adacof forward + backward 1280x720 F5 C3 {offsets}",
        partial(gradients, adacof, inputs, grad),
        {name: partial(gradients, other, inputs, grad) for name, other in others.items()},
        dict.fromkeys(others, 8.0),
        rounds=3,
        device=device,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_adacof_f11_forward(compare: Compare, device: str) -> None:
    inputs = adacof_inputs(HD, 11, 2, 3, "noise", device)
    plain = grid_sampled if device == "cpu" else grid_sampled_at_once
    with torch.no_grad():
        compare(
            "adacof forward 1280x720 F11 d2 C3 noise",
            partial(adacof, *inputs, 2),
            {"grid_sample a tap": partial(plain, *inputs, 2)},
            rounds=3,
            device=device,
        )


@pytest.mark.parametrize("device", DEVICES)
def test_adacof_many_channels_forward(compare: Compare, device: str) -> None:
    """CDFI's 63 channels a set, sampled at once and, as published, in six parts."""
    inputs = adacof_inputs((256, 448), 11, 2, 63, "noise", device)
    image, weight, offset_i, offset_j = inputs
    parts = image.split([3, 4, 8, 12, 16, 20], dim=1)
    with torch.no_grad():
        compare(
            "adacof forward 448x256 F11 d2 C63 noise",
            partial(adacof, *inputs, 2),
            {
                "embedding_bag": partial(embedded, *inputs, 2),
                "ours, six parts": lambda: [adacof(part, weight, offset_i, offset_j, 2) for part in parts],
            },
            rounds=3,
            device=device,
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offsets", ["noise", "smooth"])
def test_dsepconv_forward(compare: Compare, offsets: str, device: str) -> None:
    inputs = dsepconv_inputs(HD, 5, 3, offsets, device)
    tap = plain_dsepconv.grid_sampled if device == "cpu" else plain_dsepconv.grid_sampled_at_once
    others = {"grid_sample a tap": tap, "torch.compile, indexed": torch.compile(plain_dsepconv.indexed, dynamic=False)}
    calls: dict[str, Call] = {name: partial(other, *inputs) for name, other in others.items()}
    targets = dict.fromkeys(others, 10.0)
    if device == "cuda":  # as many bytes as reading the maps once, as above
        half = [t[:, : t.shape[1] // 2].contiguous() for t in inputs[1:]]
        calls["maps at copy bandwidth"] = lambda: [t.clone() for t in half]
        targets = {"maps at copy bandwidth": 0.5}
    with torch.no_grad():
        compare(f"dsepconv forward 1280x720 F5 C3 {offsets}", partial(dsepconv, *inputs), calls, targets, 7, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("offsets", ["noise", "smooth"])
def test_dsepconv_forward_backward(compare: Compare, offsets: str, device: str) -> None:
    inputs = dsepconv_inputs(HD, 5, 3, offsets, device)
    for t in inputs:
        t.requires_grad_()
    grad = torch.rand(1, 3, *HD, device=device)
    others = {
        "grid_sample a tap": plain_dsepconv.grid_sampled_at_once,
        "torch.compile, indexed": torch.compile(plain_dsepconv.indexed, dynamic=False),
    }
    compare(
        f"dsepconv forward + backward 1280x720 F5 C3 {offsets}",
        partial(gradients, dsepconv, inputs, grad),
        {name: partial(gradients, other, inputs, grad) for name, other in others.items()},
        dict.fromkeys(others, 8.0),
        rounds=3,
        device=device,
    )


def deform_conv2d_inputs(
    offsets: str, device: str = "cpu", size: tuple[int, int] = (60, 108), dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """input, offset, weight, bias, mask as in E2FGVI's alignment: 128 channels at 60x108, 16 offset groups, 3x3."""
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, 128, *size, generator=generator),
        field((1, 288, *size), offsets, generator),
        torch.randn(128, 128, 3, 3, generator=generator) / 34,
        torch.randn(128, generator=generator),
        torch.rand(1, 144, *size, generator=generator),
    ]
    return [t.to(device, dtype) for t in inputs]


def padded_deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)


def deform_conv2d_others(device: str) -> tuple[dict[str, Callable[..., Tensor]], dict[str, tuple[float, float]]]:
    """What it stands beside, and how many times as fast it is to be, forward and with backward."""
    others = {"grid_sample, convolution": partial(plain_deform.grid_sampled, padding=1), **peers("deform_conv2d")}
    if device == "cpu":
        return others, {"mmcv": (6.0, 4.0)}
    others["grid_sample, matrix product"] = partial(plain_deform.multiplied, padding=1)  # as mmcv, where it is missing
    return others, dict.fromkeys(("mmcv", "grid_sample, matrix product"), (1.0, 1.0))


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), *ON_CUDA])
@pytest.mark.parametrize("offsets", ["noise", "smooth"])
@pytest.mark.parametrize("backward", [False, True])
def test_deform_conv2d(compare: Compare, backward: bool, offsets: str, device: str, dtype: torch.dtype) -> None:
    inputs = deform_conv2d_inputs(offsets, device, dtype=dtype)
    others, wanted = deform_conv2d_others(device)
    targets = {name: ratios[backward] for name, ratios in wanted.items() if name in others}
    kind = "" if dtype == torch.float32 else f" {dtype}"
    name = f"deform_conv2d forward{' + backward' if backward else ''} 60x108 C128 G16 3x3 {offsets}{kind}"
    if backward:
        leaves, grad = [t.requires_grad_() for t in inputs], torch.rand(1, 128, 60, 108, device=device, dtype=dtype)
        calls = {other: partial(gradients, call, leaves, grad) for other, call in others.items()}
        compare(name, partial(gradients, padded_deform_conv2d, leaves, grad), calls, targets, 5, device)
        return
    with torch.no_grad():
        calls = {other: partial(call, *inputs) for other, call in others.items()}
        compare(name, partial(padded_deform_conv2d, *inputs), calls, targets, 9, device)


def run_for_memory(
    inputs_of: Callable[[tuple[int, int]], Sequence[Tensor]],
    function: Callable[..., Tensor],
    size: tuple[int, int],
    backward: bool,
) -> tuple[Callable[[], Iterable[Tensor]], Iterable[Tensor]]:
    """The call whose memory is measured, after one on a small frame that starts what has to be started."""

    def call(inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
        output = function(*inputs)
        return [output.detach(), *torch.autograd.grad(output, inputs, grad)] if backward else [output]

    for scale in (32 if min(size) > 512 else 8, 1):
        inputs = inputs_of((size[0] // scale, size[1] // scale))
        grad = torch.rand(function(*(t.to("meta") for t in inputs)).shape)
        for t in inputs:
            t.requires_grad_(backward)
        run = partial(call, inputs, grad)
        if scale > 1:
            run()
    return run, inputs


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "backward"),
    [(HD, 5, 1, False), (HD, 5, 1, True), ((1080, 1920), 11, 2, False), ((1080, 1920), 11, 2, True)],
)
def test_adacof_memory(
    memory: Callable[[str, Prepare, float], None], size: tuple[int, int], kernel: int, dilation: int, backward: bool
) -> None:
    what = f"adacof forward{' + backward' * backward} {size[1]}x{size[0]} F{kernel} d{dilation} C3"
    inputs = partial(adacof_inputs, kernel=kernel, dilation=dilation, channels=3, offsets="noise")
    memory(what, partial(run_for_memory, inputs, partial(adacof, dilation=dilation), size, backward), 0.05)


@pytest.mark.parametrize("backward", [False, True])
def test_deform_conv2d_memory(memory: Callable[[str, Prepare, float], None], backward: bool) -> None:
    """Aimed at is a tenth of the columns that mmcv unfolds the frame to: 128 * 9 of 60x108."""
    what, size = f"deform_conv2d forward{' + backward' * backward} 60x108 C128 G16 3x3", (60, 108)
    tensors = [*deform_conv2d_inputs("noise"), torch.empty(1, 128, *size)]
    count = sum(t.numel() for t in tensors) + backward * sum(t.numel() for t in tensors[:-1])
    inputs = partial(deform_conv2d_inputs, "noise", "cpu")
    memory(what, partial(run_for_memory, inputs, padded_deform_conv2d, size, backward), 0.1 * 1152 * 6480 / count)
