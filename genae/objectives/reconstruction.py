"""Plain reconstruction: encode, decode, compare."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genae.losses.distances import mean_absolute, mean_square
from genae.models.autoencoder import Autoencoder
from genae.objectives.objective import Objective, Terms
from genae.registry import OBJECTIVES
from genae.schedule import Phase


@OBJECTIVES.add("reconstruction")
@dataclass(kw_only=True)
class Reconstruction(Objective):
    """The mean over all pixels of the absolute (l1) or squared (l2) difference, on [-1, 1]."""

    distance: Literal["l1", "l2"] = "l2"

    def terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        decoded = model.decode(model.encode(images, phase.growth), phase.growth)
        compare = mean_absolute if self.distance == "l1" else mean_square
        return {"reconstruction": compare(decoded, images)}
