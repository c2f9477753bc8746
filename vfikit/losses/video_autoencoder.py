"""What LVDM's autoencoder is trained with (arXiv:2211.13221): reconstruction, perception, PatchGAN, each a frame."""

from collections.abc import Callable

from torch import Tensor, nn

from .vqgan import DiscriminatorLosses, GeneratorLosses, VQGANLoss


class VideoAutoencoderLoss(VQGANLoss):
    """Both sides of the game over videos (N, T, 3, H, W) in [0, 1], which are judged frame by frame.

    The reconstruction error is a sum over the values of a frame, as published, and so are the gradients: Adam does not
    mind. ``norm`` is "l1", as in the published code, or "l2", as in the paper. ``kl_weight`` weighs the posteriors'
    divergence; published: 0. The other arguments are those of ``VQGANLoss``.
    """

    def __init__(
        self,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        discriminator: nn.Module | None = None,
        start: int | None = 50_001,
        weight: float = 0.5,
        norm: str = "l1",
        kl_weight: float = 0.0,
    ) -> None:
        super().__init__(perceptual, discriminator, start, weight)
        if norm not in ("l1", "l2"):
            raise ValueError(f"VideoAutoencoderLoss: norm is {norm!r}, expected 'l1' or 'l2'")
        self.norm, self.kl_weight = norm, kl_weight

    def forward(self, made: Tensor, target: Tensor, kl: Tensor, last_layer: Tensor, step: int) -> GeneratorLosses:
        """The generator's side; ``kl`` (N,) is each posterior's divergence. See ``VQGANLoss``."""
        made, target = made.flatten(0, 1), target.flatten(0, 1)
        seen = self.seen(made, target)
        errors = 2 * (target - made)
        errors = errors.abs() if self.norm == "l1" else errors.square()
        reconstruction = made[0].numel() * (errors.mean() + seen.mean())
        return self.with_game(reconstruction, seen, self.kl_weight * kl.mean(), made, last_layer, step)

    def discriminator_loss(self, made: Tensor, target: Tensor, step: int) -> DiscriminatorLosses:
        return super().discriminator_loss(made.flatten(0, 1), target.flatten(0, 1), step)
