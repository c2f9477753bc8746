"""Layers that mix frames: what they keep, what they see, and what they refuse."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vfikit.layers import Conv3DLayer, TemporalAttentionLayer, causal_mask, positional_encoding, temporal, window_mask
from vfikit.layers.temporal import mix, project


def naive(layer: TemporalAttentionLayer, x: Tensor, frames: int, mask: Tensor | None) -> Tensor:
    """Attention of frames pixel by pixel, head by head."""
    output = torch.zeros_like(x)
    code = positional_encoding(frames, x.shape[1], layer.encoding).to(x)
    width = layer.q_proj.out_features // layer.heads
    for video in range(len(x) // frames):
        rows = slice(video * frames, (video + 1) * frames)
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                tokens = x[rows, :, i, j] + code
                q, k, v = (project(tokens) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
                made = []
                for head in range(layer.heads):
                    part = slice(head * width, (head + 1) * width)
                    logits = q[:, part] @ k[:, part].T / width**0.5
                    logits = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
                    made.append(logits.softmax(-1) @ v[:, part])
                output[rows, :, i, j] = layer.o_proj(torch.cat(made, -1))
    return layer.alpha * x + (1 - layer.alpha) * output


@pytest.mark.parametrize("encoding", ["published", "standard", "none"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_its_definition(encoding: temporal.Encoding, masked: bool) -> None:
    layer = TemporalAttentionLayer(12, 3, encoding=encoding, alpha=0.4).double()
    x = torch.randn(6, 12, 2, 3, dtype=torch.float64)
    mask = window_mask(3, 1) if masked else None
    torch.testing.assert_close(layer(x, 3, mask=mask), naive(layer, x, 3, mask))


def test_rows_beyond_what_a_kernel_takes_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = TemporalAttentionLayer(8, 2, alpha=0.0), torch.randn(8, 8, 3, 3)
    whole = layer(x, 4)
    monkeypatch.setattr(temporal, "MOST_ROWS", 5)
    torch.testing.assert_close(layer(x, 4), whole)


@pytest.mark.parametrize("diagonal", [True, False])
def test_causal_attention_sees_no_later_frame(diagonal: bool) -> None:
    layer, x = TemporalAttentionLayer(8, 2, alpha=0.0), torch.randn(5, 8, 2, 2)
    changed = x.clone()
    changed[3] += 1
    mask = causal_mask(5, diagonal)
    before, after = layer(x, 5, mask=mask), layer(changed, 5, mask=mask)
    assert torch.equal(before[:3], after[:3])
    assert not torch.allclose(before[4], after[4])


def test_a_frame_that_may_see_none_gets_zeros_and_finite_gradients() -> None:
    layer, x = TemporalAttentionLayer(8, 2, alpha=0.0), torch.randn(4, 8, 2, 2, requires_grad=True)
    output = layer(x, 4, mask=causal_mask(4, diagonal=False))
    output.square().sum().backward()
    assert not output[0].any()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_text_is_given_once_a_video_or_once_a_frame() -> None:
    layer, x = TemporalAttentionLayer(8, 2, context_dim=6, alpha=0.0), torch.randn(6, 8, 2, 2)
    text = torch.randn(2, 5, 6)
    once = layer(x, 3, text)
    torch.testing.assert_close(layer(x, 3, text.repeat_interleave(3, 0)), once)
    torch.testing.assert_close(layer(x[3:], 3, text[1:]), once[3:], msg="videos are mixed")
    padded = torch.cat([text, torch.randn(2, 4, 6)], 1)
    mask = torch.tensor([True] * 5 + [False] * 4).expand(2, 1, 9)
    torch.testing.assert_close(layer(x, 3, padded, mask), once)


@pytest.mark.parametrize("layer", [Conv3DLayer(32), TemporalAttentionLayer(32)])
def test_at_alpha_one_nothing_changes_and_only_alpha_learns(layer: nn.Module) -> None:
    x = torch.randn(6, 32, 3, 2) * 100
    output = layer(x, 3)
    output.square().sum().backward()
    gradients = {name: float(p.grad.abs().sum()) for name, p in layer.named_parameters() if p.grad is not None}
    assert torch.equal(output, x)
    assert gradients.pop("alpha") > 0
    assert not any(gradients.values())


@pytest.mark.parametrize("layer", [Conv3DLayer(32, alpha=0.9), TemporalAttentionLayer(32, alpha=0.9)])
def test_below_one_everything_learns_from_the_first_step(layer: nn.Module) -> None:
    layer(torch.randn(6, 32, 3, 2), 3).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("value", [-0.3, 0.0, 0.3, 1.0, 1.7])
def test_mixing_holds_alpha_but_not_its_gradient(value: float) -> None:
    alpha = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    x, h = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    output = mix(alpha, x, h)
    output.sum().backward()
    held = min(max(value, 0), 1)
    torch.testing.assert_close(output, held * x + (1 - held) * h)
    torch.testing.assert_close(alpha.grad, (x - h).sum().view(1))
    assert alpha.item() == value


def test_project_holds_factors_alone() -> None:
    layer = Conv3DLayer(32, alpha=1.5)
    weights = {name: p.clone() for name, p in layer.named_parameters()}
    project(layer)
    assert layer.alpha.item() == 1
    assert all(torch.equal(p, weights[name]) for name, p in layer.named_parameters() if name != "alpha")


def test_a_convolution_sees_neighbours_of_its_own_video_only() -> None:
    layer, x = Conv3DLayer(32, alpha=0.0).eval(), torch.randn(8, 32, 2, 2)
    changed = x.clone()
    changed[5] += torch.randn(32, 2, 2)
    difference = (layer(x, 4) - layer(changed, 4)).flatten(1).abs().amax(1)
    assert not difference[:4].any()
    assert (difference[4:] > 0).all()  # of its own video all: the norms' statistics are of all frames


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    x = torch.randn(4, 32, 3, 3)
    for layer in (Conv3DLayer(32, alpha=0.5), TemporalAttentionLayer(32, alpha=0.5)):
        exact = layer(x, 4)
        half = layer.to(dtype)(x.to(dtype), 4)
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


def test_channels_last_and_any_number_of_frames() -> None:
    for layer in (Conv3DLayer(32, alpha=0.2), TemporalAttentionLayer(32, alpha=0.2)):
        for frames in (1, 2, 7, 600):
            x = torch.randn(frames, 32, 1, 1) if frames > 99 else torch.randn(2 * frames, 32, 3, 5)
            other = x.contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(layer(x, frames), layer(other, frames))


class Sizes(TorchDispatchMode):
    """How many numbers the results of all operations hold together, views not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.total += 0 if func.is_view else sum(x.numel() for x in made)
        return out


