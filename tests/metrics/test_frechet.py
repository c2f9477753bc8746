"""Frechet distance by its definition, and FID on random weights."""

import functools

import pytest
import torch
from torch import Tensor

from vfikit.layers.inception import InceptionV3
from vfikit.metrics import FID, frechet_distance


@pytest.mark.parametrize(("rows", "columns"), [((40, 30), 6), ((5, 30), 12), ((4, 3), 9)])
def test_the_definition(rows: tuple[int, int], columns: int) -> None:
    """The trace of the root of the product from its eigenvalues, which are not negative."""
    generator = torch.Generator().manual_seed(sum(rows))
    a, b = (torch.randn(n, columns, generator=generator, dtype=torch.float64) + n / 10 for n in rows)
    product = torch.cov(a.T) @ torch.cov(b.T)
    root = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    spread = torch.cov(a.T).trace() + torch.cov(b.T).trace()
    expected = (a.mean(0) - b.mean(0)).square().sum() + spread - 2 * root
    torch.testing.assert_close(frechet_distance(a, b), expected, rtol=1e-6, atol=1e-6)
    assert float(frechet_distance(a, a)) == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(frechet_distance(a, b), frechet_distance(b, a))


def test_means_alone() -> None:
    a = torch.randn(9, 4)
    assert float(frechet_distance(a, a + torch.tensor([3.0, 0, 4, 0]))) == pytest.approx(25, rel=1e-5)


def test_wrong_features() -> None:
    with pytest.raises(ValueError, match=r"b is \(3, 5\), expected \(N, D\)"):
        frechet_distance(torch.rand(3, 4), torch.rand(3, 5))
    with pytest.raises(ValueError, match=r"a is \(1, 4\)"):
        frechet_distance(torch.rand(1, 4), torch.rand(3, 4))


@functools.cache
def inception() -> dict[str, Tensor]:
    """Random weights under the published names; the published file also holds a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = InceptionV3()
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name in state:
        if name.endswith("conv.weight"):
            state[name] = 2 * state[name]  # or the signal dies on the way
    return {**state, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def test_fid() -> None:
    """Zero for the same images in any order, more for others; any size; forgets."""
    fid, images = FID(inception()), torch.rand(3, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    fid.add(images, images.flip(0))
    assert fid.compute() == pytest.approx(0, abs=1e-6)
    fid.reset()
    for image in images:
        fid.add(image[None], image[None] / 2)
    assert fid.compute() > 1e-4


def test_missing_weights_are_listed() -> None:
    state = {name: tensor for name, tensor in inception().items() if name != "Mixed_6e.branch_pool.bn.weight"}
    with pytest.raises(ValueError, match=r"Inception weights lack Mixed_6e\.branch_pool\.bn\.weight$"):
        FID(state)
