"""The Parzen window against exact sums and closed forms; its bandwidth; what is measured of a model; the floor beside it."""

import hashlib
import math
import re
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits, Vectors
from genae.latent import Gaussian
from genae.metrics import parzen
from genae.metrics.frechet import statistics_of
from genae.metrics.metric import NotDefined
from genae.metrics.parzen import Parzen, best_bandwidth, gaussian_draws, log_likelihoods
from genae.models.autoencoder import Generator
from genae.pixels import from_unit


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_a_manifold(count: int, dims: int, seed: int) -> Tensor:
    """Vectors in [0, 1] about a surface of 8 dimensions, as images are."""
    return torch.sigmoid(draws(count, 8, seed=seed) @ draws(8, dims, seed=99))


def exact_window(centers: Tensor, point: Tensor, sigma: float) -> float:
    """log p(x), every term in 50 digits."""
    with localcontext(prec=50):
        terms = []
        for center in centers.tolist():
            squared = sum((Decimal(x) - Decimal(s)) ** 2 for x, s in zip(point.tolist(), center, strict=True))
            terms.append((-squared / (2 * Decimal(sigma) ** 2)).exp())
        width = Decimal(sigma) * (2 * Decimal(math.pi)).sqrt()
        return float((sum(terms) / len(terms)).ln() - len(point) * width.ln())


def test_the_window_is_exact_in_784_dimensions_where_scikit_learns_is_hundreds_of_nats_off():
    from sklearn.neighbors import KernelDensity

    centers, points = near_a_manifold(200, 784, seed=1), near_a_manifold(24, 784, seed=2)
    ours = log_likelihoods(centers, points, [0.2])[0]
    theirs = KernelDensity(bandwidth=0.2).fit(centers.numpy()).score_samples(points.numpy())
    worst = int(np.abs(theirs - ours.numpy()).argmax())
    exact = exact_window(centers, points[worst], 0.2)
    assert abs(ours[worst].item() - exact) < 1e-9
    assert abs(theirs[worst] - exact) > 100


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 9),
    num_points=st.integers(1, 7),
    dims=st.integers(1, 30),
    sigmas=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    offset=st.floats(-100, 100),
    at_once=st.integers(1, 30),
)
def test_the_window_is_the_log_mean_of_the_gaussians_about_the_centers(seed, count, num_points, dims, sigmas, offset, at_once):
    centers, points = draws(count, dims, seed=seed) + offset, draws(num_points, dims, seed=seed + 1) + offset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parzen, "DISTANCES_AT_ONCE", at_once)
        found = log_likelihoods(centers, points, sigmas)
    for sigma, row in zip(sigmas, found, strict=True):
        each = torch.distributions.Normal(centers, sigma).log_prob(points[:, None]).sum(2)  # [N, M]
        assert torch.allclose(row, each.logsumexp(1) - math.log(count), rtol=1e-9, atol=1e-8)


def test_the_window_integrates_to_one():
    line = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    found = log_likelihoods(draws(5, 1), line[:, None], [0.3, 1.5]).exp()
    assert torch.allclose(torch.trapezoid(found, line), torch.ones(2, dtype=torch.float64), atol=1e-9)


def test_a_point_far_from_every_center_has_a_finite_likelihood():
    center = torch.zeros(1, 50, dtype=torch.float64)
    found = log_likelihoods(center, center + 1000.0, [1e-3])[0, 0].item()
    assert found == pytest.approx(-50 * 1000**2 / (2 * 1e-6) - 50 * math.log(1e-3 * math.sqrt(2 * math.pi)), rel=1e-12)


def test_the_best_bandwidth_is_that_of_the_grid_under_which_validation_points_are_likeliest():
    points = draws(2000, 10)  # about one center at 0 the likeliest variance is the mean square, here 1
    sigma, likelihood, grid = best_bandwidth(torch.zeros(1, 10, dtype=torch.float64), points, [0.5, 0.9, 1.0, 1.1, 2.0])
    assert (sigma, grid) == (1.0, "5 bandwidths")
    assert likelihood == pytest.approx(-5 * math.log(2 * math.pi) - points.square().sum(1).mean().item() / 2)


@pytest.mark.parametrize(("grid", "end"), [([0.001, 0.006, 0.011], "last"), ([40.0, 50.0], "first")])
def test_a_grid_whose_best_is_at_an_end_is_carried_on_and_says_so(grid, end):
    points = draws(2000, 10)
    sigma, _, said = best_bandwidth(torch.zeros(1, 10, dtype=torch.float64), points, grid)
    assert sigma == pytest.approx(points.square().mean().sqrt().item(), rel=0.13)  # steps of a ratio of at most 1.25
    assert said == f"{len(grid)} bandwidths, carried on from its {end}, which was the best of them"


def test_where_samples_are_copies_of_the_validation_images_no_bandwidth_is_the_best():
    points = draws(6, 4)
    with pytest.raises(ValueError, match="are the samples copies of the images"):
        best_bandwidth(points, points, [0.1, 0.2])


