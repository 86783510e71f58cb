"""The factor regressor: what it learns, that it is the same wherever it is trained, and that it is trained once."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from genae.data.dataset import Dataset
from genae.data.synthetic_faces import FACTORS, draw, sample_factors
from genae.metrics import factor_regressor as regressors
from genae.metrics.factor_regressor import FactorRegressor, factor_regressor, readback, truth_of
from genae.pixels import from_uint8

BY_NAME = {factor.name: factor for factor in FACTORS}


def faces(count: int, seed: int = 0) -> Dataset:
    values = sample_factors(np.arange(count), seed)
    images = draw(values, 16)
    return Dataset("faces", "train", images, hashlib.sha256(images.tobytes()).hexdigest(), values, FACTORS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))


def weights(regressor: FactorRegressor) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in regressor.state_dict().values()])


def test_it_reads_factors_of_faces_that_it_has_not_seen():
    """A tenth of the data that a table trains it on; docs/factors.md has the numbers with all of it."""
    held_out = faces(300, seed=1)
    with torch.inference_mode():  # as metrics are measured
        read = factor_regressor(faces(2000)).read(from_uint8(torch.tensor(held_out.images)).split(100))
    truth = truth_of(held_out)
    scores = {name: readback(factor, read[name], truth[name]) for name, factor in BY_NAME.items()}
    assert min(scores[name] for name in ("hair_style", "hair_color", "glasses", "texture")) > 0.85
    assert min(scores[name] for name in ("azimuth", "head_shape", "skin_tone", "background_color")) > 0.8


def test_the_same_faces_give_the_same_regressor_at_every_thread_count(tmp_path, monkeypatch):
    first = factor_regressor(faces(120))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "elsewhere"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        again = factor_regressor(faces(120))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(weights(first), weights(again))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_trained_once_and_again_when_its_factors_are_others(monkeypatch):
    data = faces(120)
    trained = weights(factor_regressor(data))
    calls = []
    train = regressors._trained
    monkeypatch.setattr(regressors, "_trained", lambda data: calls.append(1) or train(data))
    assert torch.equal(weights(factor_regressor(data)), trained)
    assert not calls
    turned = replace(data, factors=data.factors | {"azimuth": -data.factors["azimuth"]})
    assert not torch.equal(weights(factor_regressor(turned)), trained)
    assert calls == [1]


def test_numbers_are_read_in_their_own_units_and_choices_as_their_index():
    regressor = FactorRegressor((BY_NAME["mouth_opening"], BY_NAME["glasses"]), (3, 16, 16)).eval()
    images = torch.zeros(2, 3, 16, 16)
    last = regressor.network[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 3.0]))
    read = regressor.read([images])
    assert read["mouth_opening"].tolist() == pytest.approx([0.5 + 12**-0.5] * 2)  # one deviation of a uniform number above 1/2
    assert read["glasses"].tolist() == [2, 2]


def test_large_pictures_are_averaged_before_they_are_read():
    regressor = FactorRegressor(FACTORS, (3, 128, 128)).eval()
    images = torch.rand(2, 3, 128, 128)
    averaged = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))  # 64x64
    assert torch.allclose(regressor(images), regressor(averaged), atol=1e-5)


def test_readback_is_the_accuracy_of_a_choice_and_the_r2_of_a_number():
    glasses, azimuth = BY_NAME["glasses"], BY_NAME["azimuth"]
    assert readback(glasses, torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0])) == 0.75
    truth = torch.tensor([-1.0, 0.0, 1.0, 0.0])  # squares about the mean 0: 2 in all
    assert readback(azimuth, truth, truth) == 1.0
    assert readback(azimuth, truth * 0, truth) == 0.0
    assert readback(azimuth, truth + torch.tensor([0.5, 0, 0, 0]), truth) == pytest.approx(1 - 0.25 / 2)
    assert readback(azimuth, truth, truth * 0) == 0.0  # nothing varies, so nothing is explained
