import pytest
import torch

from tests.ops.deform_conv2d_cases import Shape, make
from vfikit.compat.mmcv import ModulatedDeformConv2d, modulated_deform_conv2d
from vfikit.ops import deform_conv2d


def test_the_call_is_our_op_in_its_own_order() -> None:
    input, offset, weight, bias, mask = make(Shape(1, 4, 6, 5, 7, groups=2, moved=2))
    result = modulated_deform_conv2d(input, offset, mask, weight, bias, 1, 1, 1, 2, 2)
    assert torch.equal(result, deform_conv2d(input, offset, weight, bias, padding=1, mask=mask))
    for groups, moved in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match=f"expected those of {groups} groups and {moved} offset groups"):
            modulated_deform_conv2d(input, offset, mask, weight, bias, 1, 1, 1, groups, moved)


def test_the_module_is_built_and_subclassed_as_in_published_code() -> None:
    class Alignment(ModulatedDeformConv2d):
        def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            steps = (self.stride, self.padding, self.dilation, self.groups, self.deform_groups)
            return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, *steps)

    input, offset, weight, bias, mask = make(Shape(1, 4, 6, 5, 7, moved=2))
    module = Alignment(4, 6, kernel_size=3, stride=1, padding=1, dilation=1, groups=1, deform_groups=2, bias=True)
    module.load_state_dict({"weight": weight, "bias": bias})
    expected = deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)
    assert torch.equal(module(input, offset, mask), expected)
