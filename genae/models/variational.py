"""Variational autoencoders (Kingma & Welling, 2014) on the networks of the automodulator paper's Table 2a.

VAE-AdaIn has the automodulator's decoder, VAE-classic that of Balanced PIONEER; the encoder is the same progressive one, its
last convolution giving mean and log variance. The paper says no more of them than KLD weight and learning rates.
"""

from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder
from genae.networks.adain import AdaInDecoder
from genae.networks.progressive import PUBLISHED_CHANNELS, ProgressiveDecoder, ProgressiveEncoder
from genae.registry import MODELS
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
        mean, log_var = self.encoder(images, growth).chunk(2, dim=1)
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