@pytest.mark.parametrize("count", [4000, 3])
def test_draws_of_the_floor_have_the_mean_and_covariance_of_what_they_are_fitted_to_singular_or_not(count):
    fitted = draws(count, 5) @ draws(5, 5, seed=1) + 7
    fitted[:, 2] = 0.25  # a pixel that is always the same
    drawn = gaussian_draws(statistics_of([fitted]), 60_000, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float64
    assert (drawn[:, 2] - 0.25).abs().max() < 1e-6
    scale = fitted.var(0).max().item()
    assert (drawn.mean(0) - fitted.mean(0)).abs().max().item() < 0.03 * scale**0.5
    assert (drawn.T.cov() - fitted.T.cov()).abs().max().item() < 0.05 * scale


class Drawn(Generator):
    """Samples pictures in [0, 1] that a function makes of a generator; their codes are themselves."""

    def __init__(self, picture, size: int = 4) -> None:
        super().__init__(Gaussian(size * size), nn.Identity())
        self.picture, self.size = picture, size

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return self.picture(n, generator)

    def decode(self, codes: Tensor, growth: None = None) -> Tensor:
        return from_unit(codes).reshape(-1, 1, self.size, self.size).float()


MIDDLES = draws(16, seed=5).sigmoid() * 0.4 + 0.3


def pixels(n: int, generator: torch.Generator) -> Tensor:
    """Sixteen independent pixels, well inside [0, 1]."""
    return MIDDLES + 0.05 * torch.randn(n, 16, generator=generator, dtype=torch.float64)


def split_of(split: str) -> Dataset:
    count = {"train": 3000, "validation": 200, "test": 300}[split]
    drawn = pixels(count, torch.Generator().manual_seed(len(split))).reshape(count, 1, 4, 4)
    images = (drawn * 255).round().to(torch.uint8).numpy()
    return Dataset("pixels", split, images, hashlib.sha256(images.tobytes()).hexdigest())


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))


def test_a_model_that_draws_the_data_scores_what_the_gaussian_of_the_data_does():
    metric = Parzen(num_generated=4000, lowest=0.02, highest=0.2)
    values = metric.measure(Drawn(pixels), Splits(split_of), Context())
    assert values["parzen"] == pytest.approx(values["floor"], abs=3 * values["standard_error"])
    entropy = -16 * math.log(0.05 * math.sqrt(2 * math.pi * math.e))  # E log p(x), which no density exceeds
    assert entropy - 6 < values["parzen"] < entropy
    assert values["validation"] == pytest.approx(values["parzen"], abs=1)
    assert values["grid"] == "20 bandwidths"


def test_value_and_standard_error_are_those_of_the_likelihoods_of_the_test_images():
    metric = Parzen(num_generated=50, num_test=40, num_validation=30, lowest=0.02, highest=0.4)
    model, context = Drawn(pixels), Context(batch_size=7)
    values = metric.measure(model, Splits(split_of), context)
    centers = pixels(50, context.generator("samples")).float().double()
    points = torch.tensor(split_of("test").images[:40]).flatten(1).double() / 255
    nats = torch.distributions.Normal(centers, values["sigma"]).log_prob(points[:, None]).sum(2).logsumexp(1) - math.log(50)
    assert values["parzen"] == pytest.approx(nats.mean().item(), abs=1e-4)  # pixels were float32 on the way
    assert values["standard_error"] == pytest.approx(np.std(nats.numpy()) / math.sqrt(40), abs=1e-4)


def test_the_floor_is_measured_once_and_kept(monkeypatch):
    metric = Parzen(num_generated=20, num_test=20, lowest=0.02, highest=0.4)
    first = metric.measure(Drawn(pixels), Splits(split_of), Context())
    monkeypatch.setattr(parzen, "gaussian_draws", None)
    again = metric.measure(Drawn(lambda n, generator: torch.full((n, 16), 0.5)), Splits(split_of), Context())
    assert again["floor"] == first["floor"]
    assert again["parzen"] < again["floor"]


def test_samples_with_nan_are_an_error_that_counts_them():
    def broken(n: int, generator: torch.Generator) -> Tensor:
        return pixels(n, generator).index_fill(0, torch.tensor([1, 4]), math.nan)

    with pytest.raises(ValueError, match=re.escape("2 of 9 samples hold NaN")):
        Parzen(num_generated=9).measure(Drawn(broken), Splits(split_of), Context())


def test_the_bandwidth_is_not_chosen_on_the_images_that_are_measured():
    data = Splits(lambda split: split_of("test"))
    with pytest.raises(ValueError, match="other images than it measures"):
        Parzen().protocol(data, Context())


def test_of_vectors_it_is_not_defined():
    data = Splits(lambda split: Vectors("patches", split, np.zeros((4, 16), np.float32), digest=split))
    with pytest.raises(NotDefined, match="patches holds vectors, not images"):
        Parzen(num_generated=3).measure(Drawn(pixels), data, Context())


def test_the_published_grids_are_a_few_numbers():
    assert Parzen().grid() == pytest.approx(np.arange(0.1, 0.295, 0.01))  # Yoo et al.: MNIST
    assert Parzen(lowest=0.001, highest=0.196, num_sigmas=40).grid() == pytest.approx(np.arange(0.001, 0.2, 0.005))  # TFD
    log = Parzen(lowest=0.1, highest=1.0, num_sigmas=10, spacing="log")  # Goodfellow et al.
    assert log.grid() == pytest.approx(np.logspace(-1, 0, 10))


@pytest.mark.parametrize("bad", [{"lowest": 0.0}, {"lowest": 0.5, "highest": 0.4}, {"num_sigmas": 1}, {"num_test": 1}])
def test_a_grid_that_is_none_is_refused_by_the_name_of_its_setting(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Parzen(**bad)


def test_another_count_of_samples_shows_in_the_name():
    assert Parzen().label("parzen") == "parzen"
    assert Parzen(num_generated=2000, num_test=500).label("parzen") == "parzen-2k (500 images)"
