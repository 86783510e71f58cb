"""The latent density estimator against its network in plain convolutions, against quadrature, and against float32's limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genae.densities import latent_density_estimator
from genae.densities.latent_density_estimator import LatentDensityEstimator, Steps, TrainedLayer
from genae.objectives.likelihood import Likelihood
from genae.registry import DENSITIES


def small(dim: int, off_start: bool = True, **options) -> LatentDensityEstimator:
    """A small estimator in eval mode, its parameters and running statistics away from their starting values."""
    torch.manual_seed(0)
    density = LatentDensityEstimator(dim, **{"mixtures": 3, "width": 4, **options})
    if off_start:
        with torch.no_grad():
            for parameter in density.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            for layer in density.layers:
                layer.norm.running_mean.normal_(std=0.2)
                layer.norm.running_var.uniform_(0.5, 1.5)
    return density.eval()


def vectors(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


class Plain(nn.Module):
    """The released network, in plain convolutions over zeros and vector, with the weights of `ours`."""

    def __init__(self, ours: LatentDensityEstimator) -> None:
        super().__init__()
        self.dim, layers = ours.dim, []
        for index, layer in enumerate(ours.layers):
            width, before = layer.past.weight.shape
            conv, norm = nn.Conv1d(before, width, 2, dilation=2**index), nn.BatchNorm1d(width)
            conv.weight.data = torch.stack([layer.past.weight.data, layer.present.weight.data], 2)
            conv.bias.data = layer.present.bias.data.clone()
            layers += [conv, norm, nn.LeakyReLU(0.2)]
        head = nn.Conv1d(ours.head.in_features, ours.head.out_features, 1)
        head.weight.data, head.bias.data = ours.head.weight.data[:, :, None].clone(), ours.head.bias.data.clone()
        self.network = nn.Sequential(*layers, head).to(ours.device)
        for norm, layer in zip(self.norms(), ours.layers, strict=True):
            norm.to(layer.norm.weight).load_state_dict(layer.norm.state_dict())
        self.train(ours.training)

    def norms(self) -> list[nn.BatchNorm1d]:
        return [module for module in self.network if isinstance(module, nn.BatchNorm1d)]

    def convolutions(self) -> list[nn.Conv1d]:
        return [module for module in self.network if isinstance(module, nn.Conv1d)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mu, log sigma and the logits of pi, [N, D, K] each, of vectors [N, D]."""
        padded = torch.zeros(len(x), 2, 2 ** math.ceil(math.log2(self.dim)) + self.dim - 1, dtype=x.dtype)
        padded[:, 0, padded.shape[2] - self.dim + 1 :] = x[:, :-1]
        padded[:, 1, padded.shape[2] - self.dim + 1 :] = 1
        output = self.network(padded)
        assert output.shape[2] == self.dim
        return output.transpose(1, 2).chunk(3, 2)

    def probabilities(self, x: Tensor, min_sigma: float) -> Tensor:
        """p(x_i | x_<i) [N, D]: Eq. 3 as it stands, with no logarithm."""
        mean, log_sigma, logits = self(x)
        sigma = log_sigma.exp() + min_sigma
        gaussians = (-((x[..., None] - mean) ** 2) / (2 * sigma**2)).exp() / (sigma * math.sqrt(2 * math.pi))
        return (logits.softmax(2) * gaussians).sum(2)


# The released network.


@pytest.mark.parametrize("batch_size", [1, 5, 16])
@pytest.mark.parametrize("dim", [1, 2, 3, 8, 13])
def test_loss_gradients_and_statistics_are_those_of_plain_convolutions(dim, batch_size):
    ours = small(dim).double().train()
    plain, x = Plain(ours), vectors(batch_size, dim).double()
    expected, found = -plain.probabilities(x, ours.min_sigma).log().mean(), -ours.log_prob(x).mean() / dim
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    for conv, layer in zip(plain.convolutions(), ours.layers, strict=False):
        torch.testing.assert_close(layer.past.weight.grad, conv.weight.grad[:, :, 0])
        torch.testing.assert_close(layer.present.weight.grad, conv.weight.grad[:, :, 1])
        torch.testing.assert_close(layer.present.bias.grad, conv.bias.grad, atol=1e-9, rtol=0)  # zero: BatchNorm follows
    torch.testing.assert_close(ours.head.weight.grad, plain.convolutions()[-1].weight.grad[:, :, 0])
    for norm, layer in zip(plain.norms(), ours.layers, strict=True):
        torch.testing.assert_close(layer.norm.weight.grad, norm.weight.grad)
        torch.testing.assert_close(layer.norm.bias.grad, norm.bias.grad)
        torch.testing.assert_close(dict(layer.norm.named_buffers()), dict(norm.named_buffers()))
    torch.testing.assert_close(ours.eval().conditionals(x), plain.eval().probabilities(x, ours.min_sigma).log())


