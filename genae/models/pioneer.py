"""Balanced PIONEER (Heljakka et al., 2020, arXiv:1904.06145) and PIONEER (2018, arXiv:1807.03026): networks without modulation.

The encoder is the automodulator's; the decoder takes the code as its first feature map, and is the one that the automodulator's
paper calls "classic". Sizes and normalisations are those of the released codes.
"""

from typing import Literal

from torch import nn

from genae.latent import latent_space
from genae.models.autoencoder import Autoencoder
from genae.networks.blocks import SLOPE, EqualizedConv2d, PixelNorm, SpectralConv2d
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
    decoder_norm: Literal["spectral", "pixel"] = "spectral",
    last_activation: bool = True,
    train_previous: bool = False,
) -> Autoencoder:
    """Balanced PIONEER: codes of norm 1, spectral norm in encoder and decoder. PIONEER: the same with {decoder_norm: pixel}.

    latent: codes on the unit "sphere" (released), or "gaussian", N(0, I) with codes of any norm.
    channels: features at 4x4, 8x8, ..., the last number for all further blocks; of the encoder, and of the decoder unless
    `decoder_channels` says otherwise.
    decoder_norm: "pixel" is pixel norm after every convolution of the decoder, whose learning rates are then equalised.
    last_activation: a leaky ReLU after the encoder's last convolution, as the released models have it; the later code leaves it
    out unless told.
    train_previous: see ToImages.
    """
    encoder = ProgressiveEncoder(shape, latent_dim, channels=channels)
    if last_activation:
        encoder.last.append(nn.LeakyReLU(SLOPE, inplace=True))
    decoder = ProgressiveDecoder(latent_dim, shape, channels=decoder_channels or channels, train_previous=train_previous)
    if decoder_norm == "pixel":
        decoder.blocks = nn.ModuleList(_pixel_normalized(block) for block in decoder.blocks)
    return Autoencoder(latent_space(latent, latent_dim), encoder, decoder)


def _pixel_normalized(block: nn.Sequential) -> nn.Sequential:
    """A decoder block of the same sizes with equalised convolutions, and pixel norm between each and its activation."""
    parts: list[nn.Module] = []
    for part in block:
        if isinstance(part, SpectralConv2d):
            size, padding = part.kernel_size[0], part.padding[0]
            parts += [EqualizedConv2d(part.in_channels, part.out_channels, size, padding), PixelNorm()]
        else:
            parts.append(part)
    return nn.Sequential(*parts)
