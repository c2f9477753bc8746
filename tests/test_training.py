"""What training recipes share."""

import copy

import pytest
import torch
from torch import nn

from vfikit.training import average_in, learning_rate, update_average


def test_averages_follow_parameters_and_take_the_statistics_of_norms() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = copy.deepcopy(model)
    start = average[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    model(torch.rand(2, 3, 5, 5))  # moves the running statistics
    average_in(average, model, 0.25)
    assert torch.allclose(average[0].weight, start + 0.25)
    assert torch.equal(average[1].running_mean, model[1].running_mean)
    assert average[1].num_batches_tracked == 1
    update_average(average, model, 0.0, step=5)  # no averaging
    assert torch.equal(average[0].weight, model[0].weight)


def test_learning_rate_rises_and_falls() -> None:
    assert learning_rate(0.5, 3, 10) == 0.5
    assert [learning_rate(1.0, step, 10, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(1.0, 5, 10, cosine=True) == pytest.approx(0.5)
    assert learning_rate(1.0, 10, 10, cosine=True) == pytest.approx(0.0)
