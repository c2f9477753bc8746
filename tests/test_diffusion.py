"""Samplers against the closed form where the noise is known, few steps, reproducible noise, EMA, errors."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.diffusion import EMA, SAMPLERS, Sampling, Schedule, betas, published_times, sample, trajectory

from .fresh import python

SCHEDULE = Schedule(betas("linear", 1000, 0.0015, 0.0195))
TRUE = torch.tensor([0.5, -1.0, 2.0])[None, :, None, None]


def oracle(x: Tensor, t: Tensor) -> Tensor:
    """The noise in x, if every sample is TRUE underneath."""
    kept = SCHEDULE.alphas_cumprod[t].to(x.dtype).view(-1, 1, 1, 1)
    return (x - kept.sqrt() * TRUE.to(x.dtype)) / (1 - kept).sqrt()


def start(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spacing", ["published", "leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_a_perfect_model_gives_the_sample(sampler: str, steps: int, spacing: str) -> None:
    *_, end = trajectory(oracle, start(), SCHEDULE, Sampling(sampler, steps, 0.0, spacing))
    torch.testing.assert_close(end.predicted, TRUE.expand_as(end.predicted), rtol=1e-3, atol=2e-3)
    if sampler != "ddim" or steps > 1 or spacing == "trailing":  # one leading step begins where the noise nearly ends
        # the last step of DDIM stops at abar[0], a little noise away from the end
        assert (end.sample - TRUE).abs().max() < 0.2


def test_ancestral() -> None:
    generator = torch.Generator().manual_seed(1)
    made = sample(oracle, start(), SCHEDULE, Sampling("ancestral", 50), generator)
    torch.testing.assert_close(made, TRUE.expand_as(made), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 27, 200, 251, 333, 1000])
def test_published_times(steps: int) -> None:
    """Those on which the published sampler fails, too: t = 1000 does not exist."""
    times = published_times(steps)
    assert times.min() == 1
    assert times.max() < 1000
    assert (times[:-1] - times[1:] == 1000 // steps).all()
    assert len(times) in (steps - 1, steps, *range(steps, 1000 // (1000 // steps) + 2))


def test_quadratic_times() -> None:
    """Uneven steps, each to the next time that is visited: DDIM's formula, and fresh noise as eta asks."""
    sampling, x = Sampling("ddim", 5, 1.0, "quad"), start().double()
    noise = [torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    taken = list(trajectory(oracle, x, SCHEDULE, sampling, noise))
    times = [step.t for step in taken]
    assert times == [801, 451, 201, 51, 1]
    kept = SCHEDULE.alphas_cumprod
    for step, after, extra in zip(taken, [*times[1:], 0], noise, strict=True):
        now, then, predicted = kept[step.t], kept[after], oracle(x, torch.tensor([step.t]))
        sigma = ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        x0 = (x - (1 - now).sqrt() * predicted) / now.sqrt()
        x = then.sqrt() * x0 + (1 - then - sigma**2).sqrt() * predicted + sigma * extra
        torch.testing.assert_close(step.sample, x)
    half = [step.sample for step in trajectory(oracle, taken[2].sample, SCHEDULE, sampling, noise[3:], last=2)]
    torch.testing.assert_close(half[-1], x)
    with pytest.raises(ValueError, match=r"'dpm\+\+' with spacing 'quad', expected .*'quad' with 'ddim'"):
        Sampling("dpm++", 5, spacing="quad").scheduler(SCHEDULE)


@pytest.mark.parametrize("steps", [1, 3, 7, 200])
def test_steps_are_honoured(steps: int) -> None:
    for spacing in ("leading", "trailing"):
        taken = list(trajectory(oracle, start(), SCHEDULE, Sampling("ddim", steps, 0.0, spacing)))
        assert len(taken) == steps
        assert taken[0].t > 500 or (steps, spacing) == (1, "leading")
    assert len(list(trajectory(oracle, start(), SCHEDULE, Sampling("ddim", 20), last=3))) == 3


def test_noise() -> None:
    """From a generator or given; the same noise, the same sample. Without eta none is asked for."""
    sampling = Sampling("ddim", 4, 1.0)

    def made(seed: int) -> Tensor:
        return sample(oracle, start(), SCHEDULE, sampling, torch.Generator().manual_seed(seed))

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(4)]
    assert torch.equal(sample(oracle, start(), SCHEDULE, sampling, drawn), made(1))
    with pytest.raises(ValueError, match="noise given has run out"):
        sample(oracle, start(), SCHEDULE, sampling, drawn[:3])
    sample(oracle, start(), SCHEDULE, Sampling("ddim", 4, 0.0), [])


def test_paste_and_quantise() -> None:
    """Every step, the first too, starts from what was pasted; codes take the place of what was predicted."""
    seen = []

    def paste(x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x[:, :1]), x[:, 1:]], dim=1)

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    made = list(trajectory(model_fn, start(), SCHEDULE, Sampling("ddim", 4), paste=paste))
    assert all((x[:, 0] == 1).all() for x in seen)
    ones = (1 / SCHEDULE.alphas_cumprod[made[0].t].sqrt()).to(x := made[0].predicted[:, 0])
    torch.testing.assert_close(x, ones.expand(2, 4, 4))
    up = Sampling("ddim", 4)  # 0.5 lies between two codes: a tenth more does not
    *_, end = trajectory(oracle, start(), SCHEDULE, up, quantise=lambda x: (x + 0.1).round())
    torch.testing.assert_close(end.predicted, torch.tensor([1.0, -1, 2])[None, :, None, None].expand(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"quantise with sampler 'dpm\+\+', expected 'ddim'"):
        sample(oracle, start(), SCHEDULE, Sampling("dpm++", 4), quantise=lambda x: x)


def test_errors() -> None:
    with pytest.raises(ValueError, match="schedule is 'flat', expected one of linear"):
        betas("flat")
    with pytest.raises(ValueError, match="'euler' with spacing 'leading', expected one of ddim"):
        sample(oracle, start(), SCHEDULE, Sampling("euler"))
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"{steps} steps, expected 1 to 1000"):
            sample(oracle, start(), SCHEDULE, Sampling(steps=steps))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types(sampler: str, dtype: torch.dtype) -> None:
    made = sample(oracle, start().to(dtype), SCHEDULE, Sampling(sampler, 5), torch.Generator().manual_seed(0))
    assert made.dtype == dtype
    assert (made - TRUE).abs().max() < 0.5


def test_ema() -> None:
    module = nn.Linear(2, 2)
    average = EMA(module, decay=0.5)
    first = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    for _ in range(20):
        average.update(module)
    torch.testing.assert_close(average.average["weight"], first + 1, rtol=0, atol=1e-4)
    other = EMA(nn.Linear(2, 2))
    other.load_state_dict(average.state_dict())
    blank = nn.Linear(2, 2)
    other.copy_to(blank)
    assert torch.equal(blank.weight, average.average["weight"])
    assert (other.updates, other.decay) == (20, 0.5)


def test_diffusers_is_loaded_only_to_sample() -> None:
    assert python("import sys, vfikit.models, vfikit.diffusion; sys.exit('diffusers' in sys.modules)").returncode == 0
