"""Loss strings and their sums."""

import pytest
import torch
from torch import nn

from vfikit.losses import Objective, adversarial_term, parse_terms


def test_parse() -> None:
    assert parse_terms("1*Charb+0.01*g_Spatial + 0.005*VGG") == {"Charb": 1.0, "g_Spatial": 0.01, "VGG": 0.005}
    assert parse_terms("MSE") == {"MSE": 1.0}
    assert parse_terms("1e-3*L1+2*FI_GAN") == {"L1": 1e-3, "FI_GAN": 2.0}


@pytest.mark.parametrize("text", ["", "Charb+", "1*Foo", "2Charb", "Charb+Charb", "-1*MSE", "1*"])
def test_parse_names_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected WEIGHT\*TERM, each of Charb, L1, MSE"):
        parse_terms(text)


def frames() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 5, 6, generator=generator) for _ in range(4))


def test_the_sum() -> None:
    frame0, target, frame1, frame = frames()
    losses = Objective("2*MSE+0.5*L1+1*Charb+0.1*g_Spatial+0.2*g_Occlusion")(
        frame0, target, frame1, frame, torch.tensor(3.0), torch.tensor(4.0)
    )
    difference = frame - target
    expected = {
        "MSE": difference.square().mean(),
        "L1": difference.abs().mean(),
        "Charb": (difference.square() + 1e-6).sqrt().mean(),
        "g_Spatial": torch.tensor(3.0),
        "g_Occlusion": torch.tensor(4.0),
    }
    assert list(losses.parts) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses.parts[name], value)
    weights = (2, 0.5, 1, 0.1, 0.2)
    torch.testing.assert_close(losses.total, sum(w * v for w, v in zip(weights, expected.values())))


def test_warp_is_of_each_warped_frame_alone() -> None:
    """The warped frames are of the padded size; what was padded does not count."""
    frame0, target, frame1, frame = frames()
    warped = tuple(nn.functional.pad(x, (0, 2, 0, 3), value=9.0) for x in (frame0, frame1))
    losses = Objective("0.5*Warp")(frame0, target, frame1, frame, warped=(warped[0], warped[1]))
    expected = sum((x - target).square().add(1e-6).sqrt().mean() for x in (frame0, frame1))
    torch.testing.assert_close(losses.parts["Warp"], expected)
    torch.testing.assert_close(losses.total, 0.5 * expected)
    with pytest.raises(ValueError, match="leave Warp out"):
        Objective("Warp")(frame0, target, frame1, frame)


def test_given_parts_are_called_and_stay_out_of_the_weights() -> None:
    frame0, target, frame1, frame = frames()
    adversary = nn.Conv2d(1, 1, 1)
    calls = []
    objective = Objective(
        "VGG+FI_GAN", vgg=nn.PairwiseDistance(), adversary=lambda *x: calls.append(x) or torch.ones(())
    )
    parts = objective(frame0, target, frame1, frame).parts
    assert torch.equal(parts["VGG"], nn.PairwiseDistance()(frame, target))
    (called,) = calls
    assert all(a is b for a, b in zip(called, (frame0, frame, frame1)))
    assert not list(Objective("FI_GAN", adversary=adversary).parameters())


def test_missing_parts() -> None:
    with pytest.raises(ValueError, match="VGG needs VGG-16 weights"):
        Objective("VGG")
    with pytest.raises(ValueError, match="FI_GAN needs a discriminator"):
        Objective("FI_GAN")
    with pytest.raises(ValueError, match="the model has no g_Occlusion"):
        Objective("g_Occlusion")(*frames(), torch.tensor(1.0), None)


def test_one_adversary_at_most() -> None:
    assert adversarial_term(parse_terms("Charb+0.1*T_WGAN_GP")) == "T_WGAN_GP"
    assert adversarial_term(parse_terms("Charb")) is None
    with pytest.raises(ValueError, match="got GAN and WGAN, expected at most one adversarial term"):
        Objective("GAN+WGAN")
