"""OBProxSG: the update, its phases, its state, and what it refuses (published trajectories: tests/golden)."""

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain.obproxsg import orthant_step, prox_step
from vfikit.compress import OBProxSG
from vfikit.compress import obproxsg as module


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3, 3, 3), (4,), (7, 5), (1,)]
    params = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    params[0].data = params[0].data.to(memory_format=torch.channels_last)
    params[2].data[::2] = 0.0
    return params


def feed(params: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator, dtype=param.dtype)


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [param.detach().clone() for param in params]


@pytest.fixture(params=["pieces", "0", "1", "2"])
def way(request, monkeypatch) -> str:
    """By torch in small pieces, or by the kernel of each instruction set."""
    if request.param == "pieces":
        monkeypatch.setattr(module._cpu, "available", lambda: False)
        monkeypatch.setattr(module, "_PIECE", 3)
    elif not module._cpu.available():
        pytest.skip(f"no compiled kernels: {module._cpu.load()[1]}")
    else:
        monkeypatch.setenv("VFIKIT_INSTRUCTION_SET", request.param)
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_equals_the_per_tensor_formulation(way, dtype, eps):
    ours, plain = parameters(dtype=dtype), parameters(dtype=dtype)
    optimizer = OBProxSG(ours, 0.05, 0.3, 2, 2, 1, eps)
    for step in range(12):
        feed(ours, step)
        feed(plain, step)
        if optimizer.phase == "prox":
            prox_step(plain, 0.05, 0.3)
        else:
            orthant_step(plain, 0.05, 0.3, eps)
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, plain))
    assert any((param == 0).any() for param in ours)


