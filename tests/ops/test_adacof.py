"""The AdaCoF op: its definition against a loop, every backend against the definition, and torch's machinery."""

import os
import shutil
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vfikit.ops import AdaCoF, adacof
from vfikit.ops.adacof import adacof_reference

from . import checks
from .adacof_cases import DEVICES, SHAPES, gradient, make, naive

FORWARD, BACKWARD = torch.ops.vfikit.adacof.default, torch.ops.vfikit.adacof_backward.default


def differentiate(op, inputs: tuple[Tensor, ...], dilation: int, grad: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The output and the four gradients."""
    return checks.differentiate(partial(op, dilation=dilation), inputs, grad)


@pytest.mark.parametrize("shape", SHAPES[:3] + SHAPES[4:5])
def test_reference_against_naive_loop(shape: tuple[int, ...]) -> None:
    inputs = make(shape, torch.float64)
    torch.testing.assert_close(adacof_reference(*inputs, shape[-1]), naive(*inputs, shape[-1]), rtol=1e-12, atol=1e-12)


def test_integer_offsets_against_naive_loop() -> None:
    image, weight, *offsets = make((1, 2, 5, 6, 3, 1), torch.float64)
    inputs = (image, weight, *(t.round() for t in offsets))
    torch.testing.assert_close(adacof(*inputs), naive(*inputs, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float32(shape: tuple[int, ...], device: str) -> None:
    ours, reference = (partial(op, dilation=shape[-1]) for op in (adacof, adacof_reference))
    checks.float32(ours, reference, make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float64(shape: tuple[int, ...], device: str) -> None:
    ours, reference = (partial(op, dilation=shape[-1]) for op in (adacof, adacof_reference))
    dtype = torch.float64
    checks.float64(ours, reference, make(shape, dtype, device), gradient(shape, dtype, device))


@pytest.mark.parametrize("spread", [40.0, 1e6, 1e30])
def test_kernel_with_far_offsets(spread: float) -> None:
    """Offsets that leave the window in which the input's gradient is summed, the frame, and the integers."""
    shape = (1, 3, 120, 40, 3, 1)
    checks.far_offsets(adacof, partial(adacof_reference, dilation=1), make(shape, spread=spread), gradient(shape))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_and_infinite_offsets(dtype: torch.dtype, device: str) -> None:
    """NaN spoils the pixels that use it, and no other; an infinite offset reads the border."""
    shape = (1, 3, 9, 20, 3, 1)
    image, weight, offset_i, offset_j = make(shape, dtype, device)
    clean = differentiate(adacof, (image, weight, offset_i, offset_j), 1, gradient(shape, dtype, device))
    offset_i[0, 4, 2, 3] = offset_j[0, 1, 8, 19] = torch.nan
    results = checks.nan_where_the_reference_has_it(
        adacof,
        partial(adacof_reference, dilation=1),
        (image, weight, offset_i, offset_j),
        gradient(shape, dtype, device),
    )
    assert results[0].isnan().sum() == 6
    assert not any(t.isnan().any() for t in clean)
    offset_i.nan_to_num_(), offset_j.nan_to_num_()
    offset_i[0, 0], offset_j[0, 0] = torch.inf, -torch.inf
    bounded = adacof(image, weight, offset_i.clamp(-99, 99), offset_j.clamp(-99, 99))
    torch.testing.assert_close(adacof(image, weight, offset_i, offset_j), bounded)


@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck(device: str) -> None:
    inputs = tuple(t.requires_grad_() for t in make((2, 2, 3, 4, 3, 2), torch.float64, device))
    assert torch.autograd.gradcheck(lambda *t: adacof(*t, 2), inputs, nondet_tol=1e-12)
    assert torch.autograd.gradcheck(lambda *t: adacof_reference(*t, 2), inputs, nondet_tol=1e-12)


def test_gradients_are_only_made_where_needed() -> None:
    inputs = make((1, 3, 4, 5, 3, 1))
    full = differentiate(adacof, inputs, 1, gradient((1, 3, 4, 5)))
    maps = [t.clone().requires_grad_() for t in inputs[1:]]
    grads = torch.autograd.grad(adacof(inputs[0], *maps), maps, gradient((1, 3, 4, 5)))
    for a, b in zip(grads, full[2:]):
        torch.testing.assert_close(a, b)


def test_second_gradient_is_refused() -> None:
    inputs = [t.requires_grad_() for t in make((1, 1, 2, 2, 1, 1))]
    (grad,) = torch.autograd.grad(adacof(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="adacof_backward"):
        grad.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    shape = (2, 3, 5, 6, 3, 1)
    checks.registration(FORWARD, BACKWARD, make(shape, dtype, device), gradient(shape, dtype, device), 1)


@pytest.mark.skipif(not (shutil.which("g++") or os.environ.get("VFIKIT_CI")), reason="inductor needs g++")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_fullgraph_compile(layout: torch.memory_format, dynamic: bool) -> None:
    cases = []
    for height in (6, 9) if dynamic else (6,):
        shape = (2, 3, height, 7, 3, 1)
        image, *maps = make(shape)
        maps = [t.contiguous(memory_format=layout) for t in maps]
        cases.append(((image[:, :, 1:-1, 1:-1], *maps), gradient(shape)))
    checks.compiles(AdaCoF(3), cases, dynamic)


def test_export_keeps_one_node() -> None:
    inputs, others = (
        (image[:, :, 1:-1, 1:-1].clone(), *maps)
        for image, *maps in (make((1, 3, 6, 7, 3, 1)), make((1, 3, 8, 5, 3, 1)))
    )
    checks.exports(AdaCoF(3), FORWARD, inputs, others)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_computes_in_float32(device: str) -> None:
    checks.autocast(adacof, make((1, 3, 6, 7, 3, 1), device=device), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("types", [("float16", "float16"), ("bfloat16", "float32"), ("float32", "float64")])
def test_types_follow_each_tensor(types: tuple[str, str], device: str) -> None:
    image_type, map_type = (getattr(torch, name) for name in types)
    image, *maps = make((2, 3, 5, 7, 3, 1), device=device)
    inputs = (image.to(image_type), *(t.to(map_type) for t in maps))
    grad = gradient((2, 3, 5, 7), device=device)
    checks.types_follow(adacof, partial(adacof_reference, dilation=1), inputs, grad)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(2160, 3), (3, 3840)])
def test_identity_in_half_precision_is_exact(size: tuple[int, int], device: str) -> None:
    """No coordinate is kept in half precision, so a 4K frame comes back as it is."""
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device, torch.float16)
    weight = torch.zeros(1, 9, *size, device=device, dtype=torch.float16)
    weight[:, 4] = 1
    for maps in (torch.float16, torch.float32):
        zero = torch.zeros_like(weight, dtype=maps)
        assert torch.equal(AdaCoF(3)(frame, weight.to(maps), zero, zero), frame)


