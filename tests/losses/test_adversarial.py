"""The dual-frame adversarial loss."""

import pytest
import torch

from vfikit.layers.discriminators import ConvDiscriminator
from vfikit.losses import (
    ADVERSARIES,
    DualFrameAdversary,
    FrameAdversary,
    WassersteinAdversary,
    dual_frame_discriminator,
)


def small() -> DualFrameAdversary:
    torch.manual_seed(0)
    return DualFrameAdversary(dual_frame_discriminator((4, 4, 8, 8), grid=4, hidden=8))


def frames(side: int = 16) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(3, 3, side, side, generator=generator) for _ in range(3))


def test_published_size() -> None:
    with torch.device("meta"):
        discriminator = dual_frame_discriminator()
        assert discriminator(torch.empty(2, 6, 256, 256)).shape == (2, 1)
        assert discriminator.features(torch.empty(2, 6, 256, 256)).shape == (2, 512, 16, 16)
    assert sum(p.numel() for p in discriminator.parameters()) == 138_908_801


@pytest.mark.parametrize("side", [13, 16, 40])
def test_any_crop(side: int) -> None:
    assert small()(*frames(side)).isfinite()


def test_pooling_is_exact_at_the_published_size() -> None:
    discriminator = ConvDiscriminator(6, (4, 4), grid=8, hidden=8)
    features = discriminator.features(torch.rand(2, 6, 16, 16))
    assert torch.equal(discriminator.pool(features), features)


def test_the_formulas() -> None:
    adversary, (frame0, made, frame1) = small(), frames()
    adversary.eval()
    second, first = adversary.logits(frame0, made, frame1)
    torch.testing.assert_close(second, adversary.discriminator(torch.cat((frame0, made), 1)))
    torch.testing.assert_close(first, adversary.discriminator(torch.cat((made, frame1), 1)))
    p, q = second.sigmoid(), first.sigmoid()
    generator = (p * (p + 1e-12).log() + q * (q + 1e-12).log()).mean()
    torch.testing.assert_close(adversary(frame0, made, frame1), generator)
    discriminator = -p.log().mean() - (1 - q).log().mean()
    torch.testing.assert_close(adversary.discriminator_loss(frame0, made, frame1), discriminator)


def test_who_learns_from_what() -> None:
    """The generator gets a gradient from its term (published: none) and none from the discriminator's."""
    adversary, (frame0, made, frame1) = small(), frames()
    made.requires_grad_()
    adversary(frame0, made, frame1).backward()
    assert made.grad is not None
    assert float(made.grad.abs().max()) > 0
    made.grad = None
    adversary.discriminator_loss(frame0, made, frame1).backward()
    assert made.grad is None


def test_the_discriminator_learns() -> None:
    adversary, (frame0, _, frame1) = small(), frames()
    made = torch.zeros_like(frame0)
    optimizer = torch.optim.Adam(adversary.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = adversary.discriminator_loss(frame0, made, frame1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def judge(channels: int = 3, norm: bool = True) -> ConvDiscriminator:
    torch.manual_seed(0)
    return ConvDiscriminator(channels, (4, 4, 8, 8), grid=4, hidden=8, norm=norm)


def all_kinds() -> dict[str, FrameAdversary | WassersteinAdversary]:
    return {
        "GAN": FrameAdversary(judge()),
        "WGAN": WassersteinAdversary(judge()),
        "WGAN_GP": WassersteinAdversary(judge(norm=False), penalty=10.0),
        "T_WGAN_GP": WassersteinAdversary(judge(9, norm=False), penalty=10.0, temporal=True),
    }


def test_gan_is_cross_entropy() -> None:
    adversary, (frame0, made, frame1), target = FrameAdversary(judge()).eval(), frames(), torch.rand(3, 3, 16, 16)
    p, q = (adversary.discriminator(x).sigmoid() for x in (target, made))
    torch.testing.assert_close(adversary(frame0, made, frame1), -q.log().mean())
    loss = adversary.discriminator_loss(frame0, made, frame1, target)
    torch.testing.assert_close(loss, -p.log().mean() - (1 - q).log().mean())


def test_wgan_is_a_difference_of_means() -> None:
    adversary, (frame0, made, frame1), target = WassersteinAdversary(judge()).eval(), frames(), torch.rand(3, 3, 16, 16)
    real, false = (adversary.discriminator(x).mean() for x in (target, made))
    torch.testing.assert_close(adversary.discriminator_loss(frame0, made, frame1, target), false - real)
    torch.testing.assert_close(adversary(frame0, made, frame1), -false)
    adversary.constrain()
    assert max(p.abs().max().item() for p in adversary.parameters()) == pytest.approx(0.01)


@pytest.mark.parametrize("temporal", [False, True])
def test_the_penalty_is_of_the_gradients_length(temporal: bool) -> None:
    """A linear judge has one gradient everywhere: its weights."""
    channels = 9 if temporal else 3
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * 256, 1))
    adversary, (frame0, made, frame1) = WassersteinAdversary(linear, 10.0, temporal), frames()
    before = [p.clone() for p in linear.parameters()]
    adversary.constrain()  # nothing, as the penalty stands in for it
    assert all(torch.equal(a, b) for a, b in zip(before, linear.parameters()))
    target = torch.rand(3, 3, 16, 16)
    seen = [torch.cat([frame0, x, frame1], 1) if temporal else x for x in (made, target)]
    apart = linear(seen[0]).mean() - linear(seen[1]).mean()
    expected = apart + 10 * (linear[1].weight.norm() - 1) ** 2
    torch.testing.assert_close(adversary.discriminator_loss(frame0, made, frame1, target), expected)


@pytest.mark.parametrize("kind", ["GAN", "WGAN", "WGAN_GP", "T_WGAN_GP"])
def test_every_kind_learns(kind: str) -> None:
    """Grey frames come to be told from noise; the generator alone gets the generator's gradient."""
    adversary, (frame0, target, frame1) = all_kinds()[kind], frames()
    made = torch.full_like(target, 0.5, requires_grad=True)
    adversary(frame0, made, frame1).backward()
    assert made.grad is not None
    assert float(made.grad.abs().max()) > 0
    made.grad = None
    optimizer, losses = adversary.optimizer(3e-3), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = adversary.discriminator_loss(frame0, made, frame1, target)
        loss.backward()
        optimizer.step()
        adversary.constrain()
        losses.append(loss.item())
    assert made.grad is None
    assert losses[-1] < losses[0] - 1e-3


def test_all_are_built_by_their_terms() -> None:
    with torch.device("meta"):
        channels = {name: build().discriminator.features[0].in_channels for name, build in ADVERSARIES.items()}
        norms = {
            name: any("1.running_mean" in key for key in build().state_dict()) for name, build in ADVERSARIES.items()
        }
    assert channels == {"FI_GAN": 6, "GAN": 3, "WGAN": 3, "WGAN_GP": 3, "T_WGAN_GP": 9}
    assert [name for name, found in norms.items() if found] == ["FI_GAN", "GAN", "WGAN"]
