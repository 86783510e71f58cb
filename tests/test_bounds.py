"""Bounds of log p(x), on a linear model whose log p(x) is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.losses.bounds import GaussianPixels, gaussian_log_prob, importance_bound
from genae.models.variational import BoundedVariational
from genae.objectives.elbo import Elbo
from genae.registry import MODELS
from genae.schedule import Growth, Phase

PHASE = Phase(
    index=0, resolution=2, fade=1.0, settled=True, batch_size=4, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)
STD = 0.3  # of pixels in [0, 1]
SCALES = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)  # decoded pixel in [-1, 1] = scale * code

# With codes from N(0, I), a pixel in [0, 1] is 1/2 + scale / 2 * code + STD * noise: N(1/2, scale^2 / 4 + STD^2). The code of
# the pixel x is Gaussian too, of precision 1 + (scale / 2)^2 / STD^2 and mean (scale / 2) (x - 1/2) / STD^2 / precision.
PRECISION = 1 + (SCALES / 2 / STD).square()


class Posterior(nn.Module):
    def __init__(self, widened: float) -> None:
        super().__init__()
        self.widened = widened

    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        mean = SCALES / 2 * (images.flatten(1) / 2) / STD**2 / PRECISION
        return torch.cat([mean, (self.widened**2 / PRECISION).log().expand_as(mean)], dim=1)


class Scale(nn.Module):
    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        return (codes * SCALES).reshape(-1, 1, 2, 2)


def model(widened: float = 1.0, std: float | None = STD) -> BoundedVariational:
    return BoundedVariational(Gaussian(4), Posterior(widened), Scale(), GaussianPixels(std))


def images(n: int = 6) -> Tensor:
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def log_p() -> Tensor:
    return torch.distributions.Normal(0.5, (SCALES.square() / 4 + STD**2).sqrt()).log_prob((images().flatten(1) + 1) / 2).sum(1)


def bound(num_draws: int, **settings) -> Tensor:
    return model(**settings).bound(images(), num_draws, torch.Generator().manual_seed(1))


def test_with_the_exact_posterior_one_draw_gives_log_p_itself():
    torch.testing.assert_close(bound(1), log_p())
    torch.testing.assert_close(bound(7), log_p())


def test_with_another_posterior_the_bound_is_low_by_their_divergence_and_more_draws_close_the_gap():
    # KL(N(m, (1.5 s)^2) || N(m, s^2)) = (1.5^2 - 1) / 2 - log 1.5 in each of the four dimensions.
    gap = 4 * ((1.5**2 - 1) / 2 - math.log(1.5))
    single = torch.stack([model(1.5).bound(images(), 1, torch.Generator().manual_seed(seed)) for seed in range(1000)])
    assert (log_p() - single.mean(0)).tolist() == pytest.approx([gap] * 6, abs=0.2)
    few, many = (log_p() - bound(draws, widened=1.5) for draws in (10, 2000))
    assert many.abs().max() < 0.15
    assert many.abs().mean() < few.abs().mean()


def test_the_objective_with_gaussian_pixels_lowers_the_bound():
    # -E[log p(x | z)] + KL(q || p) of the exact posterior is -log p(x), on average over draws.
    objective = Elbo(distance="gaussian", kl_weight=1.0, pixels="sum", latents="sum")
    found = [
        sum(objective.terms(model(), images(), PHASE, torch.Generator().manual_seed(seed)).values()) for seed in range(1000)
    ]
    assert torch.stack(found).mean().item() == pytest.approx(-log_p().mean().item(), abs=0.1)


def test_the_spread_of_pixels_is_learned_to_be_that_of_the_residuals():
    observation = GaussianPixels()
    decoded = images(500)
    residuals = 0.4 * torch.randn(decoded.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    optimizer = torch.optim.Adam(observation.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-observation.log_prob(decoded + residuals, decoded).mean()).backward()
        optimizer.step()
    # Most likely is the root mean square, in [0, 1] half of what it is in [-1, 1].
    assert (observation.log_var / 2).exp().item() == pytest.approx(residuals.square().mean().sqrt().item() / 2, rel=1e-3)


def test_pixels_reproduced_exactly_do_not_make_the_likelihood_endless():
    observation = GaussianPixels()
    with torch.no_grad():
        observation.log_std.fill_(-1000.0)
    exact = observation.log_prob(images(), images())
    assert exact.tolist() == pytest.approx([4 * math.log(256 / math.sqrt(2 * math.pi))] * 6)


def test_a_density_of_rows_is_the_product_over_the_rest():
    x = images().float()
    expected = torch.distributions.Normal(1.0, 2.0).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_log_prob(x, 1.0, 2 * math.log(2.0)), expected)


def test_weights_that_no_float_can_hold_leave_a_sound_bound():
    log_weights = torch.tensor([[-2000.0, 3000.0], [-2001.0, 2000.0]])
    found = importance_bound(log_weights).tolist()
    assert found == pytest.approx([-2000 + math.log1p(math.exp(-1)) - math.log(2), 3000 - math.log(2)], rel=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="must be positive, not 0"):
        GaussianPixels(0.0)
    with pytest.raises(ValueError, match="num_draws must be at least 1, not 0"):
        bound(0)
    without = MODELS.build({"name": "vae-classic", **MODELS["vae-classic"].small}, (1, 8, 8))
    with pytest.raises(ValueError, match="vae"):
        Elbo(distance="gaussian").updates(without)
