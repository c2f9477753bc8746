"""What a user hands over by mistake is answered with one line: who, what was got, what was expected."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vfikit.checkpoints import load_published
from vfikit.models import build

from .toys import ADACOF, LDMVFI, LVDM, VIDEO_LDM

INTERPOLATORS: dict[str, Callable[[], Any]] = {
    "adacof": lambda: build(ADACOF),
    "ldmvfi": lambda: build(LDMVFI),
}


@pytest.fixture(scope="module", params=INTERPOLATORS)
def interpolator(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return INTERPOLATORS[request.param]().eval()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: 255 * frame, "expected \\[0, 1\\]"),
        (lambda frame: frame - 1, "expected \\[0, 1\\]"),
        (lambda frame: frame * float("nan"), "expected \\[0, 1\\]"),
        (lambda frame: frame.numpy(), "ndarray, expected a tensor"),
        (lambda _: None, "NoneType, expected a tensor"),
        (lambda frame: (255 * frame).byte(), "expected one floating-point type"),
        (lambda frame: frame[0], "expected \\(N, 3, H, W\\)"),
    ],
)
def test_frames(interpolator: Any, change: Callable[[Tensor], Any], said: str) -> None:
    frame = change(torch.rand(1, 3, 20, 16))
    with pytest.raises((ValueError, TypeError), match=f"^{type(interpolator).__name__}: .*{said}"):
        interpolator.interpolate(frame, frame)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_frames_of_another_type(interpolator: Any, dtype: torch.dtype) -> None:
    """They are converted, and come back in their own type; a time may be a tensor."""
    frames = torch.rand(2, 1, 3, 20, 16)
    made = interpolator.interpolate(*frames.to(dtype), torch.tensor(0.5))
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), interpolator.interpolate(*frames.to(dtype).float()), atol=5e-3, rtol=0)


def test_clips_to_inpaint() -> None:
    net, frames, masks = build("e2fgvi-hq", "small"), torch.rand(1, 2, 3, 20, 28), torch.ones(1, 2, 1, 20, 28)
    for wrong in (255 * frames, frames * float("nan")):
        with pytest.raises(ValueError, match=r"^inpaint: frames have values from .*, expected \[0, 1\]"):
            net.inpaint(wrong, masks)
    with pytest.raises(TypeError, match=r"^inpaint: masks is of type ndarray, expected a tensor"):
        net.inpaint(frames, np.ones((1, 2, 1, 20, 28)))


@pytest.mark.parametrize("config", [LVDM, VIDEO_LDM])
@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"num_frames": 0}, "num_frames is 0, expected"),
        ({"num_frames": -3}, "num_frames is -3, expected"),
        ({"num_frames": 2.5}, "num_frames is 2.5, expected"),
        ({"num_videos": 0}, "num_videos is 0, expected"),
        ({"height": 0}, "height is 0, expected"),
        ({"frames": torch.rand(3, 8, 8)}, r"frames are \(3, 8, 8\) of torch.float32, expected"),
        ({"frames": torch.rand(1, 1, 1, 32, 32)}, r"frames are \(1, 1, 1, 32, 32\) of torch.float32, expected"),
        ({"frames": torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)}, "of torch.uint8, expected"),
        ({"frames": torch.full((1, 1, 3, 32, 32), 255.0)}, r"frames have values from 255 to 255, expected \[0, 1\]"),
    ],
)
def test_videos_to_generate(config: Any, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(config).generate(**{"num_frames": 4, "num_inference_steps": 1} | request_)


def test_a_setting_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^build: AdaCoFConfig has no 'kernel', expected .*kernel_size"):
        build("adacof", "small", kernel=3)


def test_a_state_dict_of_something_else() -> None:
    with pytest.raises(ValueError, match=r"no tensors under get_kernel\.moduleConv1\.0\.weight"):
        load_published(build(ADACOF), {"get_kernel.moduleConv1.0.weight": "a", "other": torch.zeros(1)})
