"""AE and IAE (Yoo et al., 2019): an autoencoder whose codes have no prior, for a density to be learned of them afterwards.

The two are one model. Incremental learning (Sec. 3.4) is a way to train it: `warmup_epochs` of the objective `incremental`.
"""

from genae.latent import Free
from genae.models.autoencoder import Autoencoder
from genae.networks.dcgan import Output, decoder, encoder
from genae.registry import MODELS


@MODELS.add("iae", small={"latent_dim": 8, "width": 8})
def incremental_autoencoder(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 100,
    width: int = 64,
    max_width: int = 1024,
    output: Output = "tanh",
    norm_scale_mean: float = 0.0,
) -> Autoencoder:
    """The autoencoder of AE + LDE and IAE + LDE: DCGAN-style networks, codes in R^latent_dim without a prior.

    latent_dim: 100 for images of 64 pixels; 8 for MNIST, 15 for TFD.  For the rest see networks/dcgan.py.
    """
    sizes = {"width": width, "max_width": max_width, "norm_scale_mean": norm_scale_mean}
    return Autoencoder(
        Free(latent_dim), encoder(shape, latent_dim, **sizes), decoder(latent_dim, shape, output=output, **sizes)
    )
