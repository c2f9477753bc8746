"""The normal distribution over latents that the encoder of a variational autoencoder predicts."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class GaussianPosterior(NamedTuple):
    """Mean and logarithm of the variance, (N, C, ...) each."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, moments: Tensor) -> Self:
        """From an encoder's output (N, 2 C, ...): the means, then the log-variances, clamped to [-30, 20]."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    def sample(self, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """One draw; ``noise`` is standard normal, of the shape of the mean."""
        if noise is None:
            noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + self.std * noise

    def kl(self, dims: Sequence[int] | None = None) -> Tensor:
        """The divergence from a standard normal, summed over ``dims``, by default all but the batch: (N,).

        LVDM's published code sums over dims 1 to 3 of five, which leaves a width: (N, W).
        """
        terms = 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)
        return terms.sum(tuple(dims) if dims is not None else tuple(range(1, terms.ndim)))
