"""The evidence lower bound (Kingma & Welling, 2014), with the KLD weight of the automodulator paper's VAE baselines.

The paper gives that weight, 0.005, and neither the distance nor what is summed. Here the reconstruction is a mean over pixels
and the divergence a sum over latent dimensions (both then averaged over images), where 0.005 keeps the code informative.

With a weight other than 1 beside sums it is the objective of the beta-VAE (Higgins et al., 2017), as in Fig. 2 of Yoo et al.
(2019). Squares summed over pixels in [-1, 1] are a Gaussian log likelihood of standard deviation sqrt(1 / 2); with distance
"gaussian", both terms sums and weight 1, what is lowered is the bound itself, in nats of pixels in [0, 1].
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genae.losses.distances import mean_absolute, mean_square
from genae.losses.divergences import kl_of_gaussian
from genae.models.autoencoder import Autoencoder
from genae.objectives.objective import Objective, Terms, Update
from genae.registry import OBJECTIVES
from genae.schedule import Phase


@OBJECTIVES.add("elbo")
@dataclass(kw_only=True)
class Elbo(Objective):
    """reconstruction + kl_weight * KL(q(z | x) || N(0, I)), with z = mean + std * noise.

    distance: l1 or l2, of images on [-1, 1]; or "gaussian", -log p(x | z) with the model's own standard deviation of pixels,
    which is learned so (models/variational.py: vae).  pixels, latents: whether a term sums or averages over them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "posterior"})

    kl_weight: float = 0.005
    distance: Literal["l1", "l2", "gaussian"] = "l2"
    pixels: Literal["mean", "sum"] = "mean"
    latents: Literal["mean", "sum"] = "sum"

    def updates(self, model: Autoencoder) -> list[Update]:
        if self.distance == "gaussian" and not hasattr(model, "observation"):
            raise ValueError('distance "gaussian" needs a model whose pixels have a density, as that of vae have')
        return super().updates(model)

    def terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        mean, log_var = model.posterior(images, phase.growth)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        decoded = model.decode(mean + (log_var / 2).exp() * noise, phase.growth)

        if self.distance == "gaussian":
            reconstruction = -model.observation.log_prob(images, decoded).mean() / images[0].numel()
        else:
            compare = mean_absolute if self.distance == "l1" else mean_square
            reconstruction = compare(decoded, images)
        if self.pixels == "sum":
            reconstruction = reconstruction * images[0].numel()
        return {"reconstruction": reconstruction, "kl": self.kl_weight * kl_of_gaussian(mean, log_var, self.latents)}
