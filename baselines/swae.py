"""Sliced-Wasserstein autoencoder (Kolouri et al., 2018, arXiv:1804.01947)."""

from dataclasses import dataclass

import torch.nn.functional as F

from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder
from genae.networks.classic import decoder, encoder
from genae.objectives.objective import Objective
from genae.registry import MODELS, OBJECTIVES


@MODELS.add("swae")
def swae(shape, *, dim: int = 64):
    """An autoencoder of convolutions, for sliced-wasserstein."""
    return Autoencoder(Gaussian(dim), encoder(shape, dim), decoder(dim, shape))


@OBJECTIVES.add("sliced-wasserstein")
@dataclass(kw_only=True)
class SlicedWasserstein(Objective):
    """Squared error, plus the Wasserstein distance of codes to the prior along random axes."""

    weight: float = 10.0
    slices: int = 50

    def terms(self, model, images, phase, generator):
        codes, drawn = model.encode(images), model.prior(len(images), generator)
        axes = F.normalize(model.prior(self.slices, generator)).T
        gap = (codes @ axes).sort(0).values - (drawn @ axes).sort(0).values
        error = F.mse_loss(model.decode(codes), images)
        return {"pixels": error, "sliced": self.weight * gap.square().mean()}
