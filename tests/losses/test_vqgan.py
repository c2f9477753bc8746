"""The autoencoder's loss: weights that balance, a discriminator that joins late, and who gets which gradient."""

import pytest
import torch
from torch import Tensor, nn

from vfikit.layers import PatchDiscriminator
from vfikit.losses import VQGANLoss


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """A made frame that depends on a last layer, the target, the layer."""
    generator = torch.Generator().manual_seed(0)
    feature, target = torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)
    layer = torch.randn(3, 3, 1, 1, generator=generator).requires_grad_()
    return nn.functional.conv2d(feature, layer).sigmoid(), target, layer


def loss(**options: object) -> VQGANLoss:
    torch.manual_seed(0)
    return VQGANLoss(discriminator=PatchDiscriminator(width=8), start=10, **options)  # type: ignore[arg-type]


def test_the_adversary_joins_late() -> None:
    made, target, layer = scene()
    codebook = torch.tensor(0.25)
    both = [loss()(made, target, codebook, layer, step) for step in (9, 10)]
    early, late = both
    torch.testing.assert_close(early.total, (2 * (made - target)).abs().mean() + codebook)
    torch.testing.assert_close(late.total, early.total + late.adversarial_weight * late.adversarial)
    norms = [
        torch.autograd.grad(x, layer, retain_graph=True)[0].norm() for x in (late.reconstruction, late.adversarial)
    ]
    torch.testing.assert_close(late.adversarial_weight, 0.8 * norms[0] / (norms[1] + 1e-4))
    assert not late.adversarial_weight.requires_grad


def test_perception() -> None:
    made, target, layer = scene()
    seen = loss(perceptual=lambda made, target: (made - target).square().mean((1, 2, 3)))
    found = seen(made, target, torch.zeros(()), layer, 0)
    assert found.perceptual.shape == (2,)
    torch.testing.assert_close(found.total, (2 * (made - target)).abs().mean() + (made - target).square().mean())


@pytest.mark.parametrize("kind", ["hinge", "vanilla"])
def test_discriminator(kind: str) -> None:
    made, target, layer = scene()
    game = loss(kind=kind)
    early, late = (game.discriminator_loss(made, target, step) for step in (9, 10))
    assert early.total == 0
    late.total.backward()
    assert layer.grad is None
    assert all(p.grad is not None for p in game.discriminator.parameters())
    optimizer = torch.optim.Adam(game.discriminator.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        step = game.discriminator_loss(made, target, 10)
        step.total.backward()
        optimizer.step()
    assert step.total < late.total
    assert step.real > step.made


def test_without_a_graph() -> None:
    made, target, layer = scene()
    with torch.no_grad():
        found = loss()(made.detach(), target, torch.zeros(()), layer, 10)
    assert found.adversarial_weight == 0
    assert found.total == found.reconstruction


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind is 'least', expected 'hinge' or 'vanilla'"):
        VQGANLoss(kind="least")


def test_no_game() -> None:
    made, target, layer = scene()
    alone = VQGANLoss(start=None)
    found = alone(made, target, torch.zeros(()), layer, 10**6)
    torch.testing.assert_close(found.total, (2 * (made - target)).abs().mean())
    assert not list(alone.parameters())
    with pytest.raises(ValueError, match="start is None"):
        alone.discriminator_loss(made, target, 0)
