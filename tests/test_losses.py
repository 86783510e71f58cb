"""Losses against their closed forms, quadrature, and the numbers noted from the released code."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from torch.distributions import Normal, kl_divergence

from genae.latent import Sphere
from genae.losses.distances import cosine, cosine_per_element, mean_absolute, mean_square, rms_norm
from genae.losses.divergences import kl_of_gaussian, kl_of_moments
from genae.losses.robust import ALPHA_RANGE, AdaptiveRobustLoss, grow, log_partition, rho

# Precision.


@pytest.mark.parametrize(
    "distance",
    [mean_absolute, mean_square, cosine, cosine_per_element, rms_norm, kl_of_gaussian, lambda a, b: kl_of_moments(a)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_loss_of_bfloat16_is_that_of_the_same_numbers_in_float32(distance, dtype):
    a, b = torch.randn(2, 8, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = distance(a, b)
    assert found.dtype == wide
    assert torch.equal(found, distance(a.to(wide), b.to(wide)))


# Divergences.


def test_kl_of_moments_is_the_mean_over_dimensions_of_the_gaussian_kl():
    codes = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5 + 0.3
    fitted = Normal(codes.mean(0), codes.std(0, unbiased=False))
    unit = Normal(torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(kl_of_moments(codes), kl_divergence(fitted, unit).mean())


@pytest.mark.parametrize(("batch", "released"), [(16, 2.68), (28, 2.655), (64, 2.635), (256, 2.624)])
def test_kl_of_uniform_codes_on_the_sphere_is_what_the_released_code_gives(batch, released):
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([kl_of_moments(Sphere(512).sample(batch, generator)) for _ in range(10)]).mean()
    assert found.item() == pytest.approx(released, abs=0.006)


def test_kl_of_codes_of_norm_one_has_its_floor_at_mean_zero_and_equal_variances():
    codes = torch.eye(8).repeat(2, 1) * torch.tensor([1.0, -1.0]).repeat_interleave(8)[:, None]  # +-e_d: m = 0, v = 1 / 8
    assert kl_of_moments(codes).item() == pytest.approx((math.log(8) + 1 / 8 - 1) / 2)


def test_kl_of_moments_of_equal_codes_is_finite_with_a_finite_gradient():
    codes = torch.ones(4, 3, requires_grad=True)
    kl_of_moments(codes).backward()
    assert codes.grad.isfinite().all()


def test_kl_of_gaussian_is_that_of_torch_summed_over_dimensions():
    generator = torch.Generator().manual_seed(0)
    mean, log_var = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    each = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    torch.testing.assert_close(kl_of_gaussian(mean, log_var), each.sum(1).mean())
    torch.testing.assert_close(kl_of_gaussian(mean, log_var, "mean"), each.mean())


# Distances.


def test_pixel_distances_are_means_over_all_elements():
    a, b = torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert mean_absolute(a, b).item() == pytest.approx(3 / 4)
    assert mean_square(a, b).item() == pytest.approx(5 / 4)


def test_cosine_distance_runs_from_0_to_2():
    a = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert cosine(a, 5 * a).item() == pytest.approx(0, abs=1e-6)
    assert cosine(a, -a).item() == pytest.approx(2)
    assert cosine(a, a.flip(0)).item() == pytest.approx(1)


def test_the_released_cosine_is_512_times_weaker():
    a, b = Sphere(512).sample(8, torch.Generator().manual_seed(0)).chunk(2)
    assert cosine_per_element(a, a).item() == pytest.approx(1.99805, abs=1e-5)
    assert cosine_per_element(a, -a).item() == pytest.approx(2.00195, abs=1e-5)
    b.requires_grad_()
    (weak,) = torch.autograd.grad(1000 * cosine_per_element(a, b), b)
    (true,) = torch.autograd.grad(1.953125 * cosine(a, b), b)
    torch.testing.assert_close(weak, true, atol=1e-6, rtol=1e-4)


def test_rms_norm_is_the_l2_norm_over_the_root_of_the_number_of_features():
    a, b = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([torch.linalg.vector_norm(x - y) for x, y in zip(a, b, strict=True)]).mean() / math.sqrt(4 * 5 * 6)
    torch.testing.assert_close(rms_norm(a, b), expected)
    a.requires_grad_()
    rms_norm(a, a.detach()).backward()
    assert a.grad.isfinite().all()


# The robust loss.


def test_rho_is_the_loss_that_each_alpha_names():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(rho(x, one, one), (x**2 + 1).sqrt() - 1)  # Charbonnier
    torch.testing.assert_close(rho(x, 2 * one - 1e-9, one), x**2 / 2, atol=1e-6, rtol=1e-6)  # L2
    torch.testing.assert_close(rho(x, 1e-9 * one, one), torch.log1p(x**2 / 2), atol=1e-6, rtol=1e-6)  # Cauchy
    torch.testing.assert_close(rho(x, 0.7 * one, 2 * one), rho(x / 2, 0.7 * one, one))


def exact_log_partition(alpha: float) -> float:
    b = 2 - alpha

    def density(t: float) -> float:  # over x = e^t
        return math.exp(t - b / alpha * math.expm1(alpha / 2 * math.log1p(math.exp(2 * t) / b)))

    value, _ = integrate.quad(density, -30, 30, points=[-5, 0, 1, 2, 5], limit=500, epsabs=1e-11, epsrel=1e-11)
    return math.log(2 * value)


def test_the_partition_function_has_its_known_value_at_alpha_one():
    # The integral of exp(1 - sqrt(x^2 + 1)) is 2 e K_1(1).
    assert log_partition(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(
        math.log(2 * math.e * special.k1(1)), abs=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_partition_function_is_within_1e_5_of_quadrature(dtype):
    low, high = ALPHA_RANGE
    alphas = np.concatenate([np.linspace(low, high, 40), 2 - np.geomspace(2 - high, 0.1, 20)])
    found = log_partition(torch.tensor(alphas, dtype=dtype)).double().numpy()
    np.testing.assert_allclose(
        found, [exact_log_partition(alpha) for alpha in alphas], atol=1e-5 if dtype == torch.float32 else 2e-7
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.002, 1.998))
def test_the_partition_function_has_the_gradient_of_quadrature(alpha):
    x = torch.tensor([alpha], dtype=torch.float64, requires_grad=True)
    log_partition(x).sum().backward()
    h = min(1e-4, (2 - alpha) / 20)
    expected = (exact_log_partition(alpha + h / 2) - exact_log_partition(alpha - h / 2)) / h
    assert x.grad.item() == pytest.approx(expected, abs=2e-4)


def test_the_robust_loss_starts_as_charbonnier_with_scale_one():
    loss = AdaptiveRobustLoss(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2))
    torch.testing.assert_close(loss.alpha, torch.ones(3, 2, 2))
    torch.testing.assert_close(loss.scale, torch.ones(3, 2, 2))
    images, targets = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = (((images - targets) ** 2 + 1).sqrt() - 1).mean() + math.log(2 * math.e * special.k1(1))
    torch.testing.assert_close(loss(images, targets), expected)


def test_the_robust_loss_is_the_negative_log_of_a_density():
    raw_alpha, raw_scale = torch.full((1, 1, 1), -1.0, dtype=torch.float64), torch.full((1, 1, 1), -0.5, dtype=torch.float64)
    loss = AdaptiveRobustLoss(raw_alpha, raw_scale)
    t = torch.linspace(-25, 25, 20001, dtype=torch.float64)  # x = e^t
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        minus_log = rho(t.exp(), loss.alpha.squeeze(), loss.scale.squeeze()) + (
            loss(nothing, nothing)  # rho(0) = 0
        )
    assert torch.trapezoid((t - minus_log).exp(), t).item() * 2 == pytest.approx(1, abs=1e-5)


def test_the_robust_loss_has_the_gradients_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    raw_alpha, raw_scale = torch.randn(2, 1, 2, 3, generator=generator, dtype=torch.float64).unbind(0)
    targets = torch.randn(4, 1, 2, 3, generator=generator, dtype=torch.float64)
    images = torch.randn(4, 1, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = AdaptiveRobustLoss(raw_alpha, raw_scale)

    def of(images, alpha, scale):
        return torch.func.functional_call(loss, {"raw_alpha": alpha, "raw_scale": scale}, (images, targets))

    assert torch.autograd.gradcheck(of, (images, loss.raw_alpha, loss.raw_scale), atol=1e-5)


def test_alpha_and_scale_fit_the_spread_of_residuals():
    # For Gaussian residuals of standard deviation s the best alpha is near 2 and the best scale near s.
    torch.manual_seed(0)
    loss = AdaptiveRobustLoss(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    residuals = 0.3 * torch.randn(20000, 1, 1, 1)
    for _ in range(300):
        optimizer.zero_grad()
        loss(residuals, torch.zeros_like(residuals)).backward()
        optimizer.step()
    assert loss.alpha.item() > 1.8
    assert loss.scale.item() == pytest.approx(0.3, rel=0.15)


def test_maps_that_channels_share_are_equal_maps_of_every_channel():
    generator = torch.Generator().manual_seed(0)
    alpha, scale = torch.randn(2, 1, 4, 4, generator=generator).unbind(0)
    images, targets = torch.randn(2, 5, 3, 4, 4, generator=generator)
    shared, own = AdaptiveRobustLoss(alpha, scale), AdaptiveRobustLoss(alpha.repeat(3, 1, 1), scale.repeat(3, 1, 1))
    values = [loss(images, targets) for loss in (shared, own)]
    torch.testing.assert_close(*values)
    for value in values:
        value.backward()
    torch.testing.assert_close(shared.raw_alpha.grad[0], own.raw_alpha.grad.sum(0))
    torch.testing.assert_close(shared.raw_scale.grad[0], own.raw_scale.grad.sum(0))


def test_maps_grow_to_the_2x2_pixels_of_each_pixel():
    small = torch.arange(8.0).reshape(2, 2, 2)
    grown = grow(small)
    assert grown.shape == (2, 4, 4)
    torch.testing.assert_close(F.avg_pool2d(grown, 2), small)
    assert torch.equal(grown[0], torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]))


@pytest.mark.parametrize("width", [4, 8, 16])
def test_released_growth_puts_one_in_width_where_the_paper_says(width):
    small = torch.arange(3.0 * width * width).reshape(3, width, width)
    right = (grow(small, "released") == grow(small)).float().mean().item()
    assert right == pytest.approx(1 / width)
    assert torch.equal(grow(small, "released").flatten()[:8], torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]))
