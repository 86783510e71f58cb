"""The rival density estimators of Table 1 of Yoo et al. (2019): the parts that make each, against the mathematics."""

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

from genae.densities.density import Density
from genae.experiment import import_modules, project_root
from genae.registry import DENSITIES

import_modules(["baselines.rnade", "baselines.made", "baselines.flows"], project_root(Path(__file__)))

from baselines.flows import BatchNorm, DenseSigmoids, NeuralAutoregressive  # noqa: E402 (found by the line above)
from baselines.made import MADE, mixture_draw, mixture_log_prob  # noqa: E402
from baselines.rnade import random_masks  # noqa: E402

NAMES = ["rnade-deep", "made-mog", "real-nvp", "maf-mog", "maf-ddsf"]
FLOWS = NAMES[2:]


def small(name: str, dim: int, **settings) -> Density:
    """A small density, in float64 and eval mode, away from where training starts, fitted to the scale of correlated vectors."""
    torch.manual_seed(0)
    density = DENSITIES.build({"name": name, **DENSITIES[name].small, **settings}, dim)
    density.begin(vectors(200, dim))
    density.log_prob(vectors(200, dim))  # batch normalisation takes its statistics
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return density.double().eval()


def vectors(n: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, dim, generator=generator)
    return 0.5 * noise + 0.5 * torch.randn(n, 1, generator=generator) + torch.linspace(1, 2, dim)


def space(dim: int, steps: int) -> tuple[Tensor, Tensor]:
    """Points [steps^dim, dim] for an integral over all of R^dim, and the weight of each: x = 1.5 + sinh t, dx = cosh t dt."""
    t = torch.linspace(-10, 10, steps, dtype=torch.float64)
    points, weights = 1.5 + t.sinh(), t.cosh() * (t[1] - t[0])
    if dim == 1:
        return points[:, None], weights
    return torch.cartesian_prod(*[points] * dim), torch.cartesian_prod(*[weights] * dim).prod(1)


# A density, and draws from it.


