"""MMD against loops over pairs, closed forms and statistics; and the KL of moments as AGE's code has it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genae.losses.divergences import kl_of_moments, mmd, squared_distances

KERNELS, ESTIMATORS = ("imq", "rbf"), ("unbiased", "biased")
BANDWIDTHS = (0.6, 3.0, 12.0)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_pairs(codes: Tensor, draws: Tensor, kernel: str, estimator: str, bandwidths: tuple[float, ...] = BANDWIDTHS) -> Tensor:
    """MMD^2 pair by pair, from differences: Gretton et al. (2012), Lemma 6 and Eq. 5."""

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        distance = (a - b).square().sum()
        values = [c / (c + distance) if kernel == "imq" else torch.exp(-distance / c) for c in bandwidths]
        return torch.stack(values).sum()

    def among(points: Tensor) -> Tensor:
        n = len(points)
        every = [(i, j) for i in range(n) for j in range(n) if estimator == "biased" or i != j]
        return torch.stack([similarity(points[i], points[j]) for i, j in every]).sum() / len(every)

    cross = torch.stack([similarity(a, b) for a in codes for b in draws])
    return among(codes) + among(draws) - 2 * cross.sum() / len(cross)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(max_examples=10, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 4), st.integers(0, 1000))
def test_value_and_gradient_are_those_of_a_loop_over_pairs(kernel, estimator, n, m, dim, seed):
    draws = gaussian(m, dim, seed=seed + 1)
    found, expected = (gaussian(n, dim, seed=seed).mul(0.7).add(0.3).requires_grad_() for _ in range(2))
    value, slow = (
        mmd(found, draws, BANDWIDTHS, kernel=kernel, estimator=estimator),
        by_pairs(expected, draws, kernel, estimator),
    )
    torch.testing.assert_close(value, slow, atol=1e-12, rtol=1e-12)
    value.backward()
    slow.backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_reach_codes_and_draws_alike(kernel):
    codes, draws = (gaussian(5, 3, seed=seed).requires_grad_() for seed in range(2))
    assert torch.autograd.gradcheck(lambda a, b: mmd(a, b, BANDWIDTHS, kernel=kernel), (codes, draws))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_right_where_points_coincide(kernel, dtype):
    # Every code stands twice, and on a draw: half of the distances are 0, where a root would have no gradient.
    draws = gaussian(6, 4, dtype=dtype)
    found, expected = (draws[[0, 0, 1, 1, 2, 2]].clone().requires_grad_() for _ in range(2))
    mmd(found, draws, BANDWIDTHS, kernel=kernel).backward()
    by_pairs(expected, draws, kernel, "unbiased").backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=1e-5)
    together = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    mmd(together, torch.ones(4, 3, dtype=dtype), BANDWIDTHS, kernel=kernel).backward()
    assert torch.equal(together.grad, torch.zeros_like(together)), "all in one place, by symmetry nothing pulls"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_points_compared_with_themselves_differ_by_no_more_than_their_diagonal(estimator):
    # Biased: exactly 0. Unbiased: with s the number of bandwidths and k the mean over pairs i != j,
    # 2 k - 2 ((n - 1) k + s) / n = 2 (k - s) / n.
    points, n, s = gaussian(8, 3), 8, len(BANDWIDTHS)
    pairs = [
        sum(c / (c + (points[i] - points[j]).square().sum()) for c in BANDWIDTHS) for i in range(n) for j in range(n) if i != j
    ]
    expected = 0.0 if estimator == "biased" else (2 * (sum(pairs) / len(pairs) - s) / n).item()
    assert mmd(points, points.clone(), BANDWIDTHS, estimator=estimator).item() == pytest.approx(expected, abs=1e-12)


# Numbers.


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_float32_is_enough_wherever_the_codes_are(offset):
    codes, draws = gaussian(64, 32).mul(0.5).add(offset), gaussian(64, 32, seed=1)
    # Rounding the codes themselves to float32 is not the loss's doing.
    codes, draws = codes.float(), draws.float()
    bandwidths = [2 * 32 * scale for scale in (0.1, 1.0, 10.0)]
    narrow, wide = (mmd(a, b, bandwidths).item() for a, b in ((codes, draws), (codes.double(), draws.double())))
    assert narrow == pytest.approx(wide, abs=3e-6)


def test_distances_are_never_negative_and_those_between_a_point_and_itself_are_nearly_0():
    points = gaussian(50, 8, dtype=torch.float32) + 100
    found = squared_distances(points, points)
    assert (found >= 0).all()
    assert found.diagonal().max() < 1e-4
    torch.testing.assert_close(found.double(), torch.cdist(points.double(), points.double()).square(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_mmd_of_bfloat16_is_that_of_the_same_numbers_in_float32(dtype):
    codes, draws = gaussian(16, 8, dtype=dtype), gaussian(16, 8, seed=1, dtype=dtype)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = mmd(codes, draws, BANDWIDTHS)
    assert found.dtype == wide
    assert torch.equal(found, mmd(codes.to(wide), draws.to(wide), BANDWIDTHS))


class _LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize(("n", "m", "dim"), [(20, 30, 40), (4, 6, 500)])
def test_no_tensor_is_larger_than_all_pairs_or_all_codes(n, m, dim):
    codes = gaussian(n, dim).requires_grad_()
    with _LargestTensor() as largest:
        mmd(codes, gaussian(m, dim, seed=1), BANDWIDTHS).backward()
    assert largest.numel <= max(m * m, m * dim)


def test_one_code_has_no_unbiased_estimate():
    with pytest.raises(ValueError, match="1 codes and 4 draws"):
        mmd(gaussian(1, 3), gaussian(4, 3), BANDWIDTHS)
    assert mmd(gaussian(1, 3), gaussian(4, 3), BANDWIDTHS, estimator="biased").isfinite()


# What the estimates estimate.


def expected_similarity(kernel: str, dim: int, distance: float, variance: float) -> float:
    """E k(x, y), where x - y ~ N(m, variance I) in R^dim with |m|^2 = `distance`, summed over BANDWIDTHS.

    For exp(-d / c) that is (1 + 2 variance / c)^(-dim / 2) exp(-|m|^2 / (c + 2 variance)), one Gaussian integral for each
    dimension. c / (c + d) is the mean of exp(-t d / c) over t ~ Exp(1).
    """

    def rbf(c: float) -> float:
        return (1 + 2 * variance / c) ** (-dim / 2) * math.exp(-distance / (c + 2 * variance))

    def imq(c: float) -> float:
        return integrate.quad(lambda t: math.exp(-t) * rbf(c / t), 0, math.inf)[0]

    return sum((rbf if kernel == "rbf" else imq)(c) for c in BANDWIDTHS)


def estimates(kernel: str, estimator: str, count: int, n: int, dim: int, *, shift: float, spread: float) -> Tensor:
    """Estimates from `count` batches of codes ~ N(shift, spread^2 I) and draws ~ N(0, I)."""
    codes, draws = gaussian(count, n, dim) * spread + shift, gaussian(count, n, dim, seed=1)
    return torch.stack([mmd(a, b, BANDWIDTHS, kernel=kernel, estimator=estimator) for a, b in zip(codes, draws, strict=True)])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.4, 0.7)])
def test_the_unbiased_estimate_averages_to_mmd_in_closed_form_and_the_biased_one_to_more(kernel, shift, spread):
    count, n, dim = 1500, 5, 3
    within_codes = expected_similarity(kernel, dim, 0.0, 2 * spread**2)
    within_draws = expected_similarity(kernel, dim, 0.0, 2.0)
    exact = within_codes + within_draws - 2 * expected_similarity(kernel, dim, dim * shift**2, 1 + spread**2)
    if not shift:
        assert exact == pytest.approx(0, abs=1e-9)  # the same distribution
    # With all pairs, n of n^2 are a point's with itself, at which k is the number of bandwidths.
    more = (2 * len(BANDWIDTHS) - within_codes - within_draws) / n
    for estimator, expected in (("unbiased", exact), ("biased", exact + more)):
        found = estimates(kernel, estimator, count, n, dim, shift=shift, spread=spread)
        assert abs(found.mean().item() - expected) < 4 * found.std().item() / math.sqrt(count)
    assert (found > 0).all(), "the biased estimate is a squared norm"


# The KL of a batch's moments, as AGE's code has it.


def test_ages_form_is_the_kl_with_variances_where_standard_deviations_belong():
    codes = gaussian(40, 6) * 0.5 + 0.3
    mean, deviation = codes.mean(0), codes.var(0, unbiased=False)  # the variance, put in the deviation's place
    unit = torch.distributions.Normal(torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(mean, deviation), unit).mean()
    torch.testing.assert_close(kl_of_moments(codes, "age"), expected)


def test_ages_form_too_is_0_for_a_batch_of_mean_0_and_variance_1_and_finite_for_equal_codes():
    codes = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert kl_of_moments(codes, "age").item() == 0
    equal = torch.ones(4, 3, requires_grad=True)
    kl_of_moments(equal, "age").backward()
    assert equal.grad.isfinite().all()
