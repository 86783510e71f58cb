"""Wasserstein autoencoders (Tolstikhin et al., 2018) on the networks of the automodulator paper's Table 2a.

WAE-AdaIn has the automodulator's decoder, WAE-classic that of Balanced PIONEER; the encoder is the same progressive one and
gives a code, not a distribution. The paper says no more of them than "WAE-MMD", two weights and a learning rate. What else they
are here is our choice: the prior is N(0, I), as in the paper that introduced them.
"""

from typing import Literal

from genae.latent import latent_space
from genae.models.autoencoder import Autoencoder
from genae.networks.adain import AdaInDecoder
from genae.networks.progressive import PUBLISHED_CHANNELS, ProgressiveDecoder, ProgressiveEncoder
from genae.registry import MODELS


@MODELS.add("wae-adain", small={"latent_dim": 8, "channels": [8, 8, 4]})
def wae_adain(
    shape: tuple[int, int, int],
    *,
    latent: Literal["gaussian", "sphere"] = "gaussian",
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    noise: bool = True,
) -> Autoencoder:
    """WAE-AdaIn of Table 2a: a code per image, the automodulator's decoder.

    latent: the prior, N(0, I) or uniform on the unit "sphere", where codes then lie too.
    """
    encoder = ProgressiveEncoder(shape, latent_dim, channels=channels)
    return Autoencoder(
        latent_space(latent, latent_dim), encoder, AdaInDecoder(latent_dim, shape, channels=channels, noise=noise)
    )


@MODELS.add("wae-classic", small={"latent_dim": 8, "channels": [8, 8, 4]})
def wae_classic(
    shape: tuple[int, int, int],
    *,
    latent: Literal["gaussian", "sphere"] = "gaussian",
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
) -> Autoencoder:
    """WAE-classic of Table 2a: a code per image, the decoder of Balanced PIONEER.

    latent: as in wae-adain.
    """
    encoder = ProgressiveEncoder(shape, latent_dim, channels=channels)
    return Autoencoder(latent_space(latent, latent_dim), encoder, ProgressiveDecoder(latent_dim, shape, channels=channels))
