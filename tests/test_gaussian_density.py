"""The Gaussian of greatest likelihood: against torch's own distribution, and where there is none."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from genae.densities.gaussian import fit_gaussian
from genae.registry import DENSITIES


def vectors(n: int = 300, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=generator) * torch.logspace(-2, 2, dim)
    return torch.randn(n, dim, generator=generator) @ mixing + 10


@pytest.mark.parametrize("standardize", [False, True])
def test_it_begins_with_the_sample_mean_and_covariance(standardize):
    x = vectors().double()
    centred = x - x.mean(0)
    expected = MultivariateNormal(x.mean(0), centred.T @ centred / len(x))
    density = DENSITIES.build({"name": "gaussian", "standardize": standardize}, 5).double()
    density.begin(x)
    torch.testing.assert_close(density.log_prob(x), expected.log_prob(x))
    drawn = density.sample(20_000, torch.Generator().manual_seed(0))
    whitened = torch.linalg.solve_triangular(expected.scale_tril, (drawn - expected.mean).T, upper=False)
    torch.testing.assert_close(whitened @ whitened.T / 20_000, torch.eye(5).double(), atol=0.05, rtol=0)


def test_the_fit_is_in_float64_and_no_other_gaussian_is_likelier():
    x = vectors()
    fitted = fit_gaussian(x)
    assert fitted.mean.dtype == torch.float64
    best = fitted.log_prob(x.double()).mean()
    for scale in (0.99, 1.01):
        assert MultivariateNormal(fitted.mean, fitted.covariance_matrix * scale).log_prob(x.double()).mean() < best
        assert MultivariateNormal(fitted.mean * scale, fitted.covariance_matrix).log_prob(x.double()).mean() < best


def test_training_stays_at_the_maximum():
    x = vectors().double()
    density = DENSITIES.build({"name": "gaussian"}, 5).double()
    density.begin(x)
    density.log_prob(x).mean().backward()
    for parameter in density.parameters():
        torch.testing.assert_close(
            parameter.grad.tril() if parameter.ndim == 2 else parameter.grad, 0 * parameter, atol=1e-6, rtol=0
        )


def test_dimensions_that_others_determine_are_named():
    x = vectors()
    x[:, 3] = 2 * x[:, 0] - x[:, 1]
    with pytest.raises(ValueError, match="singular: dimensions 3 of"):
        fit_gaussian(x)


def test_dimensions_that_never_vary_are_named():
    x = vectors()
    x[:, 2] = 4
    with pytest.raises(ValueError, match="dimensions 2 of the vectors never vary"):
        fit_gaussian(x)


def test_too_few_vectors_are_said_to_be_too_few():
    with pytest.raises(ValueError, match="5 dimensions needs at least 6 vectors, not 5"):
        fit_gaussian(vectors(5))


def test_dimensions_of_very_different_sizes_do_not_make_a_covariance_singular():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = torch.tensor([1e-6, 1.0, 1e5, 3.0], dtype=torch.float64)
    of_sizes = fit_gaussian(x * sizes).log_prob(x * sizes)
    torch.testing.assert_close(of_sizes, fit_gaussian(x).log_prob(x) - sizes.log().sum(), atol=1e-8, rtol=0)