def test_the_loss_stays_that_of_plain_convolutions_through_training_in_float32():
    ours = small(63, off_start=False, mixtures=30, width=16).train()
    plain = Plain(ours)
    steps = [(network, torch.optim.Adam(network.parameters(), lr=1e-3)) for network in (ours, plain)]
    for seed in range(2):
        x, losses = vectors(8, 63, seed).cumsum(1) / 8, []
        for network, optimizer in steps:
            log_prob = ours.log_prob(x) if network is ours else plain.probabilities(x, ours.min_sigma).log().sum(1)
            losses.append(-log_prob.mean() / 63)
            losses[-1].backward()
            optimizer.step()
            optimizer.zero_grad()
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-4)


@pytest.mark.parametrize(("dim", "thousands"), [(63, 398), (8, 11)])
def test_the_defaults_have_as_many_parameters_as_the_released_network(dim, thousands):
    density = DENSITIES.build({"name": "lde"}, dim)
    assert sum(parameter.numel() for parameter in density.parameters()) // 1000 == thousands


def test_channels_double_from_one_convolution_to_the_next():
    density = LatentDensityEstimator(15)
    assert [layer.present.out_features for layer in density.layers] == [16, 32, 64, 128]
    assert [layer.dilation for layer in density.layers] == [1, 2, 4, 8]