@pytest.mark.parametrize(("dim", "steps"), [(1, 10_000), (2, 400)])
@pytest.mark.parametrize("name", NAMES)
def test_a_density_of_the_line_or_the_plane_integrates_to_one(name, dim, steps):
    points, weights = space(dim, steps)
    with torch.no_grad():
        assert float(small(name, dim).log_prob(points).exp() @ weights) == pytest.approx(1, abs=3e-3)


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_of_the_density(name):
    # The mean of log p over draws is minus the entropy, and the mean of x is its mean: both are integrals over the plane.
    density, (points, weights) = small(name, 2), space(2, 400)
    with torch.no_grad():
        log_prob = density.log_prob(points)
        draws = density.sample(2500, torch.Generator().manual_seed(0))
        found = torch.cat([density.log_prob(draws)[:, None], draws], dim=1)
    expected = (log_prob.exp() * weights) @ torch.cat([log_prob[:, None], points], dim=1)
    error = found.std(0) / math.sqrt(2500)
    assert ((found.mean(0) - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("name", NAMES)
def test_draws_come_from_the_generator_alone(name):
    density, state = small(name, 3), torch.get_rng_state()
    first, second = (density.sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, density.sample(5, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_far_from_all_others_is_improbable_and_no_nan(name):
    density = small(name, 4).float()
    far = density.log_prob(torch.tensor([[1e3], [-1e3], [1e6], [1e10]]).expand(4, 4))
    assert not far.isnan().any()
    assert (far < -100).all()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_which_no_density_can_be_learned_are_refused(name):
    density = DENSITIES.build({"name": name, **DENSITIES[name].small}, 3)
    constant, missing = vectors(10, 3), vectors(10, 3)
    constant[:, 1] = 4.0
    missing[6, 2] = math.nan
    with pytest.raises(ValueError, match="dimensions 1 of the vectors never vary"):
        density.begin(constant)
    with pytest.raises(ValueError, match="NaN"):
        density.begin(missing)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_on_fewer_vectors_than_dimensions_leaves_everything_finite(name):
    density = DENSITIES.build({"name": name, **DENSITIES[name].small}, 9)
    few = vectors(2, 9)
    density.begin(few)
    density.train()
    density.log_prob(few[:1]).sum().backward()  # batches of one, too
    assert all(parameter.grad.isfinite().all() for parameter in density.parameters() if parameter.grad is not None)
    assert density.eval().log_prob(few).isfinite().all()


# Mixtures.


def test_a_mixture_is_that_of_torch():
    parameters, x = torch.randn(7, 4, 15).double(), torch.randn(7, 4).double()
    logits, means, log_scales = parameters.chunk(3, dim=-1)
    expected = distributions.MixtureSameFamily(
        distributions.Categorical(logits=logits), distributions.Normal(means, log_scales.exp())
    )
    torch.testing.assert_close(mixture_log_prob(parameters, x), expected.log_prob(x))


def test_a_draw_of_a_mixture_is_of_the_gaussian_that_the_uniform_number_falls_in():
    # Shares 0.25 and 0.75, means 1 and 5, spreads 0.1 and 2; of the noise -1 is one spread below.
    parameters = [math.log(0.25), math.log(0.75), 1.0, 5.0, math.log(0.1), math.log(2)]
    uniform = torch.tensor([0.0, 0.24, 0.26, 1.0])
    drawn = mixture_draw(torch.tensor(parameters).expand(4, -1), uniform, -torch.ones(4))
    torch.testing.assert_close(drawn, torch.tensor([0.9, 0.9, 3.0, 3.0]))


def test_a_gaussian_cannot_close_upon_a_vector_for_ever():
    narrow = torch.tensor([0.0, 0.0, -1e4])  # one Gaussian at 0
    assert mixture_log_prob(narrow, torch.tensor(0.0)) == pytest.approx(10 - math.log(2 * math.pi) / 2)


# MADE.


@pytest.mark.parametrize("ranks", [torch.arange(5), torch.arange(5).flip(0), torch.tensor([2, 0, 4, 1, 3])])
def test_a_mixture_depends_on_every_dimension_of_lower_rank_and_no_other(ranks):
    torch.manual_seed(0)
    made = MADE(ranks, num_components=2, hidden_dims=(32, 32)).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: made.mixtures(x[None])[0], vectors(1, 5)[0].double())
    assert torch.equal(jacobian.abs().sum(1) > 0, ranks[:, None] > ranks)


def test_the_conditionals_of_made_sum_to_its_density():
    density, x = small("made-mog", 4), vectors(6, 4).double()
    torch.testing.assert_close(density.conditionals(x).sum(1), density.log_prob(x))


@pytest.mark.parametrize("name", ["made-mog", "maf-mog", "maf-ddsf"])
def test_a_layer_too_narrow_to_pass_every_dimension_on_is_refused(name):
    with pytest.raises(ValueError, match="hidden_dims must be one or more layers of at least 8 units"):
        DENSITIES.build({"name": name, **DENSITIES[name].small, "hidden_dims": [16, 7]}, 9)


# Deep RNADE.


def test_the_training_estimate_has_no_bias():
    # Over all numbers observed and all sets of so many, its mean is that of the exact log-likelihoods over all orderings.
    density, x = small("rnade-deep", 3), vectors(4, 3).double()
    exact = torch.stack([density._along(list(ordering), x).sum(1) for ordering in itertools.permutations(range(3))]).mean(0)
    means = []
    for number in range(3):
        sets = [torch.tensor([i in chosen for i in range(3)]) for chosen in itertools.combinations(range(3), number)]
        means.append(torch.stack([density.estimate(x, observed.expand(4, 3)) for observed in sets]).mean(0))
    torch.testing.assert_close(torch.stack(means).mean(0), exact)


def test_training_observes_every_number_of_dimensions_but_all_as_often():
    masks = random_masks(6000, 3, torch.device("cpu"))
    counts = masks.sum(1).bincount(minlength=4)
    assert counts[3] == 0
    assert counts[:3].tolist() == pytest.approx([2000] * 3, rel=0.1)
    assert masks.float().mean(0).tolist() == pytest.approx([1 / 3] * 3, rel=0.1)


def test_train_mode_estimates_and_eval_mode_is_exact():
    density, x = small("rnade-deep", 5), vectors(3, 5).double()
    assert torch.equal(density.log_prob(x), density.log_prob(x))
    density.train()
    assert not torch.equal(density.log_prob(x), density.log_prob(x))


def test_a_mixture_of_orderings_is_the_mean_of_their_densities():
    density, x = small("rnade-deep", 4, ordering="random", num_orderings=3), vectors(5, 4).double()
    single = []
    orderings = density.orderings
    for number in range(3):
        density.orderings = orderings[number : number + 1]
        single.append(density.log_prob(x).exp())
    density.orderings = orderings
    torch.testing.assert_close(density.log_prob(x).exp(), torch.stack(single).mean(0))
    assert density.sample(7, torch.Generator().manual_seed(0)).shape == (7, 4)
    assert "conditionals" not in density.provides


def test_training_begins_with_gaussians_spread_over_the_range_of_each_dimension():
    # Three means cut the range into four; the network's own part starts near 0.
    density = DENSITIES.build({"name": "rnade-deep", "num_components": 3, "hidden_dims": [8], "standardize": False}, 2)
    density.begin(torch.tensor([[0.0, -2.0], [4.0, 6.0], [1.0, 1.0]]))
    logits, means, log_scales = density.output.bias.view(2, 3, 3).unbind(1)
    torch.testing.assert_close(means, torch.tensor([[1.0, 2.0, 3.0], [0.0, 2.0, 4.0]]))
    torch.testing.assert_close(log_scales.exp(), torch.tensor([[1.0] * 3, [2.0] * 3]))
    assert not logits.any()


# Flows.


@pytest.mark.parametrize("name", FLOWS)
def test_the_density_is_that_of_the_code_times_the_change_of_volume(name):
    density = small(name, 4, standardize=False)

    def code(x: Tensor) -> Tensor:
        x = x[None]
        for bijection in density.bijections:
            x, _ = bijection(x)
        return x[0]

    for x in vectors(3, 4).double():
        volume = torch.linalg.slogdet(torch.autograd.functional.jacobian(code, x)).logabsdet
        torch.testing.assert_close(density.log_prob(x[None])[0], density.base.log_prob(code(x)[None])[0] + volume)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_undone_to_five_digits(name):
    density = small(name, 6).float()
    x = z = (vectors(50, 6) - density.shift) / density.scale
    with torch.no_grad():
        for bijection in density.bijections:
            z, _ = bijection(z)
        for bijection in reversed(density.bijections):
            z = bijection.inverse(z)
    torch.testing.assert_close(z, x, atol=1e-5, rtol=1e-5)


def test_coupling_layers_take_turns_in_what_they_keep():
    layers = [part for part in small("real-nvp", 5).bijections if not isinstance(part, BatchNorm)]
    for number, layer in enumerate(layers):
        jacobian = torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x[None])[0][0], vectors(1, 5)[0].double())
        kept = [i for i in range(5) if torch.equal(jacobian[i], torch.eye(5).double()[i])]
        assert kept == ([0, 2, 4] if number % 2 == 0 else [1, 3])
        assert (jacobian.diag() > 0).all()
        assert all(jacobian[i, j] != 0 for i in range(5) if i not in kept for j in kept)


@pytest.mark.parametrize("name", ["maf-mog", "maf-ddsf"])
def test_layers_are_triangular_in_orders_that_take_turns(name):
    density, x = small(name, 4), vectors(1, 4)[0].double()
    layers = [part for part in density.bijections if not isinstance(part, BatchNorm)][:2]
    for number, layer in enumerate(layers):
        jacobian = torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x[None])[0][0], x)
        assert torch.equal(jacobian != 0, torch.ones(4, 4).bool().tril() if number == 0 else torch.ones(4, 4).bool().triu())
        assert (jacobian.diag() > 0).all()


