"""`factor-conditional`: whether samples about a face keep its coarse factors and vary in the others as the data do.

Heljakka et al. (2019), Fig. 2, and (2020), A.4 and Fig. 11, show it by pictures.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Factor
from genae.metrics.factor_regressor import Readings
from genae.metrics.factors import Faces, FactorMetric, Trial, shares
from genae.metrics.images import another
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS


@METRICS.add("factor-conditional", small={"num_faces": 8, "num_draws": 4, "carried_accuracy": 0.0, "carried_r2": -1e9})
@dataclass(kw_only=True)
class FactorConditional(FactorMetric):
    """Layers 1..j follow a test face, the rest a code of the prior: do coarse factors stay, do fine ones vary? j = 1..L-1.

    kept: the share of samples whose coarse factors follow the face and not another one. varied: the spread of fine factors over
    the samples of one face against their spread over the data, at most 1. The score is the product of the two: samples that
    ignore the drawn layers have 0, and those that ignore the face no more than chance.

    num_faces: the first so many test images.  num_draws: samples about each.
    """

    name: ClassVar[str] = "factor-conditional"
    needs: ClassVar[frozenset[str]] = FactorMetric.needs | {"sample"}
    num_faces: Annotated[int, Ge(2)] = 250
    num_draws: Annotated[int, Ge(2)] = 16

    def trial(self, model: Autoencoder, faces: Faces, context: Context) -> Trial:
        coarse, fine = faces.carried_at("coarse"), faces.carried_at("fine")
        free = [factor for factor in faces.carried if factor not in coarse]
        count, num_faces = len(faces.codes), min(self.num_faces, len(faces.codes))
        generator = context.generator("conditional samples")
        face = torch.arange(num_faces).repeat_interleave(self.num_draws)  # [P], P = num_faces * num_draws
        other = another(face, count, generator)
        drawn = model.sample_codes(len(face), generator).to(faces.codes.device)
        of_data = {factor.name: spread(factor, faces.drawn[factor.name][None]) for factor in free}

        def score(readings: Readings) -> dict[str, float]:
            kept = shares({"kept": coarse}, readings, faces.truth, {"kept": (face, other)})
            within = {f.name: spread(f, readings[f.name].unflatten(0, (num_faces, self.num_draws))) for f in free}
            varied = {  # what is the same in all of the data cannot vary less
                name: min(1.0, value / of_data[name]) if of_data[name] else 1.0 for name, value in within.items()
            }
            of_fine = fmean(varied[factor.name] for factor in fine)
            return {"": kept["kept"] * of_fine, "varied": of_fine} | kept | varied

        stay = {factor.name for factor in coarse}
        plain = {name: read[face if name in stay else other] for name, read in faces.reconstructed.items()}
        return Trial(faces.codes[face], drawn, score, plain, faces.read(drawn))


def spread(factor: Factor, readings: Tensor) -> float:
    """How readings [G, n] vary within their groups, on average, without bias: the variance, of a number.

    Of a choice, the chance that two of a group differ: it is to the index of a choice what the variance is to a number, and
    unlike its entropy it can be estimated from a few samples.
    """
    if not factor.choices:
        return readings.double().var(1).mean().item()
    num = readings.shape[1]
    counts = torch.nn.functional.one_hot(readings, len(factor.choices)).sum(1).double()  # [G, choices]
    alike = (counts * (counts - 1)).sum(1) / (num * (num - 1))
    return (1 - alike).mean().item()
