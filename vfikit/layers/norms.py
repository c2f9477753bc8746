"""Group normalisation as diffusion networks use it."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class GroupNorm32(nn.GroupNorm):
    """``nn.GroupNorm`` whose statistics are float32 at least; the result is of x's type."""

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        weight, bias = (None if p is None else p.to(exact) for p in (self.weight, self.bias))
        return functional.group_norm(x.to(exact), self.num_groups, weight, bias, self.eps).to(x.dtype)


def group_norm(channels: int, groups: int = 32, eps: float = 1e-6) -> GroupNorm32:
    """A norm over ``groups`` groups; a negative number -w asks for groups of w channels, however many that makes.

    Groups of one width everywhere stay aligned where maps are concatenated, so that channels can be cut by groups.
    """
    if groups == 0 or channels % abs(groups):
        wanted = f"{groups} groups" if groups >= 0 else f"groups of {-groups}"
        raise ValueError(f"group_norm: {channels} channels do not make {wanted}")
    return GroupNorm32(groups if groups > 0 else channels // -groups, channels, eps)