def test_the_mixtures_upon_a_flow_go_against_the_order_of_its_last_layer():
    assert small("maf-mog", 4, num_layers=2).base.order == [0, 1, 2, 3]
    assert small("maf-mog", 4, num_layers=3).base.order == [3, 2, 1, 0]


# Batch normalisation.


def test_a_batch_comes_out_with_the_mean_and_spread_that_are_learned():
    norm = BatchNorm(3).double()
    with torch.no_grad():
        norm.log_gamma.copy_(torch.tensor([0.0, 1.0, -1.0]))
        norm.beta.copy_(torch.tensor([0.0, 5.0, -2.0]))
    z, log_det = norm(vectors(500, 3).double())
    torch.testing.assert_close(z.mean(0), norm.beta.detach())
    torch.testing.assert_close(z.std(0, correction=0), norm.log_gamma.detach().exp(), atol=1e-4, rtol=1e-4)
    spread = vectors(500, 3).double().std(0, correction=0)
    torch.testing.assert_close(log_det, (norm.log_gamma - spread.log()).sum().expand(500), atol=1e-3, rtol=0)


def test_running_statistics_are_the_mean_over_batches_and_then_move():
    norm, batches = BatchNorm(2, momentum=0.25), vectors(50, 2).view(5, 10, 2)
    for batch in batches[:4]:
        norm(batch)
    torch.testing.assert_close(norm.mean, batches[:4].mean((0, 1)))
    torch.testing.assert_close(norm.var, batches[:4].var(1, correction=0).mean(0))
    norm(batches[4])
    torch.testing.assert_close(norm.mean, 0.75 * batches[:4].mean((0, 1)) + 0.25 * batches[4].mean(0))


