"""A plain autoencoder: convolutions down to a code and up again, nothing else."""

from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder
from genae.networks.classic import decoder, encoder
from genae.registry import MODELS


@MODELS.add("autoencoder", small={"latent_dim": 8, "width": 8})
def autoencoder(
    shape: tuple[int, int, int], *, latent_dim: int = 64, width: int = 32, max_width: int = 512, batch_norm: bool = True
) -> Autoencoder:
    """Classic encoder and decoder of fixed size, codes in R^latent_dim. width: channels at the finest resolution."""
    sizes = {"width": width, "max_width": max_width, "batch_norm": batch_norm}
    return Autoencoder(Gaussian(latent_dim), encoder(shape, latent_dim, **sizes), decoder(latent_dim, shape, **sizes))
