"""Patches apart and together against torch's own unfold and fold; soft split and composition."""

import pytest
import torch
import torch.nn.functional as functional

from vfikit.ops import SoftComposition, SoftSplit, cut_patches, join_patches
from vfikit.ops.fold import in_turn, tokens_of

CASES = [
    (7, 3, 3, (15, 22)),
    (7, 3, 3, (1, 1)),
    (3, 1, 1, (5, 4)),
    (4, 4, 0, (9, 8)),
    (5, 2, 0, (8, 11)),
    (2, 3, 1, (7, 7)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_as_torch_has_it(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    patches = cut_patches(x, kernel, stride, padding)
    rows, columns = tokens_of(size, kernel, stride, padding)
    assert patches.shape == (2, rows, columns, kernel, kernel, 3)
    theirs = functional.unfold(x.permute(0, 3, 1, 2), kernel, padding=padding, stride=stride)
    assert torch.equal(patches.permute(0, 5, 3, 4, 1, 2).reshape(theirs.shape), theirs)
    other = torch.randn(theirs.shape, dtype=torch.float64)
    folded = functional.fold(other, size, kernel, padding=padding, stride=stride)
    given = other.view(2, 3, kernel, kernel, rows, columns).permute(0, 4, 5, 2, 3, 1)
    assert torch.allclose(join_patches(given, size, stride, padding).permute(0, 3, 1, 2), folded, atol=1e-12)


def test_gradients() -> None:
    x = torch.randn(1, 6, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: join_patches(cut_patches(x, 3, 2, 1), (6, 5), 2, 1), (x,))


def test_tokens_and_back() -> None:
    split, compose = SoftSplit(3, 8, 7, 3, 3), SoftComposition(8, 3, 7, 3, 3)
    x = torch.randn(2, 3, 13, 20)
    columns = functional.unfold(x, 7, padding=3, stride=3).transpose(1, 2)
    tokens = split(x)
    assert tokens.shape == (2, 5, 7, 8)
    assert torch.allclose(tokens.flatten(1, 2), split.embedding(columns), atol=1e-5)
    theirs = functional.fold(compose.embedding(tokens.flatten(1, 2)).transpose(1, 2), (13, 20), 7, padding=3, stride=3)
    assert torch.allclose(compose(tokens, (13, 20)), theirs, atol=1e-5)
    with torch.no_grad():  # one item after the other
        assert torch.allclose(split(x), tokens, atol=1e-6)
        assert torch.allclose(compose(tokens, (13, 20)), theirs, atol=1e-5)


@torch.no_grad()
def test_in_turn_along_another_axis() -> None:
    sizes: list[int] = []

    def doubled(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.shape[1])
        return 2 * x

    x = torch.randn(3, 5, 2)
    assert torch.equal(in_turn(doubled, x, 2, axis=1), 2 * x)
    assert torch.equal(in_turn(doubled, x, axis=1), 2 * x)
    assert sizes == [2, 2, 1, 5]


def test_in_turn_only_where_it_helps() -> None:
    seen: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return 2 * x

    x = torch.rand(3, 2)
    assert torch.equal(in_turn(counted, x), 2 * x)
    with torch.no_grad():
        assert torch.equal(in_turn(counted, x), 2 * x)  # too small to be taken apart
        assert torch.equal(in_turn(counted, x, 2), 2 * x)
    assert seen == [3, 3, 2, 1]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"cut_patches: .* expected at least one patch of 7 x 7 with padding 0"):
        cut_patches(torch.zeros(1, 6, 9, 1), 7, 1, 0)
    with pytest.raises(ValueError, match=r"join_patches: 2 x 3 patches, expected \(3, 3\) for a map of \(9, 9\)"):
        join_patches(torch.zeros(1, 2, 3, 3, 3, 1), (9, 9), 3, 0)
    with pytest.raises(ValueError, match="join_patches: patches are"):
        join_patches(torch.zeros(1, 2, 3, 9, 1), (9, 9), 3, 0)
