"""Other packages that have an op of ours, where they import: a further column beside the plain PyTorch ones."""

from collections.abc import Callable

from torch import Tensor


def mmcv_deform_conv2d() -> Callable[..., Tensor]:
    """mmcv's operator in the order of ours: input, offset, weight, bias, mask; 3x3 alone, padding 1."""
    from mmcv.ops import modulated_deform_conv2d

    def run(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        groups, moved = input.shape[1] // weight.shape[1], mask.shape[1] // 9
        return modulated_deform_conv2d(input, offset, mask, weight, bias, 1, 1, 1, groups, moved)

    return run


# op: {package: what gives its function, raising ImportError where the package is missing}
PEERS: dict[str, dict[str, Callable[[], Callable[..., Tensor]]]] = {
    "adacof": {},  # no package ships it; the published CUDA text needs functions that CuPy removed, and has no CPU code
    "deform_conv2d": {"mmcv": mmcv_deform_conv2d},
}


def peers(op: str) -> dict[str, Callable[..., Tensor]]:
    """The functions of other packages that compute ``op`` on this machine, by package name."""
    found = {}
    for package, load in PEERS[op].items():
        try:
            found[package] = load()
        except ImportError:
            continue
    return found
