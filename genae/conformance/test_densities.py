"""What holds for every registered density, third-party ones included, at its small settings."""

import inspect
import io
import math

import pytest
import torch
from torch import Tensor

from genae.conformance.names import buildable, registered
from genae.densities.density import Density
from genae.registry import DENSITIES

DIM = 4
NAMES = [name for name in registered(DENSITIES) if name in buildable(DENSITIES)]


def vectors(n: int, dim: int = DIM, seed: int = 0) -> Tensor:
    """Correlated vectors about (1, ..., 2), of spread about 0.7."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, dim, generator=generator) + torch.randn(n, 1, generator=generator)) / 2 + torch.linspace(1, 2, dim)


def build(name: str, dim: int = DIM, begun: bool = True, off_start: bool = True) -> Density:
    """The density at its small settings, begun and in eval mode, its parameters moved off their starting values."""
    torch.manual_seed(0)
    density = DENSITIES.build({"name": name, **DENSITIES[name].small}, dim)
    if begun:
        density.begin(vectors(200, dim))
    if begun and "log_prob" in density.provides:
        density.train().log_prob(vectors(200, dim))  # statistics that are taken as vectors pass
    with torch.no_grad():
        for parameter in density.parameters() if off_start else ():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return density.eval()


def providing(*what: str) -> list[str]:
    return [name for name in NAMES if build(name, begun=False).provides >= set(what)]


def draw(density: Density, n: int, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return density.sample(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_density_provides_are_words_of_the_contract(name):
    density = build(name, begun=False)
    assert {"sample"} <= density.provides <= {"sample", "log_prob", "conditionals", "pathwise"}
    assert density.dim == DIM
    assert "conditionals" not in density.provides or "log_prob" in density.provides


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_vectors_that_differ(name):
    drawn = draw(build(name), 20)
    assert drawn.shape == (20, DIM)
    assert drawn.dtype == torch.float32
    assert drawn.isfinite().all()
    assert (drawn.std(0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_come_from_the_generator_alone_and_change_no_state(name):
    density = build(name)
    before = {key: value.clone() for key, value in density.state_dict().items()}
    state = torch.get_rng_state()
    assert torch.equal(draw(density, 5), draw(density, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draw(density, 5), draw(density, 5, seed=1))
    assert all(torch.equal(value, before[key]) for key, value in density.state_dict().items())


@pytest.mark.parametrize("name", providing("log_prob"))
def test_the_log_density_of_a_vector_does_not_depend_on_its_company_in_eval_mode(name):
    density, x = build(name), vectors(5)
    found = density.log_prob(x)
    assert found.shape == (5,)
    assert found.isfinite().all()
    torch.testing.assert_close(found, torch.cat([density.log_prob(row[None]) for row in x]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", providing("log_prob"))
def test_far_away_the_log_density_is_low_and_no_nan(name):
    density = build(name)
    far = torch.cat([density.log_prob(sign * size * torch.ones(1, DIM)) for sign in (-1, 1) for size in (1e3, 1e6)])
    assert not far.isnan().any()
    assert far.max() < density.log_prob(vectors(50)).min()


@pytest.mark.parametrize("name", providing("log_prob"))
def test_in_the_plane_it_integrates_to_one_and_samples_follow_it(name):
    # Over x = 1.5 + sinh t, dx = cosh t dt. The means of log p and of x over samples are integrals too: of p log p and of p x.
    density = build(name, 2).double()
    t = torch.linspace(-7, 7, 350, dtype=torch.float64)
    points, weights = torch.cartesian_prod(1.5 + t.sinh(), 1.5 + t.sinh()), torch.cartesian_prod(t.cosh(), t.cosh()).prod(1)
    with torch.no_grad():
        log_prob = density.log_prob(points)
        mass = log_prob.exp() * weights * (t[1] - t[0]) ** 2
        drawn = density.sample(2000, torch.Generator().manual_seed(0))
        found = torch.cat([density.log_prob(drawn)[:, None], drawn], 1)
    assert mass.sum().item() == pytest.approx(1, abs=5e-3)
    expected = mass @ torch.cat([log_prob.clamp(min=-1e4)[:, None], points], 1)
    assert ((found.mean(0) - expected).abs() < 4.5 * found.std(0) / math.sqrt(2000) + 5e-3).all()


@pytest.mark.parametrize("name", providing("conditionals"))
def test_conditionals_add_up_to_the_log_density_and_know_nothing_of_later_dimensions(name):
    density, x = build(name), vectors(3)
    found = density.conditionals(x)
    assert found.shape == (3, DIM)
    torch.testing.assert_close(found.sum(1), density.log_prob(x), atol=1e-4, rtol=1e-4)
    for index in range(DIM):
        other = x.clone()
        other[:, index] += 0.5
        torch.testing.assert_close(density.conditionals(other)[:, :index], found[:, :index])
        assert not torch.allclose(density.conditionals(other)[:, index], found[:, index])


@pytest.mark.parametrize("name", NAMES)
def test_a_density_is_its_state_dict(name):
    density, file = build(name), io.BytesIO()
    torch.save(density.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = DENSITIES.build({"name": name, **DENSITIES[name].small}, DIM).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(draw(other, 3), draw(density, 3))
    if "log_prob" in density.provides:
        assert torch.equal(other.log_prob(vectors(3)), density.log_prob(vectors(3)))


@pytest.mark.parametrize("name", NAMES)
def test_to_begin_is_the_same_each_time(name):
    first, second = (build(name, off_start=False).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", providing("log_prob"))
def test_gradients_reach_every_parameter(name):
    density = build(name)  # in eval mode: in training, batch normalisation takes away what a bias before it adds
    density.log_prob(vectors(8)).sum().backward()
    assert not [key for key, value in density.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("name", providing("log_prob"))
def test_training_makes_the_vectors_likelier(name):
    density, x = build(name), vectors(64)
    before = density.log_prob(x).mean()
    optimizer = torch.optim.Adam(density.train().parameters(), lr=2e-3)
    for _ in range(25):
        torch.manual_seed(0)  # of orders and masks that a density draws
        optimizer.zero_grad()
        (-density.log_prob(x).mean()).backward()
        optimizer.step()
    assert density.log_prob(x).mean() > before


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_which_no_density_can_be_learned_are_refused(name):
    density, x = build(name, begun=False), vectors(20)
    with pytest.raises(ValueError, match="NaN"):
        density.begin(x.index_fill(0, torch.tensor([3]), math.nan))
    with pytest.raises(ValueError, match="never vary"):
        density.begin(x.index_fill(1, torch.tensor([2]), 1.0))
    with pytest.raises(ValueError, match="shape"):
        density.begin(x[:, 1:])


@pytest.mark.parametrize("name", [name for name in NAMES if "standardize" in DENSITIES[name].settings])
def test_standardised_a_density_does_not_care_about_units(name):
    # u = (x - shift) / scale is the same for x and for 100 x + 7, and p is of x: log p falls by log 100 a dimension.
    found = []
    for factor, offset in ((1, 0), (100, 7)):
        torch.manual_seed(0)
        density = DENSITIES.build({"name": name, **DENSITIES[name].small, "standardize": True}, DIM)
        density.begin(vectors(100) * factor + offset)
        density.eval()
        if "log_prob" in density.provides:
            found.append(density.log_prob(vectors(5) * factor + offset) + DIM * math.log(factor))
        else:
            found.append((draw(density, 5) - offset) / factor)
    torch.testing.assert_close(*found, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_factory_takes_the_dimension_and_settings_by_keyword(name):
    parameters = inspect.signature(DENSITIES[name].factory).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["dim"]
