"""The Frechet distance against closed forms, the textbook formula and pytorch_fid's function."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genae.metrics.frechet import Moments, Statistics, frechet_distance, gaussian_distance, statistics_of


def features(count: int, dims: int, seed: int) -> torch.Tensor:
    """Correlated vectors with a mean, float64 [count, dims]."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dims, dims)) * 0.9 ** np.arange(dims)
    return torch.from_numpy(rng.normal(size=(count, dims)) @ mixing.T + rng.normal(size=dims))


def textbook(a: torch.Tensor, b: torch.Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 sqrtm(S1 S2)) of two sets of vectors."""
    cov_a, cov_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    shift = a.numpy().mean(0) - b.numpy().mean(0)
    return shift @ shift + np.trace(cov_a + cov_b) - 2 * np.trace(scipy.linalg.sqrtm(cov_a @ cov_b)).real


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return frechet_distance(statistics_of([a]), statistics_of([b]))


@pytest.mark.parametrize("count", [5, 300])
def test_fid_of_shifted_gaussians_is_the_squared_shift(count):
    a = features(count, 20, seed=0)
    shift = torch.arange(20.0, dtype=torch.float64)
    assert distance(a, a + shift) == pytest.approx((shift @ shift).item(), rel=1e-9)


@pytest.mark.parametrize("count", [5, 300])
def test_fid_of_features_scaled_about_their_mean_is_the_trace_times_the_square_of_what_is_added(count):
    a = features(count, 20, seed=0)
    scaled = a.mean(0) + 3 * (a - a.mean(0))
    trace = np.trace(np.cov(a.numpy(), rowvar=False))
    assert distance(a, scaled) == pytest.approx((3 - 1) ** 2 * trace, rel=1e-9)  # tr(S + 9 S - 2 * 3 S)


def test_fid_of_independent_gaussians_adds_up_squared_differences_of_standard_deviations():
    zero = torch.zeros(3)
    # sum over dimensions of (sqrt(v1) - sqrt(v2))^2: (2 - 3)^2 + (1 - 0)^2 + (5 - 5)^2
    assert gaussian_distance(zero, torch.diag(torch.tensor([4.0, 1, 25])), zero, torch.diag(torch.tensor([9.0, 0, 25]))) == 2


def test_fid_of_something_with_itself_is_zero():
    a = features(300, 20, seed=0)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [(10, 12), (10, 500), (500, 10), (500, 400), (41, 40)])
def test_fid_agrees_with_the_textbook_formula_for_few_and_for_many_samples(first, second):
    a, b = features(first, 40, seed=1), features(second, 40, seed=2)
    assert distance(a, b) == pytest.approx(textbook(a, b), rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [(10, 12), (10, 500), (500, 10)])
def test_the_small_sample_form_equals_the_full_one(first, second):
    a, b = features(first, 40, seed=1), features(second, 40, seed=2)
    full = [(x.mean(0), torch.cov(x.T)) for x in (a, b)]
    assert distance(a, b) == pytest.approx(gaussian_distance(*full[0], *full[1]), rel=1e-6)


def test_it_equals_pytorch_fids_own_function(monkeypatch):
    from pytorch_fid import fid_score

    # SciPy 1.18 removes sqrtm's `disp`, which it passes; with disp=False the root came with an error estimate
    monkeypatch.setattr(fid_score.linalg, "sqrtm", lambda product, disp, root=scipy.linalg.sqrtm: (root(product), None))
    a, b = features(500, 64, seed=1), features(700, 64, seed=2)
    full = [(x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (a, b)]
    theirs = fid_score.calculate_frechet_distance(*full[0], *full[1])
    assert distance(a, b) == pytest.approx(theirs, rel=1e-8)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(2, 60),
    dims=st.integers(1, 20),
    chunk=st.integers(1, 25),
    offset=st.sampled_from([0.0, 1e5]),
)
def test_streamed_statistics_are_numpys_whatever_the_batches(count, dims, chunk, offset):
    vectors = torch.from_numpy(np.random.default_rng(count).normal(size=(count, dims)) + offset)
    found = statistics_of(vectors.split(chunk))
    assert (found.covariance is None) == (count <= dims)
    covariance = found.root.T @ found.root if found.covariance is None else found.covariance
    assert found.count == count
    np.testing.assert_allclose(found.mean, vectors.numpy().mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(covariance, np.atleast_2d(np.cov(vectors.numpy(), rowvar=False)), atol=1e-9)
    assert found.trace.item() == pytest.approx(np.trace(covariance))


def test_statistics_can_be_asked_for_in_between():
    moments, vectors = Moments(), features(50, 8, seed=0)
    moments.add(vectors[:5])
    assert moments.statistics().count == 5
    moments.add(vectors[5:20])
    assert moments.statistics().count == 20
    moments.add(vectors[20:])
    torch.testing.assert_close(moments.statistics().covariance, torch.cov(vectors.T))


def test_float32_features_are_summed_in_float64():
    vectors = (features(5000, 4, seed=0) + 1e3).float()
    torch.testing.assert_close(statistics_of(vectors.split(100)).covariance, torch.cov(vectors.double().T), rtol=1e-10, atol=0)


def test_one_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        statistics_of([torch.zeros(1, 4)])


def test_features_of_different_lengths_are_refused():
    a, b = (Statistics(2, torch.zeros(d), covariance=torch.eye(d)) for d in (3, 4))
    with pytest.raises(ValueError, match=r"3 .* 4"):
        frechet_distance(a, b)
