"""What every op is tested for, whatever it computes. A ``function`` takes the tensors alone, the frame first."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.library import opcheck

Function = Callable[..., Tensor]
Inputs = tuple[Tensor, ...]


def differentiate(function: Function, inputs: Inputs, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of all inputs."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def at_most_twice_the_error(
    results: list[Tensor], plain: list[Tensor], exact: list[Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """The error against float64 is at most twice that of the reference in the same type."""
    for ours, theirs, truth in zip(results, plain, exact, strict=True):
        floor = 2 * torch.finfo(dtype).eps * truth.abs().max().item()  # where the reference happens to be exact
        allowed = 2 * (theirs.double() - truth).abs().max().item() + floor
        assert (ours.double() - truth).abs().max().item() <= allowed


def float32(function: Function, reference: Function, inputs: Inputs, grad: Tensor) -> None:
    exact = differentiate(reference, tuple(t.double() for t in inputs), grad.double())
    plain = differentiate(reference, inputs, grad)
    at_most_twice_the_error(differentiate(function, inputs, grad), plain, exact)


def float64(function: Function, reference: Function, inputs: Inputs, grad: Tensor) -> None:
    for truth, result in zip(differentiate(reference, inputs, grad), differentiate(function, inputs, grad)):
        torch.testing.assert_close(result, truth, rtol=1e-12, atol=1e-12)


def far_offsets(function: Function, reference: Function, inputs: Inputs, grad: Tensor) -> None:
    """Thousands of taps meet on the border: less exact than a float64 sum, no more."""
    exact = differentiate(reference, tuple(t.double() for t in inputs), grad.double())
    for truth, result in zip(exact, differentiate(function, inputs, grad), strict=True):
        assert (result - truth).abs().max() <= 3e-6 * max(truth.abs().max().item(), 1)


def nan_where_the_reference_has_it(
    function: Function, reference: Function, inputs: Inputs, grad: Tensor
) -> list[Tensor]:
    results, expected = differentiate(function, inputs, grad), differentiate(reference, inputs, grad)
    for result, truth, like in zip(results, expected, (results[0], *inputs), strict=True):
        truth = torch.where(like.isnan(), result, truth)  # what a NaN's own gradient is does not matter
        assert torch.equal(result.isnan(), truth.isnan())
        torch.testing.assert_close(result[~truth.isnan()], truth[~truth.isnan()], rtol=2e-5, atol=2e-5)
    return results


def registration(forward: Any, backward: Any, inputs: Inputs, grad: Tensor, *others: object) -> None:
    """torch's own check of both ops, on contiguous and on channels-last tensors."""
    last = tuple(t.to(memory_format=torch.channels_last) for t in inputs)
    for tensors in (inputs, (last[0], *inputs[1:]), last):
        opcheck(forward, (*(t.detach().requires_grad_() for t in tensors), *others), atol=1e-2, rtol=1e-2)
        for with_input in (False, True):
            opcheck(backward, (grad, *tensors, *others, with_input), atol=1e-2, rtol=1e-2)


def compiles(module: nn.Module, cases: Iterable[tuple[Inputs, Tensor]], dynamic: bool) -> None:
    """One graph, forward and backward, for all ``cases``."""
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic)
    for inputs, grad in cases:
        for ours, eager in zip(differentiate(compiled, inputs, grad), differentiate(module, inputs, grad)):
            torch.testing.assert_close(ours, eager)


def exports(module: nn.Module, op: Any, inputs: Inputs, others: Inputs) -> None:
    """``op`` stays one node, and the program runs on tensors of other sizes."""
    height, width = torch.export.Dim("height", min=4, max=64), torch.export.Dim("width", min=4, max=64)
    sizes = ({2: height, 3: width},) * len(inputs)
    program = torch.export.export(module, inputs, dynamic_shapes=sizes)
    assert [node.target for node in program.graph.nodes].count(op) == 1
    torch.testing.assert_close(program.module()(*others), module(*others))


def autocast(function: Function, inputs: Inputs, device: str) -> None:
    """Computes in float32; each gradient has its tensor's type."""
    image, *maps = inputs
    halves = [t.bfloat16().requires_grad_() for t in maps]
    with torch.autocast(device, torch.bfloat16):
        output = function(image, *halves)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, function(image, *(t.float() for t in halves)))
    output.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.bfloat16 for t in halves)


def types_follow(function: Function, reference: Function, inputs: Inputs, grad: Tensor) -> None:
    """Computed in the widest type, float32 at least; the result in the input's, each gradient in its tensor's."""
    results = differentiate(function, inputs, grad.to(inputs[0].dtype))
    compute = torch.promote_types(torch.promote_types(inputs[0].dtype, inputs[1].dtype), torch.float32)
    wide = tuple(t.to(compute) for t in inputs)
    truth = differentiate(reference, wide, grad.to(inputs[0].dtype).to(compute))
    for result, expected, like in zip(results, truth, (inputs[0], *inputs), strict=True):
        assert result.dtype == like.dtype
        torch.testing.assert_close(result, expected.to(like.dtype))


def layouts(function: Function, inputs: Inputs, grad: Tensor) -> None:
    """Channels last, slices, expanded maps: the same numbers as contiguous ones."""
    expected = differentiate(function, inputs, grad)
    last = tuple(t.to(memory_format=torch.channels_last) for t in inputs)
    apart = tuple(torch.stack((t, t), -1).flatten(3)[..., ::2] for t in inputs)
    for others, other_grad in ((last, grad.to(memory_format=torch.channels_last)), (apart, grad.mT.contiguous().mT)):
        for a, b in zip(differentiate(function, others, other_grad), expected):
            torch.testing.assert_close(a, b)
    wide = inputs[1][:, :, :1, :1].expand_as(inputs[1])
    torch.testing.assert_close(function(inputs[0], wide, *inputs[2:]), function(inputs[0], wide.clone(), *inputs[2:]))


def empty_batch(function: Function, inputs: Inputs, grad: Tensor) -> None:
    results = differentiate(function, tuple(t[:0] for t in inputs), grad[:0])
    assert [t.shape for t in results] == [(0, *grad.shape[1:]), *((0, *t.shape[1:]) for t in inputs)]


def no_channels(function: Function, inputs: Inputs, grad: Tensor) -> None:
    results = differentiate(function, (inputs[0][:, :0], *inputs[1:]), grad[:, :0])
    assert results[0].shape == grad[:, :0].shape
    assert all(t.eq(0).all() for t in results[2:])


def deterministic(function: Function, inputs: Inputs, grad: Tensor) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first = differentiate(function, inputs, grad)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(first, differentiate(function, inputs, grad)))
    finally:
        torch.use_deterministic_algorithms(False)


def any_number_of_threads(function: Function, inputs: Inputs, grad: Tensor, threads: Callable[[int], None]) -> None:
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(differentiate(function, inputs, grad))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others))
