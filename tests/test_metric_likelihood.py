"""log-likelihood, code-log-likelihood and bound against closed forms, and the floor of a fitted Gaussian."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits, Vectors
from genae.densities.density import Density
from genae.latent import Free
from genae.metrics.bound import Bound
from genae.metrics.log_likelihood import CodeLogLikelihood, LogLikelihood
from genae.metrics.metric import NotDefined
from genae.models.autoencoder import Autoencoder

DIM = 3
MIXING = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, -0.4, 2.0]])


class Standard(Density):
    """N(0, I)."""

    def log_prob(self, vectors: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(vectors).sum(1)


class SamplesOnly(Density):
    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"sample"})


class Times(nn.Module):
    """Rows -> their first DIM entries, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, rows: Tensor, growth: None) -> Tensor:
        return rows.flatten(1)[:, :DIM] * self.factor


def model(density: Density, factor: float = 1.0) -> Autoencoder:
    made = Autoencoder(Free(DIM), Times(factor), nn.Identity())
    made.density = density
    return made


def vectors_of(split: str) -> Vectors:
    count = {"train": 5000, "test": 1700}[split]
    drawn = np.random.default_rng(len(split)).normal(size=(count, DIM)) @ MIXING.T + 2
    return Vectors("mixed", split, drawn.astype(np.float32), split)


def images_of(split: str) -> Dataset:
    images = np.random.default_rng(len(split)).integers(0, 256, (300, 1, 2, 2), dtype=np.uint8)
    return Dataset("noise", split, images, split)


def test_the_value_is_the_mean_of_the_densitys_own_likelihood_with_its_standard_error():
    values = LogLikelihood().measure(model(Standard(DIM)), Splits(vectors_of), Context())
    nats = scipy.stats.norm.logpdf(vectors_of("test").vectors.astype(float)).sum(1)
    assert values["log-likelihood"] == pytest.approx(nats.mean(), rel=1e-6)
    assert values["standard_error"] == pytest.approx(nats.std() / math.sqrt(1700), rel=1e-5)


def test_the_floor_is_the_full_covariance_gaussian_of_the_training_vectors_on_test_vectors():
    values = LogLikelihood(num_test=900).measure(model(Standard(DIM)), Splits(vectors_of), Context())
    train, test = (vectors_of(split).vectors.astype(float) for split in ("train", "test"))
    fitted = scipy.stats.multivariate_normal(train.mean(0), np.cov(train.T, bias=True))
    assert values["floor"] == pytest.approx(fitted.logpdf(test[:900]).mean(), abs=1e-9)
    entropy = -DIM / 2 * math.log(2 * math.pi * math.e) - math.log(abs(np.linalg.det(MIXING)))
    assert values["floor"] == pytest.approx(entropy, abs=0.1)  # what the true density reaches


@pytest.mark.parametrize("count", [2, 400])
def test_where_the_covariance_is_singular_there_is_no_floor_and_it_is_said(count):
    def singular(split: str) -> Vectors:
        vectors = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
        vectors[:, 2] = vectors[:, 0] * 2
        return Vectors("flat", split, vectors, split)

    values = LogLikelihood().measure(model(Standard(DIM)), Splits(singular), Context())
    assert "floor" not in values
    assert "covariance" in values["floor_missing"]


def test_codes_of_images_have_the_likelihood_of_what_the_encoder_gives():
    values = CodeLogLikelihood(num_test=200).measure(model(Standard(DIM), 0.5), Splits(images_of), Context(batch_size=7))
    codes = (images_of("test").images[:200].reshape(200, -1)[:, :DIM] / 127.5 - 1) * 0.5
    assert values["code-log-likelihood"] == pytest.approx(scipy.stats.norm.logpdf(codes).sum(1).mean(), rel=1e-5)
    assert values["floor"] > values["code-log-likelihood"]  # codes lie in [-0.5, 0.5], which N(0, I) does not know


def test_images_or_vectors_that_are_encoded_have_no_likelihood_of_their_own():
    with pytest.raises(NotDefined, match="there is code-log-likelihood"):
        LogLikelihood().measure(model(Standard(DIM)), Splits(images_of), Context())
    with pytest.raises(NotDefined, match="and not of the vectors"):
        LogLikelihood().measure(model(Standard(DIM), 0.5), Splits(vectors_of), Context())


def test_a_density_that_only_samples_has_no_likelihood():
    with pytest.raises(NotDefined, match="draws samples and has no likelihood"):
        LogLikelihood().measure(model(SamplesOnly(DIM)), Splits(vectors_of), Context())


def test_vectors_without_a_finite_likelihood_are_counted():
    class Broken(Standard):
        def log_prob(self, vectors: Tensor) -> Tensor:
            return torch.where(vectors[:, 0] > 5, -math.inf, super().log_prob(vectors))

    many = int((vectors_of("test").vectors[:, 0] > 5).sum())
    assert many > 0
    with pytest.raises(ValueError, match=f"{many} of 1700 vectors have no finite likelihood"):
        LogLikelihood().measure(model(Broken(DIM)), Splits(vectors_of), Context())


class Pixels(Autoencoder):
    """log p(x) of independent N(0.5, 1/4) pixels in [0, 1], whatever the draws; what it was asked for is kept."""

    def __init__(self) -> None:
        super().__init__(Free(DIM), Times(1.0), nn.Identity())
        self.asked: list[tuple[Tensor, int]] = []

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"bound"}

    def bound(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        self.asked.append((images, num_draws))
        return torch.distributions.Normal(0.5, 0.5).log_prob((images + 1) / 2).flatten(1).sum(1)


def test_the_bound_is_averaged_over_test_images_as_they_are_stored():
    values = Bound(num_draws=7, dequantize=False, num_images=60).measure(Pixels(), Splits(images_of), Context())
    nats = scipy.stats.norm.logpdf(images_of("test").images[:60].reshape(60, 4) / 255, 0.5, 0.5).sum(1)
    assert values["bound"] == pytest.approx(nats.mean(), rel=1e-5)
    assert values["standard_error"] == pytest.approx(nats.std() / math.sqrt(60), rel=1e-4)


def test_pixels_are_spread_over_their_grey_level_before_a_density_sees_them():
    pixels = Pixels()
    values = Bound(num_draws=7).measure(pixels, Splits(images_of), Context())
    seen = torch.cat([images for images, _ in pixels.asked]).numpy()
    stored = images_of("test").images
    off = (seen + 1) * 127.5 - stored
    assert np.abs(off).max() <= 0.5 + 1e-4
    assert off.std() == pytest.approx(1 / math.sqrt(12), rel=0.05)
    assert {num_draws for _, num_draws in pixels.asked} == {7}
    # E log N(x + u) = log N(x) - var(u) / (2 sigma^2), and 1/255 wide noise moves it by next to nothing here
    plain = Bound(dequantize=False).measure(Pixels(), Splits(images_of), Context())
    assert values["bound"] == pytest.approx(plain["bound"], abs=1e-3)


def test_headers_say_what_departs_from_the_protocol():
    assert LogLikelihood().label("log-likelihood") == "log-likelihood"
    assert LogLikelihood(num_test=500).label("log-likelihood") == "log-likelihood (first 500)"
    assert Bound(num_draws=50, num_images=10, dequantize=False).label("bound") == "bound (50 draws, 10 images, not dequantised)"
