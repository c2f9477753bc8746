"""Vector quantisation (arXiv:1711.00937): each vector becomes the nearest of a table of codes."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn


class Quantised(NamedTuple):
    """What quantising a map (N, C, H, W) gives."""

    latent: Tensor  # (N, C, H, W): the codes, with the gradient of the map that came in
    loss: Tensor  # scalar
    indices: Tensor  # (N * H * W,), row by row


class CodebookUsage(NamedTuple):
    """How much of a codebook some indices use."""

    used: float  # share of the codes that occur at all
    perplexity: float  # exp of the entropy: as many equally frequent codes would be as rich


class VectorQuantizer(nn.Module):
    """``forward(z (N, width, H, W))`` -> ``Quantised``; ties go to the first code.

    The loss draws codes to the vectors and vectors to their codes. ``beta`` weighs the second term, commitment, as the
    paper has it; with ``legacy`` it weighs the first, as widely used published code has it.
    """

    def __init__(self, codes: int, width: int, beta: float = 0.25, legacy: bool = True) -> None:
        super().__init__()
        self.beta, self.legacy = beta, legacy
        self.embedding = nn.Embedding(codes, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Codes uniform in (-1 / codes, 1 / codes)."""
        bound = 1 / self.embedding.num_embeddings
        nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, z: Tensor) -> Quantised:
        indices = self.nearest(z)
        codes = self.lookup(indices.view(z.shape[0], *z.shape[2:])).to(z.dtype)
        to_codes, to_vectors = (codes - z.detach()).square().mean(), (codes.detach() - z).square().mean()
        loss = self.beta * to_codes + to_vectors if self.legacy else to_codes + self.beta * to_vectors
        return Quantised(z + (codes - z).detach(), loss, indices)

    def nearest(self, z: Tensor) -> Tensor:
        """The index of the code nearest to each vector of (N, width, H, W), as (N * H * W,)."""
        if z.ndim != 4 or z.shape[1] != self.embedding.embedding_dim:
            raise ValueError(
                f"VectorQuantizer: z is {tuple(z.shape)}, expected (N, {self.embedding.embedding_dim}, H, W)"
            )
        exact = torch.promote_types(z.dtype, torch.float32)
        vectors = rearrange(z.detach(), "n c h w -> (n h w) c").to(exact)
        codes = self.embedding.weight.detach().to(exact)
        with nullcontext() if z.is_meta else torch.autocast(z.device.type, enabled=False):
            # |z - e|^2 without |z|^2, which is the same for all codes
            return torch.addmm(codes.square().sum(1), vectors, codes.T, alpha=-2).argmin(1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes of indices (N, H, W), as (N, width, H, W)."""
        return rearrange(self.embedding(indices), "n h w c -> n c h w")

    def usage(self, indices: Tensor) -> CodebookUsage:
        """Of indices of any shape."""
        counts = torch.bincount(indices.flatten(), minlength=self.embedding.num_embeddings).double()
        shares = counts / counts.sum()
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
        return CodebookUsage((counts > 0).double().mean().item(), entropy.exp().item())
