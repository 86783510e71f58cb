"""A Gaussian with any covariance: the density of greatest likelihood is known in closed form, and every other must beat it."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from genae.densities.density import Density, check_vectors
from genae.registry import DENSITIES

EXACT = 1e-12  # of a dimension's variance: less than this left over, given those before it, is float32's rounding


@DENSITIES.add("gaussian")
class Gaussian(Density):
    """N(mean, covariance), begun at the maximum of the likelihood; training can then only leave it.

    standardize: changes nothing but the numbers that are stored, and so the scale of a learning rate.
    """

    def __init__(self, dim: int, *, standardize: bool = False) -> None:
        super().__init__(dim, standardize=standardize)
        self.whitening = Whitening(dim)

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"conditionals"}

    @torch.no_grad()
    def begin(self, vectors: Tensor) -> None:
        super().begin(vectors)
        fitted = fit_gaussian((vectors.double() - self.shift) / self.scale)
        whiten = torch.linalg.inv(fitted.scale_tril)
        self.whitening.mean.copy_(fitted.mean)
        self.whitening.log_diagonal.copy_(whiten.diagonal().log())
        self.whitening.below.copy_(whiten.tril(-1))

    def _conditionals(self, vectors: Tensor) -> Tensor:
        # Row i of a triangular whitening matrix sees dimensions 1..i: (x_i - E[x_i | x_<i]) / std[x_i | x_<i].
        white = (vectors - self.whitening.mean) @ self.whitening.matrix().T
        return self.whitening.log_diagonal - white.square() / 2 - math.log(2 * math.pi) / 2

    @torch.no_grad()
    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        white = torch.randn(n, self.dim, generator=generator, device=generator.device).to(self.shift)
        return torch.linalg.solve_triangular(self.whitening.matrix(), white.T, upper=False).T + self.whitening.mean


class Whitening(nn.Module):
    """x -> A (x - mean), A lower triangular with a positive diagonal: the inverse of the covariance's Cholesky factor.

    In A the likelihood is concave.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.below = nn.Parameter(torch.zeros(dim, dim))  # what is not below the diagonal is never read

    def matrix(self) -> Tensor:
        """A [D, D]."""
        return self.below.tril(-1) + self.log_diagonal.exp().diag()


def fit_gaussian(vectors: Tensor) -> MultivariateNormal:
    """The Gaussian of greatest likelihood for vectors [M, D]: their mean and (biased) covariance, in float64.

    Raises ValueError where there is none, the covariance being singular: it names the dimensions that never vary, or that
    others determine, or says that there are too few vectors.
    """
    check_vectors(vectors, vectors.shape[-1])
    count, dim = vectors.shape
    if count <= dim:
        raise ValueError(f"the covariance of {dim} dimensions needs at least {dim + 1} vectors, not {count}")
    mean, std = vectors.double().mean(0), vectors.double().std(0, correction=0)
    white = (vectors.double() - mean) / std
    correlation = white.T @ white / count
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if failed or bool((factor.diagonal().square() < EXACT).any()):
        named = ", ".join(map(str, dependent_dimensions(correlation)))
        raise ValueError(f"the covariance is singular: dimensions {named} of the vectors are sums of others, up to rounding")
    return MultivariateNormal(mean, scale_tril=std[:, None] * factor)


def dependent_dimensions(correlation: Tensor) -> list[int]:
    """The dimensions of which those before them leave nothing over: of [D, D], by elimination one dimension at a time."""
    left, dependent = correlation.clone(), []
    for index in range(len(left)):
        if left[index, index] < EXACT:
            dependent.append(index)
        else:
            column = left[:, index].clone()
            left -= torch.outer(column, column) / column[index]
    return dependent
