"""Variational autoencoders (Kingma & Welling, 2014) on the networks of the papers that compare themselves with one.

For Table 2a of the automodulator paper: VAE-AdaIn has the automodulator's decoder, VAE-classic that of Balanced PIONEER; the
encoder is the same progressive one, its last convolution giving mean and log variance. The paper says no more of them than KLD
weight and learning rates.

For Fig. 2 of Yoo et al. (2019), `vae` has the networks of their AE and IAE, and gives pixels a density, so that it has a bound.
"""

import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.losses.bounds import GaussianPixels, gaussian_log_prob, importance_bound
from genae.models.autoencoder import Autoencoder
from genae.networks import dcgan
from genae.networks.adain import AdaInDecoder
from genae.networks.progressive import PUBLISHED_CHANNELS, ProgressiveDecoder, ProgressiveEncoder
from genae.registry import MODELS
from genae.rows import by_rows
from genae.schedule import Growth


class Variational(Autoencoder):
    """An autoencoder whose encoder gives a Gaussian per image, `encoder(images, growth) -> [N, 2 D]`: mean, log variance."""

    def __init__(self, latent: Gaussian, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(latent, encoder, decoder)

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"posterior"}

    def posterior(self, images: Tensor, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """q(z | x) of each image: mean and log variance, [N, D] each."""
        mean, log_var = by_rows(self.encoder, images, growth).chunk(2, dim=1)
        return mean, log_var

    def encode(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] -> the posterior's mean [N, D]."""
        return self.posterior(images, growth)[0]


@MODELS.add("vae-adain", small={"latent_dim": 8, "channels": [8, 8, 4]})
def vae_adain(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    noise: bool = True,
) -> Variational:
    """VAE-AdaIn of Table 2a: Gaussian posterior, the automodulator's decoder."""
    encoder = ProgressiveEncoder(shape, 2 * latent_dim, channels=channels)
    return Variational(Gaussian(latent_dim), encoder, AdaInDecoder(latent_dim, shape, channels=channels, noise=noise))


@MODELS.add("vae-classic", small={"latent_dim": 8, "channels": [8, 8, 4]})
def vae_classic(
    shape: tuple[int, int, int], *, latent_dim: int = 512, channels: tuple[int, ...] = PUBLISHED_CHANNELS
) -> Variational:
    """VAE-classic of Table 2a: Gaussian posterior, the decoder of Balanced PIONEER."""
    encoder = ProgressiveEncoder(shape, 2 * latent_dim, channels=channels)
    return Variational(Gaussian(latent_dim), encoder, ProgressiveDecoder(latent_dim, shape, channels=channels))


class BoundedVariational(Variational):
    """A Variational whose pixels have a density about what is decoded, `observation`. Provides "bound"."""

    def __init__(self, latent: Gaussian, encoder: nn.Module, decoder: nn.Module, observation: GaussianPixels) -> None:
        super().__init__(latent, encoder, decoder)
        self.observation = observation

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"bound"}

    def bound(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        """A lower bound of log p(x) of each image, [N], in nats, of pixels in [0, 1]: see losses/bounds.py.

        Images [N, C, H, W] in [-1, 1].  Draws are decoded one after the other, so memory does not grow with their number.
        """
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, not {num_draws}")
        mean, log_var = self.posterior(images)
        log_weights = []
        for _ in range(num_draws):
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            codes = mean + (log_var / 2).exp() * noise
            prior, posterior = gaussian_log_prob(codes, 0.0, 0.0), gaussian_log_prob(codes, mean, log_var)
            log_weights.append(self.observation.log_prob(images, self.decode(codes)) + prior - posterior)
        return importance_bound(torch.stack(log_weights))


@MODELS.add("vae", small={"latent_dim": 8, "width": 8, "norm_scale_mean": 1.0})
def vae(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 2,
    width: int = 64,
    max_width: int = 1024,
    output: dcgan.Output = "tanh",
    norm_scale_mean: float = 0.0,
    pixel_std: float | None = None,
) -> BoundedVariational:
    """The VAE of Fig. 2 of Yoo et al. (2019): the networks of AE and IAE, Gaussian posterior, a bound of log p(x).

    pixel_std: of a pixel in [0, 1] about what is decoded; null: one number for all pixels, learned by the objective `elbo`
    where its `distance` is "gaussian".  For the rest see networks/dcgan.py.
    """
    sizes = {"width": width, "max_width": max_width, "norm_scale_mean": norm_scale_mean}
    return BoundedVariational(
        Gaussian(latent_dim),
        dcgan.encoder(shape, 2 * latent_dim, **sizes),
        dcgan.decoder(latent_dim, shape, output=output, **sizes),
        GaussianPixels(pixel_std),
    )
