"""Adversaries of an interpolation model: discriminators that judge the frame that it made, and both sides' losses.

All have ``forward(frame0, made, frame1)``, the generator's term; ``discriminator_loss(frame0, made, frame1, target)``;
``optimizer(lr)`` for the discriminator's weights and ``constrain()``, to be called after its step. Frames are
(N, 3, H, W) in [0, 1]. The published code evaluates the generator's terms on the detached frame, so that they teach it
nothing; here the gradient reaches the frame. Drop the discriminator's own gradients before its step.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.discriminators import ConvDiscriminator

WIDTHS = (64, 64, 128, 128, 256, 256, 512, 512)


def dual_frame_discriminator(widths: tuple[int, ...] = WIDTHS, grid: int = 16, hidden: int = 1024) -> ConvDiscriminator:
    """The published discriminator of two frames, 138.9 M parameters, exact for crops of 256; other crops work too."""
    return ConvDiscriminator(6, widths, grid, hidden)


class DualFrameAdversary(nn.Module):
    """AdaCoF's dual-frame loss, FI_GAN (arXiv:1907.10244, section 3.4): which of two frames is the made one?

    The discriminator sees (frame0, made) and (made, frame1) as six channels and learns which side the made one is on. A
    frame that cannot be told from its neighbours in time leaves it undecided; that is what the generator is after.
    """

    def __init__(self, discriminator: nn.Module | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator or dual_frame_discriminator()

    def logits(self, frame0: Tensor, made: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 1) that the made frame is the second one: for (frame0, made), and for (made, frame1)."""
        second, first = torch.cat((frame0, made), 1), torch.cat((made, frame1), 1)
        return self.discriminator(second), self.discriminator(first)

    def discriminator_loss(self, frame0: Tensor, made: Tensor, frame1: Tensor, target: Tensor | None = None) -> Tensor:
        """Binary cross entropy of both answers; gives the generator no gradient. The target is not looked at."""
        second, first = self.logits(frame0, made.detach(), frame1)
        right = F.binary_cross_entropy_with_logits(second, torch.ones_like(second))
        return right + F.binary_cross_entropy_with_logits(first, torch.zeros_like(first))

    def forward(self, frame0: Tensor, made: Tensor, frame1: Tensor) -> Tensor:
        """The mean over the batch of p log(p + 1e-12), summed over both answers, p the sigmoid."""
        p = torch.cat(self.logits(frame0, made, frame1), 1).sigmoid()  # (N, 2)
        return (p * (p + 1e-12).log()).sum(1).mean()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adamax(self.parameters(), lr=lr, foreach=True)

    def constrain(self) -> None:
        """Nothing to do."""


class FrameAdversary(nn.Module):
    """GAN (arXiv:1406.2661): is the frame, seen alone, a real one? The generator maximises log D, not 1 - log D."""

    def __init__(self, discriminator: nn.Module | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator or ConvDiscriminator(3, WIDTHS, 16, 1024)

    def discriminator_loss(self, frame0: Tensor, made: Tensor, frame1: Tensor, target: Tensor) -> Tensor:
        """Binary cross entropy of both kinds of frame; gives the generator no gradient."""
        real, false = self.discriminator(target), self.discriminator(made.detach())
        return F.softplus(-real).mean() + F.softplus(false).mean()

    def forward(self, frame0: Tensor, made: Tensor, frame1: Tensor) -> Tensor:
        """The cross entropy of calling the made frame real."""
        return F.softplus(-self.discriminator(made)).mean()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adamax(self.parameters(), lr=lr, foreach=True)

    def constrain(self) -> None:
        """Nothing to do."""


class WassersteinAdversary(nn.Module):
    """WGAN (arXiv:1701.07875), whose weights are clipped to +-``clip``; with ``penalty``, the weight of the gradient's
    distance from length 1, WGAN_GP (arXiv:1704.00028) without clipping.

    ``temporal`` (T_WGAN_GP): the frame is seen between the two others, as nine channels.
    """

    def __init__(
        self, discriminator: nn.Module | None = None, penalty: float = 0.0, temporal: bool = False, clip: float = 0.01
    ) -> None:
        super().__init__()
        self.penalty, self.temporal, self.clip = penalty, temporal, clip
        # a norm over the batch would mix the images whose gradients are measured one by one
        channels, norm = 9 if temporal else 3, penalty == 0
        self.discriminator = discriminator or ConvDiscriminator(channels, WIDTHS, 16, 1024, norm)

    def seen(self, frame0: Tensor, frame: Tensor, frame1: Tensor) -> Tensor:
        """What the discriminator is shown of a frame: (N, 3, H, W) or (N, 9, H, W)."""
        return torch.cat([frame0, frame, frame1], 1) if self.temporal else frame

    def discriminator_loss(self, frame0: Tensor, made: Tensor, frame1: Tensor, target: Tensor) -> Tensor:
        """How much higher made frames score than real ones, and the penalty; gives the generator no gradient."""
        real, false = self.seen(frame0, target, frame1), self.seen(frame0, made.detach(), frame1)
        apart = self.discriminator(false).mean() - self.discriminator(real).mean()
        return apart + self.penalty * self.steepness(real, false) if self.penalty else apart

    def steepness(self, real: Tensor, false: Tensor) -> Tensor:
        """The mean squared distance from 1 of the gradient's length, at random places between real and made."""
        share = torch.rand(len(real), 1, 1, 1).to(real)
        between = torch.lerp(real, false, share).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).square().mean()

    def forward(self, frame0: Tensor, made: Tensor, frame1: Tensor) -> Tensor:
        """Minus the made frame's score."""
        return -self.discriminator(self.seen(frame0, made, frame1)).mean()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Without momentum, as both papers found."""
        if self.penalty:
            return torch.optim.Adam(self.parameters(), lr=lr, betas=(0.0, 0.9), foreach=True)
        return torch.optim.RMSprop(self.parameters(), lr=lr, foreach=True)

    @torch.no_grad()
    def constrain(self) -> None:
        """Clips the weights, unless a penalty stands in for it."""
        if not self.penalty:
            for parameter in self.parameters():
                parameter.clamp_(-self.clip, self.clip)


Adversary = DualFrameAdversary | FrameAdversary | WassersteinAdversary
# By the name of the loss's term; a penalty of 10 is the paper's.
ADVERSARIES: dict[str, Callable[[], Adversary]] = {
    "FI_GAN": DualFrameAdversary,
    "GAN": FrameAdversary,
    "WGAN": WassersteinAdversary,
    "WGAN_GP": lambda: WassersteinAdversary(penalty=10.0),
    "T_WGAN_GP": lambda: WassersteinAdversary(penalty=10.0, temporal=True),
}
