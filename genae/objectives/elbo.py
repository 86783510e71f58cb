"""The evidence lower bound (Kingma & Welling, 2014), with the KLD weight of the automodulator paper's VAE baselines.

The paper gives that weight, 0.005, and neither the distance nor what is summed. Here the reconstruction is a mean over pixels
and the divergence a sum over latent dimensions (both then averaged over images), where 0.005 keeps the code informative.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genae.losses.distances import mean_absolute, mean_square
from genae.losses.divergences import kl_of_gaussian
from genae.models.autoencoder import Autoencoder
from genae.objectives.objective import Objective, Terms
from genae.registry import OBJECTIVES
from genae.schedule import Phase


@OBJECTIVES.add("elbo")
@dataclass(kw_only=True)
class Elbo(Objective):
    """reconstruction + kl_weight * KL(q(z | x) || N(0, I)), with z = mean + std * noise.

    distance: l1 or l2, of images on [-1, 1].  pixels, latents: whether a term sums or averages over them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "posterior"})

    kl_weight: float = 0.005
    distance: Literal["l1", "l2"] = "l2"
    pixels: Literal["mean", "sum"] = "mean"
    latents: Literal["mean", "sum"] = "sum"

    def terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        mean, log_var = model.posterior(images, phase.growth)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        decoded = model.decode(mean + (log_var / 2).exp() * noise, phase.growth)

        compare = mean_absolute if self.distance == "l1" else mean_square
        reconstruction = compare(decoded, images)
        if self.pixels == "sum":
            reconstruction = reconstruction * images[0].numel()
        return {"reconstruction": reconstruction, "kl": self.kl_weight * kl_of_gaussian(mean, log_var, self.latents)}
