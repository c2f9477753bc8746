"""How much of each layer a sparsifying optimizer has left."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from .resize import weight_names


@dataclass(frozen=True)
class Density:
    """Shares of weights that are not zero, in [0, 1]."""

    layers: dict[str, float]  # by module path, in forward order of registration; biases not counted
    sizes: dict[str, int]  # weights of each layer, biases not counted
    model: float  # over every trainable tensor, biases included

    def table(self) -> str:
        """One line a layer, with a bar, and the model's below."""
        wide = max((len(name) for name in self.layers), default=5)
        lines = [f"{'layer':<{wide}}  {'weights':>10}  density"]
        for name, share in self.layers.items():
            lines.append(f"{name:<{wide}}  {self.sizes[name]:>10,}  {share:7.3f}  {'#' * round(share * 30)}")
        return "\n".join([*lines, f"{'whole model':<{wide}}  {'':>10}  {self.model:7.3f}"])


@torch.no_grad()
def density(model: nn.Module) -> Density:
    """Nonzero weights over all weights of each convolution and linear layer, and over all trainable tensors."""
    layers, sizes = {}, {}
    for path, module in model.named_modules():
        if names := weight_names(module):  # attributes that are no parameters where weights are normalised
            tensors = [cast(torch.Tensor, getattr(module, name)) for name in names]
            sizes[path] = sum(x.numel() for x in tensors)
            layers[path] = sum(int(torch.count_nonzero(x)) for x in tensors) / max(1, sizes[path])
    trainable = [param for param in model.parameters() if param.requires_grad]
    alive = sum(int(torch.count_nonzero(param)) for param in trainable)
    return Density(layers, sizes, alive / max(1, sum(param.numel() for param in trainable)))