def test_eval_mode_normalises_by_the_running_statistics_and_leaves_them():
    norm = BatchNorm(2)
    norm(vectors(50, 2))
    norm.eval()
    before, x = norm.mean.clone(), vectors(7, 2, seed=1)
    torch.testing.assert_close(norm(x)[0], (x - norm.mean) / (norm.var + norm.eps).sqrt())
    torch.testing.assert_close(norm.inverse(norm(x)[0]), x)
    assert torch.equal(norm.mean, before)


# Deep dense sigmoidal flow.


def sigmoids(num_units: int = 4, num_layers: int = 2) -> tuple[DenseSigmoids, Tensor]:
    """Sigmoids with weights as if trained, and parameters for 60 numbers."""
    torch.manual_seed(0)
    flow = DenseSigmoids(num_units, num_layers).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter)
    return flow, torch.randn(60, flow.num_parameters).double()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_sigmoidal_flow_is_its_equation_and_its_slope_the_derivative(num_layers):
    # Eq. 9 as it stands, with whole matrices of shares and no logarithms; the slope by differentiation.
    flow, parameters = sigmoids(num_layers=num_layers)
    x = torch.linspace(-3, 3, 60).double().requires_grad_()
    h, rest = x[:, None], parameters
    for number in range(num_layers):
        a, b, w, rest = rest[:, :4], rest[:, 4:8], rest[:, 8:12], rest[:, 12:]
        inner = h
        if number > 0:
            u, rest = rest[:, :4], rest[:, 4:]
            inner = ((flow.u[number - 1] + u[:, None]).softmax(-1) * h[:, None]).sum(-1)
        slope = F.softplus(a + math.log(math.exp(1 - 1e-6) - 1)) + 1e-6
        h = torch.logit(((flow.w[number] + w[:, None]).softmax(-1) * torch.sigmoid(slope * inner + b)[:, None]).sum(-1))
    (derivative,) = torch.autograd.grad(h.sum(), x)
    y, log_slope = flow(x, parameters)
    torch.testing.assert_close(y, h[:, 0])
    torch.testing.assert_close(log_slope, derivative.log())


def test_sigmoidal_flow_rises_everywhere_with_tails_that_stay_finite():
    flow, parameters = sigmoids()
    x = torch.cat([-torch.logspace(6, -3, 200), torch.logspace(-3, 6, 200)])
    y, log_slope = flow.float()(x, parameters[:1].float().expand(400, -1))
    assert (y.diff() > 0).all()
    assert y.isfinite().all()
    assert log_slope.isfinite().all()


def test_one_layer_of_sigmoids_can_be_the_distribution_function_of_any_mixture_of_logistics():
    # sum_k w_k sigmoid((x - m_k) / s_k) is that function F; logit takes F(x) to a logistic variable. Such mixtures are dense.
    flow = DenseSigmoids(3, 1).double()
    nn.init.zeros_(flow.w[0])
    shares, means, spreads = torch.tensor([[0.2, 0.5, 0.3], [-4.0, 0.0, 3.0], [0.1, 1.0, 0.3]], dtype=torch.float64)
    slopes = 1 / spreads - 1e-6
    parameters = torch.cat([slopes.expm1().log() - math.log(math.expm1(1 - 1e-6)), -means / spreads, shares.log()])
    x = torch.linspace(-8, 8, 100).double()
    expected = torch.logit((shares * torch.sigmoid((x[:, None] - means) / spreads)).sum(1))
    torch.testing.assert_close(flow(x, parameters.expand(100, -1))[0], expected)


def test_sigmoidal_flow_is_undone_by_bisection():
    flow, parameters = sigmoids()
    x = torch.linspace(-500, 500, 60).double()
    y, _ = flow(x, parameters)
    torch.testing.assert_close(flow.inverse(y, parameters), x)


def test_a_layer_of_sigmoids_starts_as_the_identity():
    layer, x = NeuralAutoregressive(torch.arange(3), (16,), 4, 2), vectors(20, 3)
    z, log_det = layer(x)
    torch.testing.assert_close(z, x, atol=0.05, rtol=0)
    torch.testing.assert_close(log_det, torch.zeros(20), atol=0.05, rtol=0)
