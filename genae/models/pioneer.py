"""Balanced PIONEER (Heljakka et al., 2020, arXiv:1904.06145): progressive networks without modulation, "classic" in Table 2a.

The encoder is the automodulator's; the decoder takes the code as its first feature map. Both are spectrally normalised. The
settings that differ from it in PIONEER (Heljakka et al., 2018) are named; AGE (Ulyanov et al., 2018) trains either kind of
network, or a plain one, without growing.
"""

from typing import Literal

from torch import nn

from genae.latent import Gaussian, Sphere
from genae.models.autoencoder import Autoencoder
from genae.networks.blocks import SLOPE
from genae.networks.progressive import PUBLISHED_CHANNELS, ProgressiveDecoder, ProgressiveEncoder
from genae.registry import MODELS


@MODELS.add("pioneer", small={"latent_dim": 8, "channels": [8, 8, 4]})
def pioneer(
    shape: tuple[int, int, int],
    *,
    latent: Literal["sphere", "gaussian"] = "sphere",
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    decoder_channels: tuple[int, ...] | None = None,
    last_activation: bool = True,
    train_previous: bool = False,
) -> Autoencoder:
    """Balanced PIONEER: codes of norm 1, spectral norm in encoder and decoder.

    latent: codes on the unit "sphere" (released), or "gaussian", N(0, I) with codes of any norm.
    channels: features at 4x4, 8x8, ..., the last number for all further blocks; of the encoder, and of the decoder unless
    `decoder_channels` says otherwise.
    last_activation: a leaky ReLU after the encoder's last convolution. The released models have it; the released code leaves it
    out unless told.
    train_previous: see ToImages.
    """
    encoder = ProgressiveEncoder(shape, latent_dim, channels=channels)
    if last_activation:
        encoder.last.append(nn.LeakyReLU(SLOPE, inplace=True))
    decoder = ProgressiveDecoder(latent_dim, shape, channels=decoder_channels or channels, train_previous=train_previous)
    space = Sphere(latent_dim) if latent == "sphere" else Gaussian(latent_dim)
    return Autoencoder(space, encoder, decoder)
