"""mmcv's names for modulated deformable convolution, so that ``from mmcv.ops import ...`` can read from here."""

from collections.abc import Sequence

from torch import Tensor

from ..ops import ModulatedDeformConv2d, deform_conv2d

__all__ = ["ModulatedDeformConv2d", "modulated_deform_conv2d"]


def modulated_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """``vfikit.ops.deform_conv2d`` in mmcv's order of arguments.

    Raises ``ValueError`` if ``groups`` or ``deform_groups`` are not those of the shapes.
    """
    if weight.shape[1] * groups != input.shape[1] or mask.shape[1] != deform_groups * weight[0, 0].numel():
        raise ValueError(
            f"modulated_deform_conv2d: weight is {tuple(weight.shape)} and mask {tuple(mask.shape)} for input "
            f"{tuple(input.shape)}, expected those of {groups} groups and {deform_groups} offset groups"
        )
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
