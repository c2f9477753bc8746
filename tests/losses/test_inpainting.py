import pytest
import torch
from torch import Tensor

from vfikit.layers import SPyNet, TemporalPatchDiscriminator
from vfikit.losses import GAMES, FlowTargets, InpaintingLoss, region_errors


def clip(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made, frames = torch.rand(2, 2, 3, 3, 16, 16, generator=generator) * 2 - 1
    masks = (torch.rand(2, 3, 1, 16, 16, generator=generator) > 0.7).float()
    return made, frames, masks


def test_region_errors_are_means_over_the_regions() -> None:
    made, frames, masks = clip()
    hole, valid = region_errors(made, frames, masks)
    inside = masks.bool().expand_as(made)
    torch.testing.assert_close(hole, (made - frames).abs()[inside].mean())
    torch.testing.assert_close(valid, (made - frames).abs()[~inside].mean())
    squares, _ = region_errors(made, frames, masks, power=2)
    torch.testing.assert_close(squares, (made - frames).square()[inside].mean())


def test_empty_regions_give_zero_and_no_nan() -> None:
    made, frames, masks = clip()
    made.requires_grad_()
    for empty in (torch.zeros_like(masks), torch.ones_like(masks)):
        hole, valid = region_errors(made, frames, empty)
        assert (hole if not empty.any() else valid) == 0
        (grad,) = torch.autograd.grad(hole + valid, made)
        assert grad.isfinite().all()


@pytest.mark.parametrize("kind", GAMES)
def test_games_reward_the_right_side(kind: str) -> None:
    game, high, low = GAMES[kind], torch.full((4,), 3.0), torch.full((4,), -3.0)
    right = 1.0 * torch.ones(4) if kind == "lsgan" else high
    wrong = torch.zeros(4) if kind == "lsgan" else low
    assert game.real(right) < game.real(wrong)
    assert game.made(wrong) < game.made(right)
    assert game.generator(right) < game.generator(wrong)


def test_terms_are_weighted_and_reach_what_they_should() -> None:
    torch.manual_seed(0)
    loss = InpaintingLoss(FlowTargets(SPyNet(levels=3, widths=(4, 4))), TemporalPatchDiscriminator(width=2))
    made, frames, masks = clip()
    forward, backward = torch.randn(2, 2, 1, 2, 4, 4).unbind()
    for tensor in (made, forward, backward):
        tensor.requires_grad_()
    found = loss(made, forward, backward, frames, masks)
    torch.testing.assert_close(found.total, found.hole + found.valid + found.flow + 0.01 * found.adversarial)
    grads = torch.autograd.grad(found.total, (made, forward, backward))
    assert all(grad.abs().sum() > 0 for grad in grads)
    assert not any(parameter.requires_grad for parameter in loss.flow.parameters())
    judged = loss.discriminator_loss(made, frames, masks).total
    assert torch.autograd.grad(judged, made, allow_unused=True)[0] is None


def test_the_game_is_about_holes_only() -> None:
    torch.manual_seed(0)
    loss = InpaintingLoss(None, TemporalPatchDiscriminator(width=2).eval())
    made, frames, masks = clip()
    none = torch.zeros(2, 0, 2, 4, 4)
    other = torch.where(masks > 0, made, torch.zeros_like(made))
    assert loss(made, none, none, frames, masks).adversarial == loss(other, none, none, frames, masks).adversarial
    assert loss(made, none, none, frames, masks).flow == 0


def test_without_a_discriminator_there_is_no_game() -> None:
    made, frames, masks = clip()
    loss, none = InpaintingLoss(None, None), torch.zeros(2, 0, 2, 4, 4)
    assert loss(made, none, none, frames, masks).adversarial == 0
    with pytest.raises(ValueError, match="discriminator is None"):
        loss.discriminator_loss(made, frames, masks)
