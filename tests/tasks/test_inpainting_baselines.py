"""Holes filled along flows: what other frames show comes back, what none shows is spread from around."""

import torch

from vfikit.tasks.inpainting_baselines import fill_along_flows, fill_by_network_flows, keep_still, spread

from ..models.test_e2fgvi import toy


def sliding(length: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A picture that moves a pixel to the right a frame, and its flows ahead and back."""
    picture = torch.rand(1, 3, 12, 20 + length, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([picture[..., length - k : 20 + length - k] for k in range(length)], dim=1)
    ahead = torch.zeros(1, length - 1, 2, 12, 20)
    ahead[:, :, 0] = 1
    return frames, ahead, -ahead


def test_what_another_frame_shows_comes_back_exactly() -> None:
    frames, ahead, back = sliding()
    for hidden in range(4):
        masks = torch.zeros(1, 4, 1, 12, 20)
        masks[:, hidden, :, 4:8, 8:12] = 1
        filled = fill_along_flows(frames * (1 - masks), masks, ahead, back)
        assert torch.allclose(filled, frames, atol=1e-5), hidden
        assert (keep_still(frames * (1 - masks), masks) - frames).abs().max() > 0.1


def test_pixels_come_from_beyond_the_next_frame() -> None:
    """A hole that stands still for two frames is seen in the third."""
    frames, ahead, back = sliding()
    masks = torch.zeros(1, 4, 1, 12, 20)
    masks[:, :2, :, 4:8, 8:12] = 1
    filled = fill_along_flows(frames * (1 - masks), masks, ahead, back)
    assert torch.allclose(filled, frames, atol=1e-5)


def test_flows_that_contradict_each_other_bring_nothing() -> None:
    frames, ahead, _ = sliding()
    masks = torch.zeros(1, 4, 1, 12, 20)
    masks[..., 4:8, 8:12] = 1
    masks[:, 0] = 0
    shown = frames * (1 - masks)
    alone = spread(shown.flatten(0, 1), 1 - masks.flatten(0, 1)).view_as(frames)
    assert torch.equal(fill_along_flows(shown, masks, ahead, ahead)[:, 1:], alone[:, 1:])


def test_spread_keeps_what_is_known_and_stays_within_it() -> None:
    x, known = torch.rand(2, 3, 9, 14), (torch.rand(2, 1, 9, 14) > 0.6).float()
    filled = spread(x * known, known)
    assert torch.equal(filled * known, x * known)
    assert filled.min() >= (x + 1 - known).min() - 1e-6
    assert filled.max() <= (x * known).max() + 1e-6
    assert torch.equal(spread(x * 0, known * 0), x * 0)


def test_the_networks_own_flows_fill_any_size() -> None:
    frames = torch.rand(1, 3, 3, 22, 26)
    masks = torch.zeros(1, 3, 1, 22, 26)
    masks[..., 6:12, 8:14] = 1
    filled = fill_by_network_flows(toy(), frames, masks)
    assert torch.equal(filled * (1 - masks), frames * (1 - masks))
    assert filled.isfinite().all()
