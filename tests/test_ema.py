"""Averaged weights."""

import pytest
import torch
from torch import nn

from genae.ema import AveragedParts
from genae.spec import Average


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.decoder = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_after_the_half_life_an_old_weight_counts_half():
    model = Pair()
    nn.init.ones_(model.decoder[0].weight)
    average = AveragedParts(model, Average(parts=("decoder",), half_life_kimg=1))
    nn.init.zeros_(model.decoder[0].weight)
    for _ in range(10):  # ten steps of 100 images are 1,000 images
        average.update(100)
    torch.testing.assert_close(average.parts["decoder"][0].weight, torch.full((2, 2), 0.5))


def test_decay_per_step_does_not_know_the_batch_size():
    assert (
        Average(parts=("decoder",), decay_per_step=0.999).decay(8)
        == Average(parts=("decoder",), decay_per_step=0.999).decay(512)
        == 0.999
    )


def test_the_average_is_the_recursion_written_out():
    torch.manual_seed(0)
    model = Pair()
    average = AveragedParts(model, Average(parts=("decoder",), decay_per_step=0.9))
    expected = model.decoder[0].bias.detach().clone()
    for _ in range(5):
        nn.init.normal_(model.decoder[0].bias)
        average.update(1)
        expected = 0.9 * expected + 0.1 * model.decoder[0].bias.detach()
    torch.testing.assert_close(average.parts["decoder"][0].bias, expected)


def test_buffers_are_taken_over_as_they_are():
    model = Pair()
    average = AveragedParts(model, Average(parts=("decoder",), decay_per_step=0.9))
    model.decoder[1].running_mean.fill_(3.0)
    average.update(1)
    assert average.parts["decoder"][1].running_mean.tolist() == [3, 3]


def test_only_the_named_parts_are_averaged_and_unknown_ones_refused():
    assert list(AveragedParts(Pair(), Average(parts=("decoder",), half_life_kimg=1)).parts) == ["decoder"]
    with pytest.raises(ValueError, match="names the part 'generator'; the model has: encoder, decoder"):
        AveragedParts(Pair(), Average(parts=("generator",), half_life_kimg=1))
