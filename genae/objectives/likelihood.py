"""Maximum likelihood of images or codes, for models with a density.

Pixels are counts, of which a density can be infinite: uniform noise as wide as a count makes them continuous, and the mean log
density of the result is at most the log likelihood of the counts (Uria et al., 2013; Theis et al., 2016, Sec. 3.1).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genae.densities.density import Density
from genae.models.autoencoder import Generator
from genae.objectives.objective import Objective, Terms
from genae.pixels import dequantize, level_width
from genae.registry import OBJECTIVES
from genae.schedule import Phase


@OBJECTIVES.add("likelihood", small={"levels": 16}, added={"floor": 0.0})
@dataclass(kw_only=True)
class Likelihood(Objective):
    """-log p(x) per dimension, averaged over the batch.

    unit: "bits", or "nats".  levels: of a pixel in [-1, 1]; 256 as stored, or fewer, to which pixels are reduced (Glow's 5-bit
    images have 32). It is then the likelihood of the levels. null: what is given is continuous, and so is the likelihood.

    floor: is added to the density of each dimension given those before it, so that none costs more than -log(floor): 1e-12 in
    the released code of Yoo et al. (2019), where the paper has none. What is lowered is then no density's likelihood. It is of
    continuous vectors, and needs "conditionals".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"log_prob"})

    unit: Literal["bits", "nats"] = "bits"
    levels: int | None = 256
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels not in (2, 4, 8, 16, 32, 64, 128, 256):
            raise ValueError(f"levels must be a power of two from 2 to 256, or null; not {self.levels}")
        if not 0 <= self.floor < math.inf:
            raise ValueError(f"floor must be a density, 0 or more, not {self.floor}")
        if self.floor and self.levels is not None:
            raise ValueError("floor is of continuous vectors: levels must be null beside it")
        if self.floor:
            self.needs = self.needs | {"conditionals"}

    def terms(self, model: Generator | Density, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        log_width = 0.0
        if self.levels is not None:
            images = dequantize(images, self.levels, generator)
            log_width = math.log(level_width(self.levels))  # log probability of a level - log density
        if self.floor:
            conditionals = model.conditionals(images)  # log p(x_i | x_<i)
            nats = -torch.logaddexp(conditionals, conditionals.new_tensor(math.log(self.floor))).mean()
        else:
            nats = -model.log_prob(images).mean() / images[0].numel() - log_width
        return {f"{self.unit}_per_dim": nats / math.log(2) if self.unit == "bits" else nats}
