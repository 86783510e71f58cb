"""Adversarial autoencoders (Makhzani et al., 2015, Sec. 2): reconstruct, then make the codes look drawn from the prior.

A step takes three updates on one batch. The first is their reconstruction phase, the other two their regularisation phase:

    reconstruct    encoder and decoder     Eq. 5 of Yoo et al. (2019), "the reconstruction loss of AAE and ours"
    discriminate   code discriminator      E[softplus(-D(z))] + E[softplus(D(phi(x)))],  z from the prior
    regularise     encoder                 E[softplus(-D(phi(x)))]

The last is the loss that Goodfellow et al. (2014) train with in practice, not their minimax. Each update has an optimiser of
its own, and so no weight between them: how strongly each moves is for its learning rate to say.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.losses.perceptual import PixelsAndPerception
from genae.models.adversarial_autoencoder import AdversarialAutoencoder
from genae.objectives.objective import Objective, Terms, Update
from genae.precision import at_least_float32
from genae.registry import OBJECTIVES
from genae.schedule import Phase


@OBJECTIVES.add("adversarial-autoencoder", small={"perceptual_weight": 0.0})
@dataclass(kw_only=True)
class AdversarialAutoencoding(Objective):
    """Three updates: reconstruct (groups encoder, decoder), discriminate (code_discriminator), regularise (encoder).

    perceptual_weight, perceptual_halved: beta of Eq. 5 and the 1/2 of its perceptual loss (losses/perceptual.py).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "encoder", "discriminate_codes"})

    perceptual_weight: float = 0.1
    perceptual_halved: bool = True

    def __post_init__(self) -> None:
        self._reconstruction = PixelsAndPerception(self.perceptual_weight, halved=self.perceptual_halved)

    def updates(self, model: AdversarialAutoencoder) -> list[Update]:
        self._reconstruction.read(model.device)
        encoder, decoder = list(model.encoder.parameters()), list(model.decoder.parameters())
        discriminator = {"code_discriminator": list(model.code_discriminator.parameters())}
        return [
            Update("reconstruct", {"encoder": encoder, "decoder": decoder}, self._reconstruct),
            Update("discriminate", discriminator, self._discriminate),
            Update("regularise", {"encoder": encoder}, self._regularise),
        ]

    def _reconstruct(self, model: AdversarialAutoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        decoded = model.decode(model.encode(images, phase.growth), phase.growth)
        return self._reconstruction.terms(decoded, images)

    def _discriminate(self, model: AdversarialAutoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        with torch.no_grad():
            codes = model.encode(images, phase.growth)
        drawn = at_least_float32(model.discriminate_codes(model.prior(len(images), generator)))
        encoded = at_least_float32(model.discriminate_codes(codes))
        return {"prior": F.softplus(-drawn).mean(), "codes": F.softplus(encoded).mean()}

    def _regularise(self, model: AdversarialAutoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        encoded = at_least_float32(model.discriminate_codes(model.encode(images, phase.growth)))
        return {"codes": F.softplus(-encoded).mean()}
