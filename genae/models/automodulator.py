"""The automodulator (Heljakka et al., 2020): a progressive encoder, and a decoder that the code only modulates."""

from typing import Literal

from genae.latent import latent_space
from genae.models.autoencoder import Autoencoder
from genae.networks.adain import AdaInDecoder
from genae.networks.blocks import SpectralVectors
from genae.networks.progressive import PUBLISHED_CHANNELS, ProgressiveEncoder
from genae.registry import MODELS


@MODELS.add(
    "automodulator",
    small={"latent_dim": 8, "channels": [8, 8, 4]},
    added={"latent": "sphere", "extra_layer": None, "spectral_vectors": "constant"},
)
def automodulator(
    shape: tuple[int, int, int],
    *,
    latent: Literal["sphere", "gaussian"] = "sphere",
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    decoder_channels: tuple[int, ...] | None = None,
    extra_layer: int | None = None,
    noise: bool = True,
    decoder_blur: bool = True,
    encoder_blur: bool = False,
    spectral_vectors: SpectralVectors = "constant",
    residual: bool = False,
    learned_input: bool = False,
    style_bias: float = 1.0,
    train_previous: bool = False,
) -> Autoencoder:
    """Codes of norm 1; spectral norm in the encoder, AdaIN in the decoder. The defaults are the released network.

    latent: codes on the unit "sphere" (Sec. 3.1; released), or "gaussian", the N(0, I) of Eqs. 2 and 6, with codes of any norm.
    channels: features at 4x4, 8x8, ..., the last number for all further blocks; of the encoder, and of the decoder unless
    `decoder_channels` says otherwise ([512, 512, 512, 512, 512, 256, 128, 64, 32] is the wider one released later).
    extra_layer: 8 where the invariance loss takes layers 1 and 2 for itself (Sec. 4.3): blocks at 4, 8, 8, 16, ...
    spectral_vectors: "constant" in the gradient (Miyato et al., 2018), or "differentiated" (released); see SpectralConv2d.
    encoder_blur, residual: in the paper's text, not in the code.  noise: in the code, not in the paper.
    For the other settings see ProgressiveEncoder and AdaInDecoder.
    """
    encoder = ProgressiveEncoder(
        shape,
        latent_dim,
        channels=channels,
        blur=encoder_blur,
        residual=residual,
        spectral_vectors=spectral_vectors,
    )
    decoder = AdaInDecoder(
        latent_dim,
        shape,
        channels=decoder_channels or channels,
        extra_layer=extra_layer,
        noise=noise,
        blur=decoder_blur,
        residual=residual,
        learned_input=learned_input,
        style_bias=style_bias,
        train_previous=train_previous,
    )
    return Autoencoder(latent_space(latent, latent_dim), encoder, decoder)