@pytest.mark.parametrize("phase", ["prox", "orthant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_equals_the_update_of_pieces(monkeypatch, phase, dtype, threads):
    """Also of NaN and infinity, and of more than one thread's share."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(100_003, generator=generator, dtype=dtype) for _ in range(2))
    x[:4] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    grad[4:7] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    pieces, before = x.clone(), torch.get_num_threads()
    torch.set_num_threads(threads)
    module._step_cpu(phase == "prox", x, grad, 0.5, 0.3, 0.05)
    torch.set_num_threads(before)
    monkeypatch.setattr(module._cpu, "available", lambda: False)
    module._step_cpu(phase == "prox", pieces, grad, 0.5, 0.3, 0.05)
    assert (x == 0).any()
    assert torch.equal(x.nan_to_num(77.0, 78.0, 79.0), pieces.nan_to_num(77.0, 78.0, 79.0))


def test_a_backward_pass_that_needs_the_old_values_raises(way):
    params = parameters()
    loss = sum((param**2).sum() for param in params)
    feed(params, 0)
    OBProxSG(params, 0.05, 0.3, 1, 1, 1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("phase", ["prox", "orthant"])
def test_half_types_train(phase, dtype):
    params = parameters(dtype=dtype)
    feed(params, 0)
    before = values(params)
    OBProxSG(params, 0.05, 0.3, 1, 1 if phase == "prox" else 0).step()
    assert all(param.dtype == dtype and not torch.equal(param, old) for param, old in zip(params, before))


@pytest.mark.parametrize("phase", ["prox", "orthant"])
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_the_update_of_lists_for_accelerators_equals_the_one_of_pieces(phase, eps):
    pieces, lists = parameters(), parameters()
    for step in range(4):
        feed(pieces, step)
        gradients = [param.grad for param in pieces]
        with torch.no_grad():
            for x, grad in zip(pieces, gradients):
                getattr(module, f"_{phase}")(x, grad, 0.05, 0.3, eps)
            getattr(module, f"_{phase}_all")(lists, gradients, 0.05, 0.3, eps)
        for a, b in zip(pieces, lists):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_phases_follow_epochs_of_calls():
    params = parameters()
    optimizer = OBProxSG(params, lr=0.1, lambda_=0.1, epochSize=2, Np=1, No=2)
    phases = []
    for step in range(8):
        feed(params, step)
        phases.append(optimizer.phase)
        optimizer.step()
    assert phases == ["prox"] * 2 + ["orthant"] * 4 + ["prox"] * 2
    assert (optimizer.step_count, optimizer.iter) == (4, 0)


def test_snake_case_names():
    params = parameters()
    optimizer = OBProxSG(params, 0.1, 0.1, epoch_size=3, n_prox=2, n_orthant="inf")
    assert (optimizer.epoch_size, optimizer.n_prox, optimizer.n_orthant) == (3, 2, float("inf"))
    with pytest.raises(TypeError, match="both epochSize and epoch_size"):
        OBProxSG(params, 0.1, 0.1, 3, 2, epoch_size=3)
    with pytest.raises(TypeError, match="missing argument Np"):
        OBProxSG(params, 0.1, 0.1, 3)


@pytest.mark.parametrize("stop", [1, 5, 7])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
def test_resuming_is_bit_exact(tmp_path, stop, how):
    through, cut = parameters(), parameters()
    hyper = {"lr": 0.05, "lambda_": 0.2, "epochSize": 3, "Np": 1, "No": 1}
    whole, first = OBProxSG(through, **hyper), OBProxSG(cut, **hyper)
    for step in range(12):
        if step == stop and how == "state_dict":
            torch.save(first.state_dict(), tmp_path / "state.pt")
            cut = [nn.Parameter(value) for value in values(cut)]
            first = OBProxSG(cut, **hyper)
            first.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        elif step == stop:
            first = copy.deepcopy(first)
            cut = first.param_groups[0]["params"]
        feed(through, step)
        feed(cut, step)
        whole.step()
        first.step()
    assert all(torch.equal(a, b) for a, b in zip(through, cut))


def test_a_state_without_counters_is_refused():
    optimizer = OBProxSG(parameters(), 0.1, 0.1, 1, 1)
    state = optimizer.state_dict()
    del state["iter"]
    with pytest.raises(ValueError, match="expected step_count and iter"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", ["lr", "lambda_", "epochSize", "Np", "No", "eps"])
def test_negative_arguments_raise(name):
    hyper = {"lr": 0.1, "lambda_": 0.1, "epochSize": 1, "Np": 1, "No": 1, "eps": 0.0} | {name: -1}
    with pytest.raises(ValueError, match=rf"{name} is -1(\.0)?, expected at least 0"):
        OBProxSG(parameters(), **hyper)


def test_negative_group_argument_raises():
    with pytest.raises(ValueError, match=r"lr is -0\.5"):
        OBProxSG([{"params": parameters(), "lr": -0.5}], 0.1, 0.1, 1, 1)


def test_no_phase_at_all_raises():
    with pytest.raises(ValueError, match="Np and No are both 0"):
        OBProxSG(parameters(), 0.1, 0.1, 1, 0, 0)


def test_parameters_without_gradient_are_skipped():
    params = parameters()
    before = values(params)
    feed(params, 0)
    params[0].grad = None
    OBProxSG(params, 0.1, 0.1, 1, 1).step()
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])


def test_closure_runs_with_gradients():
    params = parameters()
    optimizer = OBProxSG(params, 0.01, 0.0, 1, 1)

    def closure():
        optimizer.zero_grad()
        loss = sum((param**2).sum() for param in params)
        loss.backward()
        return loss.item()

    with torch.no_grad():
        losses = [optimizer.step(closure) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_zero_stays_zero_in_the_orthant_phase_and_revives_in_prox():
    param = nn.Parameter(torch.zeros(3))
    param.grad = torch.full((3,), -5.0)
    OBProxSG([param], 0.1, 0.1, 1, 0).step()
    assert torch.equal(param, torch.zeros(3))
    OBProxSG([param], 0.1, 0.1, 1, 1).step()
    assert (param > 0).all()


def test_scheduler_changes_the_rate():
    params = parameters()
    optimizer = OBProxSG(params, 0.1, 0.1, 1, 1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    feed(params, 0)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
