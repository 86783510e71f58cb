"""Training of AE and IAE (Yoo et al., 2019): reconstruction by Eq. 5, with codes that grow longer meanwhile (Sec. 3.4).

"Initially only a small part of the latent vector is used [...]. The unused part is masked to zero." How many are in use the
paper does not say. The released code has the first int(D * epochs / W + 1) of D, up to all, counted anew in every iteration.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genae.losses.perceptual import PixelsAndPerception
from genae.models.autoencoder import Autoencoder
from genae.objectives.objective import Objective, Terms, Update
from genae.registry import OBJECTIVES
from genae.schedule import Phase


def active_dims(dim: int, epoch: float, warmup_epochs: float) -> int:
    """How many of a code's dimensions are in use after `epoch` epochs: one more every W / D epochs, from 1 to D."""
    return min(int(dim * epoch / warmup_epochs + 1), dim)


@OBJECTIVES.add("incremental", small={"perceptual_weight": 0.0, "warmup_epochs": 2.0})
@dataclass(kw_only=True)
class Incremental(Objective):
    """L_MSE + perceptual_weight * L_Perc (Eq. 5), of images decoded from the dimensions in use, the others set to 0.

    warmup_epochs: W, the epochs in which codes grow to their full length (IAE); null: they have it from the start (AE).
    perceptual_weight: beta; 0 leaves the term out.  perceptual_halved: see losses/perceptual.py; the text shows no 1/2 of its
    own, the released code and the loss that the text cites have it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "encoder"})

    warmup_epochs: float | None = None
    perceptual_weight: float = 0.1
    perceptual_halved: bool = True

    def __post_init__(self) -> None:
        if self.warmup_epochs is not None and self.warmup_epochs <= 0:
            raise ValueError(f"warmup_epochs must be positive, or null; not {self.warmup_epochs}")
        self._reconstruction = PixelsAndPerception(self.perceptual_weight, halved=self.perceptual_halved)

    def updates(self, model: Autoencoder) -> list[Update]:
        self._reconstruction.read(model.device)
        return super().updates(model)

    def terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        codes = model.encode(images, phase.growth)
        if self.warmup_epochs is not None:
            dim = codes.shape[1]
            in_use = torch.arange(dim, device=codes.device) < active_dims(dim, phase.epoch, self.warmup_epochs)
            codes = codes * in_use
        return self._reconstruction.terms(model.decode(codes, phase.growth), images)
