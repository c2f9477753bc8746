import pytest
import torch

from vfikit.metrics import flicker, occlusion, warping_error


def moving(length: int = 4, speed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A picture that moves right by whole pixels, and its flows."""
    picture = torch.rand(3, 12, 40, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([picture[..., 10 - speed * t : 30 - speed * t] for t in range(length)])
    flow = torch.zeros(length - 1, 2, 12, 20)
    flow[:, 0] = speed
    return frames, flow, -flow


def test_a_true_motion_has_no_error_but_at_the_border() -> None:
    frames, forward, backward = moving()
    assert not occlusion(forward, backward).any()
    inner = warping_error(frames[..., :18], forward[..., :18], backward[..., :18])
    full = warping_error(frames, forward, backward)
    assert 0 < full < 0.1
    error = (frames[1, :, :, 2:] - frames[0, :, :, :-2]).abs().max()
    assert error == 0
    assert inner > 0  # reads beyond the right border repeat its pixel


def test_still_frames_have_no_error_and_noise_has() -> None:
    frames, none = torch.rand(1, 3, 8, 9).expand(3, -1, -1, -1), torch.zeros(2, 2, 8, 9)
    assert warping_error(frames, none, none) == 0
    torch.manual_seed(1)
    noisy = frames + 0.1 * torch.randn(3, 3, 8, 9)
    assert warping_error(noisy, none, none).item() == pytest.approx(0.02, rel=0.3)


def test_what_the_flows_disagree_on_is_left_out() -> None:
    frames, forward, backward = moving()
    torn = backward.clone()
    torn[:, 0, :5] = 5.0
    hidden = occlusion(forward, torn)
    assert hidden[:, :5].all()
    assert not hidden[:, 5:].any()
    spoilt = frames.clone()
    spoilt[1:, :, :5] = 0
    assert warping_error(spoilt, forward, torn) == warping_error(frames, forward, torn)


def test_edges_of_motion_are_occluded() -> None:
    flow = torch.zeros(1, 2, 6, 8)
    flow[..., 4:] = 0.3
    assert occlusion(flow, -flow)[0, :, 3].all()
    assert occlusion(flow, -flow).sum() == 6


def test_flicker_ignores_what_does_not_change() -> None:
    real = torch.rand(4, 3, 5, 6)
    assert flicker(real + 0.1, real).item() == pytest.approx(0, abs=1e-7)
    blinking = real + torch.tensor([0.0, 0.2, 0.0, 0.2])[:, None, None, None]
    assert flicker(blinking, real).item() == pytest.approx(0.2, rel=1e-5)


def test_wrong_shapes_are_named() -> None:
    frames, forward, backward = moving()
    with pytest.raises(ValueError, match=r"warping_error: frames are .*a flow \(2, 2, 12, 20\)"):
        warping_error(frames, forward[1:], backward)
    with pytest.raises(ValueError, match=r"flicker: made is \(1, 3, 12, 20\)"):
        flicker(frames[:1], frames[:1])