def test_the_gradient_by_hand_is_the_gradient():
    torch.manual_seed(0)
    shapes = (5, 2, 3), (3,), (4, 3), (4, 3), (4,), (4,), (4,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    for dilation, copies in ((1, 14), (4, 8), (8, 2)):
        assert torch.autograd.gradcheck(lambda *x, d=dilation, c=copies: TrainedLayer.apply(*x, d, c, 1e-5)[:2], inputs)


def test_bfloat16_around_it_leaves_the_density_in_float32():
    density, x = small(8), vectors(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(density.log_prob(x), small(8).log_prob(x))


# A density.


def test_the_density_of_the_line_integrates_to_one():
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)[:, None]
    total = small(1).double().log_prob(grid).exp().sum() * 0.01
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_the_density_of_the_plane_integrates_to_one():
    axis = torch.linspace(-16, 16, 641, dtype=torch.float64)
    with torch.no_grad():
        total = small(2).double().log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * 0.05**2
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dim", [2, 5, 16])
def test_a_dimension_changes_what_is_said_of_later_ones_alone(dim):
    density, x = small(dim).double(), vectors(4, dim).double()
    given = density.parameters_given(x)  # [D, N, 3K]
    for index in range(dim):
        other = x.clone()
        other[:, index] += 1
        changed = (density.parameters_given(other) != given).any(2).all(1)
        assert changed.tolist() == [later > index for later in range(dim)]


def test_standardised_the_density_is_of_the_vectors_as_they_came():
    # p(x) = p(u) / prod(scale), u = (x - shift) / scale: the same network on vectors that are moved and stretched.
    x, shift, scale = vectors(500, 4), torch.tensor([3.0, 0.0, -2.0, 50.0]), torch.tensor([1.0, 0.01, 20.0, 3.0])
    plain, moved = small(4, standardize=True), small(4, standardize=True)
    plain.begin(x)
    moved.begin(x * scale + shift)
    torch.testing.assert_close(moved.log_prob(x * scale + shift), plain.log_prob(x) - scale.log().sum(), atol=1e-3, rtol=1e-4)


# Sampling.


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_a_step_with_its_past_says_what_a_whole_pass_says(dim):
    density, x = small(dim, width=2), vectors(10, dim)
    steps = Steps(density, 10)
    found = torch.stack([steps.next(x[:, index - 1] if index else None) for index in range(dim)])
    torch.testing.assert_close(found, density.parameters_given(x), atol=1e-5, rtol=1e-5)


def test_samples_are_those_of_whole_passes_with_the_same_noise():
    density = small(9).double()
    plain, drawn = Plain(density), torch.zeros(6, 9, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    choices, noise = torch.rand(6, 9, generator=generator).double(), torch.randn(6, 9, generator=generator).double()
    for index in range(9):
        mean, log_sigma, logits = (part[:, index] for part in plain(drawn))
        ends = logits.softmax(1).cumsum(1)  # component k has the numbers from the end of k - 1 to its own
        component = (ends < choices[:, index, None]).sum(1)
        row = torch.arange(6)
        drawn[:, index] = mean[row, component] + (log_sigma[row, component].exp() + 1e-4) * noise[:, index]
    torch.testing.assert_close(density.sample(6, torch.Generator().manual_seed(5)), drawn)


def test_many_vectors_are_drawn_in_parts_and_are_the_same(monkeypatch):
    density = small(5).double()
    whole = density.sample(11, torch.Generator().manual_seed(0))
    monkeypatch.setattr(latent_density_estimator, "AT_ONCE", 4)
    torch.testing.assert_close(density.sample(11, torch.Generator().manual_seed(0)), whole)


def test_sampling_uses_the_running_statistics_in_either_mode_and_leaves_them():
    density = small(4)
    state = {key: value.clone() for key, value in density.state_dict().items()}
    drawn = [density.train(mode).sample(5, torch.Generator().manual_seed(0)) for mode in (True, False)]
    assert torch.equal(*drawn)
    assert all(torch.equal(value, state[key]) for key, value in density.state_dict().items())


# Extremes.

EXTREME = st.sampled_from([0.0, 1e-45, -1e-30, 1.0, -1e3, 1e7, -1e15, 1e19, -1e30, 3.4e38, -3.4e38]) | st.floats(
    width=32
).filter(math.isfinite)


@settings(max_examples=60, deadline=None)
@given(x=st.lists(st.tuples(*[EXTREME] * 3), min_size=2, max_size=4), training=st.booleans())
def test_no_finite_vector_has_a_log_density_or_a_gradient_that_is_not_finite(x, training):
    density = small(3).train(training)
    log_prob = density.log_prob(torch.tensor(x, dtype=torch.float32))
    assert log_prob.isfinite().all()
    log_prob.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in density.parameters())


@settings(max_examples=60, deadline=None)
@given(outputs=st.lists(EXTREME, min_size=9, max_size=9))
def test_no_finite_output_of_the_head_gives_a_log_density_that_is_not_finite(outputs):
    density = small(2)
    with torch.no_grad():
        density.head.weight.zero_()
        density.head.bias.copy_(torch.tensor(outputs))
    assert not density.log_prob(torch.tensor([[0.5, -1e3]])).isnan().any()
    assert not density.sample(3, torch.Generator()).isnan().any()


def test_a_value_that_repeats_has_a_bounded_likelihood():
    # log N(mu; mu, sigma^2) = -log(sigma sqrt(2 pi)), and sigma is above min_sigma whatever the head says.
    density = small(1, mixtures=1, min_sigma=1e-3)
    with torch.no_grad():
        density.head.bias.copy_(torch.tensor([0.7, -1e30, 0.0]))
    assert density.log_prob(torch.tensor([[0.7]])).item() == pytest.approx(-math.log(1e-3 * math.sqrt(2 * math.pi)), rel=1e-5)


def test_without_a_least_sigma_it_is_the_exponential():
    density = small(1, mixtures=1, min_sigma=0.0)
    with torch.no_grad():
        density.head.bias.copy_(torch.tensor([0.0, -9.0, 0.0]))
    expected = torch.distributions.Normal(0.0, math.exp(-9)).log_prob(torch.tensor(2e-4)).item()
    assert density.log_prob(torch.tensor([[2e-4]])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("count", "dim", "mixtures"), [(3, 20, 3), (4, 5, 30)])
def test_fewer_vectors_than_dimensions_or_than_components_train_soundly(count, dim, mixtures):
    density, x = small(dim, off_start=False, mixtures=mixtures), vectors(count, dim)
    density.begin(x)
    optimizer = torch.optim.Adam(density.train().parameters(), lr=1e-2)
    before = density.log_prob(x).mean()
    for _ in range(20):
        optimizer.zero_grad()
        (-density.log_prob(x).mean()).backward()
        optimizer.step()
    assert density.log_prob(x).mean() > before
    assert density.eval().sample(4, torch.Generator()).isfinite().all()


def test_the_released_loss_is_the_likelihood_objective_with_its_floor():
    density, x = small(6).double(), vectors(4, 6).double()
    x[0, 5] = 1e4  # where p is 0, and the cost is capped; no later dimension sees it
    objective = Likelihood(unit="nats", levels=None, floor=1e-12)
    assert objective.needs <= density.provides
    (found,) = objective.terms(density, x, None, torch.Generator()).values()
    expected = -(Plain(density).probabilities(x, density.min_sigma) + 1e-12).log().mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("setting", "value"), [("mixtures", 0), ("width", 0), ("min_sigma", -1.0)])
def test_settings_that_no_network_can_have_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} must be at least"):
        LatentDensityEstimator(3, **{setting: value})
