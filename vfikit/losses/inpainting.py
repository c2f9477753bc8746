"""What a video inpainting model minimises (as E2FGVI): errors by region, flows, a game about the clip."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

Score = Callable[[Tensor], Tensor]


class Game(NamedTuple):
    """What the discriminator minimises on real and on made clips' scores, and the generator on made ones'."""

    real: Score
    made: Score
    generator: Score


GAMES: dict[str, Game] = {
    "hinge": Game(lambda s: (1 - s).relu().mean(), lambda s: (1 + s).relu().mean(), lambda s: -s.mean()),
    "nsgan": Game(  # binary cross entropy of the sigmoid
        lambda s: functional.softplus(-s).mean(),
        lambda s: functional.softplus(s).mean(),
        lambda s: functional.softplus(-s).mean(),
    ),
    "lsgan": Game(lambda s: (s - 1).square().mean(), lambda s: s.square().mean(), lambda s: (s - 1).square().mean()),
}


class InpaintingLosses(NamedTuple):
    """``total``, the weighted sum, and its terms by themselves."""

    total: Tensor
    hole: Tensor
    valid: Tensor
    flow: Tensor
    adversarial: Tensor


class Judged(NamedTuple):
    """The discriminator's loss, and its mean scores of real and of made clips."""

    total: Tensor
    real: Tensor
    made: Tensor


def region_errors(made: Tensor, frames: Tensor, masks: Tensor, power: int = 1) -> tuple[Tensor, Tensor]:
    """Mean absolute errors of clips (B, T, C, H, W) inside and outside the holes, ``masks`` (B, T, 1, H, W) of 0 and 1.

    With ``power`` 2, mean squares. Each is a mean over the whole batch divided by the region's share of it; an empty
    region's is 0 (the published one divides by zero).
    """
    error = (made.float() - frames.float()).abs() ** power
    inside, outside = masks.float(), 1 - masks.float()
    hole, valid = ((error * region).mean() / region.mean().clamp(min=1e-8) for region in (inside, outside))
    return hole, valid


class FlowTargets(nn.Module):
    """How far flows (B, T - 1, 2, h, w) are from those that a trained, frozen network finds on the whole clip.

    ``forward(forward, backward, frames)``: frames (B, T, 3, H, W) in [0, 1], holes filled by the truth; both mean
    absolute errors are added.
    """

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow.requires_grad_(False).eval()

    @torch.no_grad()
    def targets(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward flows at a quarter of the size."""
        return self.flow.between(self.quarter(frames))

    @staticmethod
    def quarter(frames: Tensor) -> Tensor:
        """As the generator's own flow network sees them."""
        size = (frames.shape[3] // 4, frames.shape[4] // 4)
        small = functional.interpolate(frames.flatten(0, 1), size, mode="bilinear", align_corners=True)
        return small.unflatten(0, frames.shape[:2])

    def forward(self, forward: Tensor, backward: Tensor, frames: Tensor) -> Tensor:
        targets = self.targets(frames)
        pairs = zip((forward, backward), targets, strict=True)
        return sum(((ours - theirs).abs().mean() for ours, theirs in pairs), start=forward.new_zeros(()))


class InpaintingLoss(nn.Module):
    """Both sides' losses. ``flow(forward, backward, frames in [0, 1])`` judges flows of the consecutive frames.

    The weights are published: holes 1, the rest 1, flows 1, the game 0.01. The discriminator sees the clip with its
    known pixels put back; None for no game.
    """

    def __init__(
        self,
        flow: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
        discriminator: nn.Module | None,
        game: str = "hinge",
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.01),
    ) -> None:
        super().__init__()
        self.flow, self.discriminator, self.game, self.weights = flow, discriminator, GAMES[game], weights

    def forward(
        self, made: Tensor, forward: Tensor, backward: Tensor, frames: Tensor, masks: Tensor
    ) -> InpaintingLosses:
        """Of clips (B, T, 3, H, W) in [-1, 1] and the flows (B, L - 1, 2, h, w) of their first L frames."""
        hole, valid = region_errors(made, frames, masks)
        flow = adversarial = hole.new_zeros(())
        if self.flow is not None and forward.shape[1]:
            flow = self.flow(forward.float(), backward.float(), (frames[:, : forward.shape[1] + 1] + 1) / 2)
        if self.discriminator is not None and self.weights[3] > 0:
            adversarial = self.game.generator(self.discriminator(composed(made, frames, masks)).float())
        terms = (hole, valid, flow, adversarial)
        total = sum((weight * term for weight, term in zip(self.weights, terms)), start=hole.new_zeros(()))
        return InpaintingLosses(total, *terms)

    def discriminator_loss(self, made: Tensor, frames: Tensor, masks: Tensor) -> Judged:
        """The mean of both judgements; gives the generator no gradient."""
        if self.discriminator is None:
            raise ValueError("InpaintingLoss: discriminator is None, so there is none to train")
        real = self.discriminator(frames).float()
        false = self.discriminator(composed(made, frames, masks).detach()).float()
        return Judged((self.game.real(real) + self.game.made(false)) / 2, real.mean(), false.mean())


def composed(made: Tensor, frames: Tensor, masks: Tensor) -> Tensor:
    """What was made in the holes, the frames elsewhere."""
    return torch.where(masks > 0, made.to(frames.dtype), frames)
