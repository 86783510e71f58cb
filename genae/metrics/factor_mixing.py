"""`factor-mixing`: whether a mix of two faces has the coarse factors of one and the fine factors of the other.

Heljakka et al. (2020), Sec. 4.2, A.5 and Figs. 4a, 13, 14 show it by matrices of pictures.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from genae.context import Context
from genae.metrics.factor_regressor import Readings
from genae.metrics.factors import Faces, FactorMetric, Trial, shares
from genae.metrics.images import another
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS


@METRICS.add("factor-mixing", small={"num_pairs": 64, "carried_accuracy": 0.0, "carried_r2": -1e9})
@dataclass(kw_only=True)
class FactorMixing(FactorMetric):
    """Layers 1..j follow test face A, the rest test face B: how far coarse factors follow A, and fine ones B; j = 1..L-1.

    The score is the mean of the two shares, so a decoder that heeds A alone, or B alone, has 1/2 at most. Middle factors, told
    beside it as the share that follow A, should go over from B to A as j grows.

    num_pairs: of A and B, drawn.
    """

    name: ClassVar[str] = "factor-mixing"
    num_pairs: Annotated[int, Ge(1)] = 2000

    def trial(self, model: Autoencoder, faces: Faces, context: Context) -> Trial:
        coarse, fine = faces.carried_at("coarse"), faces.carried_at("fine")
        middle = [factor for factor in faces.carried if factor.scale == "middle"]
        parts = {"coarse": coarse, "fine": fine} | ({"middle": middle} if middle else {})
        generator = context.generator("pairs")
        a = torch.randint(len(faces.codes), (self.num_pairs,), generator=generator)
        b, unrelated = (another(a, len(faces.codes), generator) for _ in range(2))
        rows = {"coarse": (a, b), "middle": (a, b), "fine": (b, a)}

        def score(readings: Readings) -> dict[str, float]:
            found = shares(parts, readings, faces.truth, rows)
            return {"": fmean([found["coarse"], found["fine"]])} | found

        follow_b = {factor.name for factor in fine}
        plain = {name: read[b if name in follow_b else a] for name, read in faces.reconstructed.items()}
        chance = {name: read[unrelated] for name, read in faces.reconstructed.items()}
        return Trial(faces.codes[a], faces.codes[b], score, plain, chance)