@pytest.mark.parametrize("text", [False, True])
def test_memory_is_linear_in_frames(text: bool) -> None:
    """Of the forward pass and of what it keeps for the backward; 16 and 64 frames, narrow heads."""
    layer = TemporalAttentionLayer(8, 4, 6 if text else None, alpha=0.5)
    made, kept = [], []
    for frames in (16, 64):
        x = torch.randn(frames, 8, 4, 4, requires_grad=True)
        saved = list[int]()

        def keep(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        with Sizes() as sizes, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(x, frames, torch.randn(1, 5, 6) if text else None)
        made.append(sizes.total)
        kept.append(sum(saved))
    assert made[1] < 4.2 * made[0]
    assert kept[1] < 4.2 * kept[0]


def test_wrong_input_is_refused() -> None:
    layer = TemporalAttentionLayer(8, 2, context_dim=4)
    with pytest.raises(ValueError, match="7 rows of 3 frames"):
        Conv3DLayer(32)(torch.randn(7, 32, 2, 2), 3)
    with pytest.raises(ValueError, match="got no context, expected one"):
        layer(torch.randn(6, 8, 2, 2), 3)
    with pytest.raises(ValueError, match="got a context, expected none"):
        TemporalAttentionLayer(8, 2)(torch.randn(6, 8, 2, 2), 3, torch.randn(2, 5, 4))
    with pytest.raises(ValueError, match=r"3 texts, expected 2 \(one a video\) or 6"):
        layer(torch.randn(6, 8, 2, 2), 3, torch.randn(3, 5, 4))
    with pytest.raises(ValueError, match="expected an even number"):
        TemporalAttentionLayer(7, 2)
    with pytest.raises(ValueError, match="of an even width"):
        positional_encoding(3, 7)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_gradients_in_half_precision_are_those_in_float32(frames: int, autocast: bool) -> None:
    torch.manual_seed(0)
    layer, x = Conv3DLayer(48, 0.5, 16), torch.randn(2 * frames, 48, 2, 2)
    layer(x, frames).square().sum().backward()
    expected = {name: p.grad for name, p in layer.named_parameters()}
    dtype = torch.float32 if autocast else torch.bfloat16
    for _ in range(4):  # memory that is not written shows
        layer.zero_grad()
        half = copy.deepcopy(layer).to(dtype)
        del [torch.full((48, 48, 3, 1, 1), torch.nan, dtype=torch.bfloat16) for _ in range(4)][:]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made = half(x.to(dtype), frames)
        made.float().square().sum().backward()
        for name, parameter in half.named_parameters():
            error = (parameter.grad.float() - expected[name]).norm() / expected[name].norm()
            assert error < 0.05, name
