"""C3D (arXiv:1412.0767): plain 3x3x3 convolutions over clips. The inception score of videos reads its classes."""

import torch.nn.functional as functional
from torch import Tensor, nn

# of each convolution: its channels, then the kernel and stride of the pooling behind it (None: none)
CONVOLUTIONS: dict[str, tuple[int, tuple[int, int, int] | None]] = {
    "conv1a": (64, (1, 2, 2)),
    "conv2a": (128, (2, 2, 2)),
    "conv3a": (256, None),
    "conv3b": (256, (2, 2, 2)),
    "conv4a": (512, None),
    "conv4b": (512, (2, 2, 2)),
    "conv5a": (512, None),
    "conv5b": (512, (2, 2, 2)),
}


class C3D(nn.Module):
    """Clips (N, 3, 16, 112, 112), pixels less the training data's mean -> logits (N, classes).

    Names are the published ones (``conv1a`` ... ``fc8``). ``hidden`` is the width of the two inner linear layers.
    """

    def __init__(self, classes: int = 101, hidden: int = 4096) -> None:
        super().__init__()
        channels = 3
        for name, (width, _) in CONVOLUTIONS.items():
            self.add_module(name, nn.Conv3d(channels, width, 3, padding=1))
            channels = width
        self.fc6 = nn.Linear(16 * channels, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, (_, pool) in CONVOLUTIONS.items():
            x = self.get_submodule(name)(x).relu()
            if pool is not None:  # the last one continues its 7 rows and columns to 8
                x = functional.max_pool3d(x, pool, pool, (0, 1, 1) if name == "conv5b" else 0)
        x = self.fc7(self.fc6(x.flatten(1)).relu()).relu()
        return self.fc8(x)
