"""Latent spaces."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genae.latent import Gaussian, Sphere, slerp
from genae.models.autoencoder import mix
from genae.randomness import generator_for, seed_for


def draw(seed, n=50, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_halfway_between_orthogonal_directions_is_their_diagonal():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(slerp(a, b, 0.5), torch.tensor([[math.sqrt(0.5), math.sqrt(0.5)]]))


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_great_circle_is_walked_at_constant_speed(seed, t):
    a, b = Sphere(6).project(draw(seed)), Sphere(6).project(draw(seed + 5000))
    point = Sphere(6).interpolate(a, b, t)
    whole = (a * b).sum(1).clamp(-1, 1).acos()
    torch.testing.assert_close(point.norm(dim=1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close((a * point).sum(1).clamp(-1, 1).acos(), t * whole, atol=1e-6, rtol=0)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_between_gaussian_codes_the_norm_goes_linearly(seed, t):
    a, b = draw(seed), draw(seed + 5000)
    point = Gaussian(6).interpolate(a, b, t)
    torch.testing.assert_close(point.norm(dim=1), (1 - t) * a.norm(dim=1) + t * b.norm(dim=1))


def test_interpolation_between_equal_codes_stays_there():
    a = draw(0)
    torch.testing.assert_close(slerp(a, a, 0.3), a)


def test_sphere_samples_have_norm_one_and_mean_zero():
    codes = Sphere(16).sample(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(4000))
    assert codes.mean(0).abs().max() < 5 / math.sqrt(16 * 4000)  # each coordinate has variance 1/16; five standard errors


def test_codes_of_a_half_precision_encoder_have_norm_one_to_float32():
    codes = Sphere(6).project(draw(0).to(torch.bfloat16))
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(50))


def test_gaussian_samples_have_unit_covariance():
    codes = Gaussian(4).sample(20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.T.cov(), torch.eye(4), atol=0.05, rtol=0)


def test_the_same_generator_state_draws_the_same_codes():
    first = Sphere(8).sample(3, generator_for("cpu", 1, "codes"))
    assert torch.equal(first, Sphere(8).sample(3, generator_for("cpu", 1, "codes")))
    assert not torch.equal(first, Sphere(8).sample(3, generator_for("cpu", 2, "codes")))


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=4, unique=True))
def test_every_part_of_a_key_changes_the_seed(parts):
    seeds = {seed_for(*parts), seed_for(*parts[:-1]), seed_for(*reversed(parts))}
    assert len(seeds) == 3


def test_a_mixture_follows_a_up_to_the_split_and_b_after_it():
    a, b = torch.zeros(3, 2), torch.ones(3, 2)
    mixed = mix(a, b, torch.tensor([0, 2, 4]), num_layers=4)  # [3, 4, 2]
    assert mixed[:, :, 0].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert torch.equal(mix(a, b, 2, num_layers=4)[0], mixed[1])


@pytest.mark.parametrize("space", [Gaussian(5), Sphere(5)])
def test_projecting_twice_is_projecting_once(space):
    codes = space.project(draw(3, dim=5))
    torch.testing.assert_close(space.project(codes), codes)