@pytest.mark.parametrize("device", DEVICES)
def test_layouts(device: str) -> None:
    shape = (2, 3, 6, 11, 3, 1)
    checks.layouts(adacof, make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_layout_of_an_empty_batch(device: str) -> None:
    shape = (1, 3, 4, 5, 3, 1)
    checks.empty_batch(adacof, make(shape, device=device), gradient(shape, device=device))


def test_no_channels() -> None:
    shape = (1, 1, 4, 5, 3, 1)
    checks.no_channels(adacof, make(shape), gradient(shape))


def test_rejects_bad_input() -> None:
    image, weight, offset_i, offset_j = make((2, 3, 5, 6, 3, 1))
    message = r"adacof: weight is \(2, 9, 5, 7\), expected \(2, 9, 5, 6\) for input \(2, 3, 7, 8\), dilation 1"
    with pytest.raises(ValueError, match=message):
        adacof(image, torch.zeros(2, 9, 5, 7), offset_i, offset_j)
    with pytest.raises(ValueError, match=r"adacof: offset_j is \(1, 9, 5, 6\), expected \(2, 9, 5, 6\)"):
        adacof(image, weight, offset_i, offset_j[:1])
    with pytest.raises(ValueError, match=r"adacof: weight is \(2, 8, 5, 6\), expected \(N, F\*F, H, W\)"):
        adacof(image, weight[:, :8], offset_i, offset_j)
    with pytest.raises(ValueError, match=r"adacof: weight is \(9, 5, 6\)"):
        adacof(image, weight[0], offset_i, offset_j)
    with pytest.raises(ValueError, match="adacof: dilation is 0, expected at least 1"):
        adacof(image, weight, offset_i, offset_j, 0)
    with pytest.raises(ValueError, match="adacof: offset_i is on meta, expected cpu like input"):
        adacof(image, weight, offset_i.to("meta"), offset_j)
    with pytest.raises(ValueError, match=r"expected fewer than 2\*\*29 pixels a plane"):
        adacof(*(torch.empty(1, 1, 2**16, 2**15, device="meta") for _ in range(4)))
    for kernel_size, dilation in ((4, 1), (0, 1), (5, 0)):
        with pytest.raises(ValueError, match=f"AdaCoF: kernel_size is {kernel_size}, dilation {dilation}"):
            AdaCoF(kernel_size, dilation)


def test_module_pads_by_replication() -> None:
    image, *maps = make((1, 3, 6, 7, 3, 2))
    frame = image[:, :, 2:-2, 2:-2]
    padded = torch.nn.functional.pad(frame, [2] * 4, mode="replicate")
    module = AdaCoF(3, 2)
    assert torch.equal(module(frame, *maps), adacof(padded, *maps, 2))
    assert torch.equal(AdaCoF(3, 2, padded=True)(padded, *maps), adacof(padded, *maps, 2))
    assert repr(module) == "AdaCoF(kernel_size=3, dilation=2, padded=False)"


def test_flops_are_counted() -> None:
    inputs = make((2, 3, 5, 6, 3, 1))
    with FlopCounterMode(display=False) as counter:
        adacof(*inputs)
    assert counter.get_total_flops() == 2 * 4 * (2 * 9 * 5 * 6) * (1 + 3)


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic(device: str) -> None:
    shape = (1, 3, 160, 70, 5, 1)
    checks.deterministic(adacof, make(shape, device=device, spread=12.0), gradient(shape, device=device))
