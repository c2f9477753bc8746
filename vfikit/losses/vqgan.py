"""What LDMVFI's autoencoder is trained with (arXiv:2303.09508): reconstruction, perception, PatchGAN, codebook.

The loss of VQGAN (arXiv:2012.09841). Frames are (N, 3, H, W) in [0, 1]; differences are of [-1, 1], as published.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..layers.discriminators import PatchDiscriminator


class GeneratorLosses(NamedTuple):
    """``total`` and what it is made of; all scalars but ``perceptual`` (N,)."""

    total: Tensor
    reconstruction: Tensor  # absolute error and perception together
    perceptual: Tensor
    adversarial: Tensor
    adversarial_weight: Tensor  # so that both reach the last layer with about the same gradient
    codebook: Tensor  # or what else is asked of latents


class DiscriminatorLosses(NamedTuple):
    """``total``, and the mean logits of real and made frames."""

    total: Tensor
    real: Tensor
    made: Tensor


class VQGANLoss(nn.Module):
    """Both sides of the game; the discriminator joins at step ``start`` and runs on batch statistics when training.

    Where ``start`` is None there is no game: nothing adversarial is computed.

    ``perceptual(made, target)`` gives (N,), say LPIPS on VGG; None leaves it out. ``kind`` is "hinge" or "vanilla".
    The published step counts each batch twice, once an optimizer: its 10,000 are about 5,000 batches.
    """

    def __init__(
        self,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        discriminator: nn.Module | None = None,
        start: int | None = 10_000,
        weight: float = 0.8,
        kind: str = "hinge",
    ) -> None:
        super().__init__()
        if kind not in ("hinge", "vanilla"):
            raise ValueError(f"VQGANLoss: kind is {kind!r}, expected 'hinge' or 'vanilla'")
        self.perceptual = perceptual
        self.discriminator = None if start is None else discriminator or PatchDiscriminator()
        self.start, self.weight, self.kind = start, weight, kind

    def forward(self, made: Tensor, target: Tensor, codebook: Tensor, last_layer: Tensor, step: int) -> GeneratorLosses:
        """The generator's side. ``last_layer`` is the weight whose gradients set the adversarial weight.

        Without a graph (evaluation) that weight is 0. Drop the discriminator's own gradients before its step.
        """
        seen = self.seen(made, target)
        reconstruction = (2 * (target - made)).abs().mean() + seen.mean()
        return self.with_game(reconstruction, seen, codebook, made, last_layer, step)

    def seen(self, made: Tensor, target: Tensor) -> Tensor:
        """The perceptual distance (N,); zero where there is none."""
        return torch.zeros_like(made[:, 0, 0, 0]) if self.perceptual is None else self.perceptual(made, target)

    def with_game(
        self, reconstruction: Tensor, seen: Tensor, codebook: Tensor, made: Tensor, last_layer: Tensor, step: int
    ) -> GeneratorLosses:
        """The sum of what is given, and of what the discriminator adds once it has joined."""
        total = reconstruction + codebook
        if self.discriminator is None or self.start is None:
            none = torch.zeros_like(reconstruction)
            return GeneratorLosses(total, reconstruction, seen, none, none, codebook)
        adversarial = -self.discriminator(2 * made - 1).mean()
        weight = self.balance(reconstruction, adversarial, last_layer)
        if step >= self.start:
            total = total + weight * adversarial
        return GeneratorLosses(total, reconstruction, seen, adversarial, weight, codebook)

    def balance(self, reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
        """The ratio of both gradients' norms at the last layer, at most 10,000, times the constant weight."""
        if not reconstruction.requires_grad:
            return torch.zeros_like(reconstruction)
        norms = [
            torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
        ]
        return self.weight * (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()

    def discriminator_loss(self, made: Tensor, target: Tensor, step: int) -> DiscriminatorLosses:
        """The discriminator's side; gives the generator no gradient, and none at all before ``start``."""
        if self.discriminator is None or self.start is None:
            raise ValueError("VQGANLoss: start is None, so there is no discriminator to train")
        real, false = (self.discriminator(2 * x.detach() - 1) for x in (target, made))
        loss = hinge(real, false) if self.kind == "hinge" else vanilla(real, false)
        return DiscriminatorLosses(loss if step >= self.start else 0 * loss, real.mean(), false.mean())


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """Logits of real frames are to be above 1, of made ones below -1."""
    return 0.5 * ((1 - real).relu().mean() + (1 + made).relu().mean())


def vanilla(real: Tensor, made: Tensor) -> Tensor:
    """Binary cross entropy."""
    return 0.5 * (functional.softplus(-real).mean() + functional.softplus(made).mean())
