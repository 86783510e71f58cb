"""The evidence lower bound and plain reconstruction, on autoencoders simple enough to compute by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder
from genae.models.variational import Variational
from genae.objectives.elbo import Elbo
from genae.objectives.reconstruction import Reconstruction
from genae.schedule import Growth, Phase

PHASE = Phase(
    index=0, resolution=2, fade=1.0, settled=True, batch_size=4, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)


class FixedPosterior(nn.Module):
    """Mean = the image's pixels; log variance = one number for all."""

    def __init__(self, log_var: float) -> None:
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(log_var))

    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        return torch.cat([images.flatten(1), self.log_var.expand(len(images), 4)], dim=1)


class Reshape(nn.Module):
    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        return codes.reshape(-1, 1, 2, 2)


class Halve(nn.Module):
    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        return images.flatten(1) / 2


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def elbo_terms(log_var: float, n: int = 4, **settings) -> dict[str, Tensor]:
    model = Variational(Gaussian(4), FixedPosterior(log_var), Reshape())
    return Elbo(**settings).terms(model, images(n), PHASE, torch.Generator().manual_seed(1))


def test_the_divergence_is_that_of_the_posterior_times_its_weight():
    log_var = math.log(0.25)
    each = (images().flatten(1) ** 2 + 0.25 - 1 - log_var) / 2
    assert elbo_terms(log_var)["kl"].item() == pytest.approx(0.005 * each.sum(1).mean().item())
    assert elbo_terms(log_var, latents="mean", kl_weight=2.0)["kl"].item() == pytest.approx(2 * each.mean().item())


def test_the_reconstruction_sees_codes_drawn_from_the_posterior():
    # The decoder returns the drawn code, mean + std * noise, so the error is the noise: E[error^2] = std^2.
    assert elbo_terms(math.log(0.25), n=5000)["reconstruction"].item() == pytest.approx(0.25, rel=0.05)
    assert elbo_terms(-60.0)["reconstruction"].item() == pytest.approx(0, abs=1e-8)
    expected_absolute = 0.5 * math.sqrt(2 / math.pi)
    assert elbo_terms(math.log(0.25), n=5000, distance="l1")["reconstruction"].item() == pytest.approx(
        expected_absolute, rel=0.05
    )


def test_pixels_are_averaged_or_summed():
    mean, total = (elbo_terms(0.0, pixels=pixels)["reconstruction"] for pixels in ("mean", "sum"))
    torch.testing.assert_close(total, 4 * mean)


def test_the_noise_is_the_given_generators():
    torch.testing.assert_close(elbo_terms(0.0), elbo_terms(0.0))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_plain_reconstruction_is_the_mean_over_pixels(distance):
    model = Autoencoder(Gaussian(4), Halve(), Reshape())  # decodes to half the image
    found = Reconstruction(distance=distance).terms(model, images(), PHASE, torch.Generator())["reconstruction"]
    half = images() / 2
    torch.testing.assert_close(found, half.abs().mean() if distance == "l1" else half.square().mean())
