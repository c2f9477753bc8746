"""Deformable separable convolution: its definition against a loop, every backend against it, torch's machinery."""

import os
import shutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vfikit.ops import DSepConv, dsepconv
from vfikit.ops.dsepconv import dsepconv_backward_reference, dsepconv_reference

from . import checks
from .adacof_cases import DEVICES
from .dsepconv_cases import SHAPES, gradient, make, naive

FORWARD, BACKWARD = torch.ops.vfikit.dsepconv.default, torch.ops.vfikit.dsepconv_backward.default


@pytest.mark.parametrize("spread", [1.0, 9.0])
@pytest.mark.parametrize("shape", SHAPES[:3] + SHAPES[4:5])
def test_reference_against_naive_loop(shape: tuple[int, ...], spread: float) -> None:
    inputs = make(shape, torch.float64, spread=spread)
    torch.testing.assert_close(dsepconv_reference(*inputs), naive(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", [dsepconv, dsepconv_reference])
def test_whole_offsets_against_naive_loop(op: checks.Function, dtype: torch.dtype) -> None:
    """Cells change there, and the border counts twice: before the first pixel, but from the last one on."""
    image, vertical, horizontal, offset_x, offset_y, mask = make((1, 2, 5, 6, 3), dtype)
    inputs = (image, vertical, horizontal, offset_x.round(), offset_y.round(), mask)
    exact = naive(*inputs)
    torch.testing.assert_close(op(*inputs).double(), exact, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_border_counts_twice(size: int) -> None:
    """F = 1 starts one pixel to the right and below: an offset of -1 is the pixel itself."""
    frame, one = torch.rand(1, 1, size, size, dtype=torch.float64) + 1, torch.ones(1, 1, size, size).double()
    inputs = (frame, one, one, -one, -one, one)
    border = torch.where(torch.arange(size) == size - 1, 2.0, 1.0).double()
    torch.testing.assert_close(dsepconv(*inputs), frame * border * border[:, None])
    far = dsepconv(frame, one, one, -9 * one, 9 * one, one)
    torch.testing.assert_close(far, 4 * frame[:, :, :1, -1:].expand_as(far))


def test_gradient_of_the_border_is_zero_for_offsets_and_true_for_the_input() -> None:
    frame, one = torch.rand(1, 2, 4, 5, dtype=torch.float64), torch.ones(1, 1, 4, 5, dtype=torch.float64)
    inputs = (frame, one, one, -9 * one, 9 * one, one)
    grads = checks.differentiate(dsepconv, inputs, torch.ones_like(frame))[1:]
    assert grads[3].eq(0).all()
    assert grads[4].eq(0).all()
    corner = torch.zeros_like(frame)
    corner[:, :, 0, -1] = 4 * 4 * 5
    torch.testing.assert_close(grads[0], corner)


# Without kernels the op runs the reference's own backward, which adds up in float32 what autograd adds up by tap.
KERNEL = pytest.mark.skipif(os.environ.get("VFIKIT_KERNELS") == "0", reason="kernels are turned off")


@KERNEL
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float32(shape: tuple[int, ...], device: str) -> None:
    checks.float32(dsepconv, dsepconv_reference, make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_against_reference_float64(shape: tuple[int, ...], device: str) -> None:
    inputs, grad = make(shape, torch.float64, device), gradient(shape, torch.float64, device)
    checks.float64(dsepconv, dsepconv_reference, inputs, grad)


@KERNEL
@pytest.mark.parametrize("spread", [40.0, 1e6, 1e30])
def test_kernel_with_far_offsets(spread: float) -> None:
    """Offsets that leave the window in which the input's gradient is summed, the frame, and the integers."""
    shape = (1, 3, 120, 40, 3)
    checks.far_offsets(dsepconv, dsepconv_reference, make(shape, spread=spread), gradient(shape))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_and_infinite_offsets(dtype: torch.dtype, device: str) -> None:
    """NaN spoils the pixels that use it, and no other; an infinite offset reads the border, in a small map too."""
    shape = (1, 3, 9, 20, 3)
    inputs, grad = make(shape, dtype, device), gradient(shape, dtype, device)
    inputs[3][0, 4, 2, 3] = inputs[4][0, 1, 8, 19] = inputs[4][0, 2, 5, 7] = torch.nan
    results = checks.nan_where_the_reference_has_it(dsepconv, dsepconv_reference, inputs, grad)
    assert results[0].isnan().sum() == 9
    image, vertical, horizontal, offset_x, offset_y, mask = make((1, 3, 1, 2, 11), dtype, device)
    offset_x[0, :60], offset_y[0, :80] = torch.inf, -torch.inf
    inputs = (image, vertical, horizontal, offset_x, offset_y, mask)
    bounded = (image, vertical, horizontal, offset_x.clamp(-99, 99), offset_y.clamp(-99, 99), mask)
    torch.testing.assert_close(dsepconv(*inputs), dsepconv(*bounded))
    torch.testing.assert_close(dsepconv_reference(*inputs), dsepconv_reference(*bounded))


@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck(device: str) -> None:
    inputs = tuple(t.requires_grad_() for t in make((2, 2, 2, 3, 2), torch.float64, device))
    assert torch.autograd.gradcheck(dsepconv, inputs, nondet_tol=1e-12)
    assert torch.autograd.gradcheck(dsepconv_reference, inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("spread", [3.0, 30.0])
def test_gradients_written_out(spread: float) -> None:
    inputs, grad = (f((2, 3, 6, 5, 4), torch.float64) for f in (make, gradient))
    expected = checks.differentiate(dsepconv_reference, inputs, grad)[1:]
    for a, b in zip(dsepconv_backward_reference(grad, *inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    without = dsepconv_backward_reference(grad, *inputs, with_input=False)
    assert without[0].numel() == 0
    torch.testing.assert_close(without[1:], tuple(expected[1:]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", range(6))
def test_each_gradient_alone(wanted: int) -> None:
    """The published op crashes when any of its gradients is not needed."""
    shape = (1, 3, 4, 5, 3)
    inputs, grad = list(make(shape)), gradient(shape)
    expected = checks.differentiate(dsepconv, tuple(inputs), grad)[1 + wanted]
    leaf = inputs[wanted].clone().requires_grad_()
    inputs[wanted] = leaf
    torch.testing.assert_close(torch.autograd.grad(dsepconv(*inputs), leaf, grad)[0], expected)


def test_second_gradient_is_refused() -> None:
    inputs = [t.requires_grad_() for t in make((1, 1, 2, 2, 1))]
    (grad,) = torch.autograd.grad(dsepconv(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="dsepconv_backward"):
        grad.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    shape = (2, 3, 5, 6, 3)
    checks.registration(FORWARD, BACKWARD, make(shape, dtype, device), gradient(shape, dtype, device))


@pytest.mark.skipif(not (shutil.which("g++") or os.environ.get("VFIKIT_CI")), reason="inductor needs g++")
@pytest.mark.parametrize("dynamic", [False, True])
def test_fullgraph_compile(dynamic: bool) -> None:
    cases = []
    for height in (6, 9) if dynamic else (6,):
        shape = (2, 3, height, 7, 3)
        image, *maps = make(shape)
        cases.append(((image[:, :, 1:-1, 1:-1], *maps), gradient(shape)))
    checks.compiles(DSepConv(3), cases, dynamic)


def test_export_keeps_one_node() -> None:
    inputs, others = (
        (image[:, :, 1:-1, 1:-1].clone(), *maps) for image, *maps in (make((1, 3, 6, 7, 3)), make((1, 3, 8, 5, 3)))
    )
    checks.exports(DSepConv(3), FORWARD, inputs, others)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_computes_in_float32(device: str) -> None:
    checks.autocast(dsepconv, make((1, 3, 6, 7, 3), device=device), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("types", [("float16", "float16"), ("bfloat16", "float32"), ("float32", "float64")])
def test_types_follow_each_tensor(types: tuple[str, str], device: str) -> None:
    image_type, map_type = (getattr(torch, name) for name in types)
    image, *maps = make((2, 3, 5, 7, 3), device=device)
    inputs = (image.to(image_type), *(t.to(map_type) for t in maps))
    checks.types_follow(dsepconv, dsepconv_reference, inputs, gradient((2, 3, 5, 7), device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(2160, 3), (3, 3840)])
def test_identity_in_half_precision_is_exact(size: tuple[int, int], device: str) -> None:
    """No coordinate is kept in half precision, so a 4K frame comes back as it is."""
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device, torch.float16)
    one = torch.ones(1, 3, *size, device=device, dtype=torch.float16)
    mask = torch.zeros(1, 9, *size, device=device, dtype=torch.float16)
    mask[:, 4] = 1  # the centre, for F = 3
    for maps in (torch.float16, torch.float32):
        zero = torch.zeros_like(mask, dtype=maps)
        assert torch.equal(DSepConv(3)(frame, one.to(maps), one.to(maps), zero, zero, mask.to(maps)), frame)


@pytest.mark.parametrize("device", DEVICES)
def test_layouts(device: str) -> None:
    shape = (2, 3, 6, 11, 3)
    checks.layouts(dsepconv, make(shape, device=device), gradient(shape, device=device))


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_layout_of_an_empty_batch(device: str) -> None:
    shape = (1, 3, 4, 5, 3)
    checks.empty_batch(dsepconv, make(shape, device=device), gradient(shape, device=device))


def test_no_channels() -> None:
    shape = (1, 1, 4, 5, 3)
    checks.no_channels(dsepconv, make(shape), gradient(shape))


def test_rejects_bad_input() -> None:
    image, vertical, horizontal, offset_x, offset_y, mask = make((2, 3, 5, 6, 3))
    message = r"dsepconv: horizontal is \(2, 3, 5, 7\), expected \(2, 3, 5, 6\) for input \(2, 3, 7, 8\), F = 3"
    with pytest.raises(ValueError, match=message):
        dsepconv(image, vertical, torch.zeros(2, 3, 5, 7), offset_x, offset_y, mask)
    with pytest.raises(ValueError, match=r"dsepconv: offset_y is \(2, 3, 5, 6\), expected \(2, 9, 5, 6\)"):
        dsepconv(image, vertical, horizontal, offset_x, vertical, mask)
    with pytest.raises(ValueError, match=r"dsepconv: mask is \(1, 9, 5, 6\), expected \(2, 9, 5, 6\)"):
        dsepconv(image, vertical, horizontal, offset_x, offset_y, mask[:1])
    with pytest.raises(ValueError, match=r"dsepconv: vertical is \(2, 2, 5, 6\), expected \(2, 2, 6, 7\)"):
        dsepconv(image, vertical[:, :2], horizontal, offset_x, offset_y, mask)
    for wrong in (vertical[0], vertical[:, :0]):
        with pytest.raises(ValueError, match=r"dsepconv: vertical is \(.*\), expected \(N, F, H, W\)"):
            dsepconv(image, wrong, horizontal, offset_x, offset_y, mask)
    with pytest.raises(ValueError, match="dsepconv: offset_x is on meta, expected cpu like input"):
        dsepconv(image, vertical, horizontal, offset_x.to("meta"), offset_y, mask)
    with pytest.raises(ValueError, match=r"expected fewer than 2\*\*29 pixels a plane"):
        dsepconv(*(torch.empty(1, 1, 2**16, 2**15, device="meta") for _ in range(6)))
    for kernel_size in (4, 0, -1):
        with pytest.raises(ValueError, match=f"DSepConv: kernel_size is {kernel_size}, expected positive and odd"):
            DSepConv(kernel_size)


def test_module_pads_by_replication() -> None:
    image, *maps = make((1, 3, 6, 7, 5))
    frame = image[:, :, 2:-2, 2:-2]
    module = DSepConv(5)
    assert torch.equal(module(frame, *maps), dsepconv(torch.nn.functional.pad(frame, [2] * 4, mode="replicate"), *maps))
    assert repr(module) == "DSepConv(kernel_size=5)"


def test_flops_are_counted() -> None:
    inputs = tuple(t.requires_grad_() for t in make((2, 3, 5, 6, 3)))
    with FlopCounterMode(display=False) as counter:
        output = dsepconv(*inputs)
    forward = 2 * (2 * 9 * 5 * 6) * (1 + 4 + 4 * 3)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * forward


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic(device: str) -> None:
    shape = (1, 3, 160, 70, 5)
    checks.deterministic(dsepconv, make(shape, device=device, spread=12.0), gradient(shape, device=device))
