"""`factor-invariance`: whether the first layers drive the pose of a face and nothing else (Heljakka et al., 2020, Sec. 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from genae.context import Context
from genae.metrics.factor_regressor import Readings
from genae.metrics.factors import Faces, FactorMetric, Trial, shares
from genae.metrics.images import another
from genae.metrics.metric import NotDefined
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS


@METRICS.add("factor-invariance", small={"num_pairs": 64, "carried_accuracy": 0.0, "carried_r2": -1e9})
@dataclass(kw_only=True)
class FactorInvariance(FactorMetric):
    """The first layers follow a driver, the rest a source: how far the pose follows the driver, and all else the source.

    The paper's mirrored pairs "share every other property except the azimuth rotation angle": every other factor is identity.
    The score is the mean of the two shares, so a decoder that heeds the driver alone, or the source alone, has 1/2 at most.

    layers: how many are the driver's, with or without an extra layer.  pose: the factor.  num_pairs: of both, drawn.
    """

    name: ClassVar[str] = "factor-invariance"
    layers: Annotated[int, Ge(1)] = 2
    pose: str = "azimuth"
    num_pairs: Annotated[int, Ge(1)] = 2000

    def splits(self, num_layers: int) -> Sequence[int]:
        if self.layers >= num_layers:
            raise NotDefined(f"the decoder has {num_layers} layers, and {self.layers} of them would be the driver's")
        return [self.layers]

    def trial(self, model: Autoencoder, faces: Faces, context: Context) -> Trial:
        pose = faces.some([factor for factor in faces.carried if factor.name == self.pose], self.pose)
        identity = faces.some([factor for factor in faces.carried if factor.name != self.pose], "factor of identity")
        generator = context.generator("pairs")
        driver = torch.randint(len(faces.codes), (self.num_pairs,), generator=generator)
        source, unrelated = (another(driver, len(faces.codes), generator) for _ in range(2))
        parts = {"pose": pose, "identity": identity}
        rows = {"pose": (driver, source), "identity": (source, driver)}

        def score(readings: Readings) -> dict[str, float]:
            found = shares(parts, readings, faces.truth, rows)
            return {"": fmean([found["pose"], found["identity"]])} | found

        plain = {name: read[driver if name == self.pose else source] for name, read in faces.reconstructed.items()}
        chance = {name: read[unrelated] for name, read in faces.reconstructed.items()}
        return Trial(faces.codes[driver], faces.codes[source], score, plain, chance)

    def notes(self) -> list[str]:
        notes = super().notes() + ([] if self.layers == 2 else [f"{self.layers} layers"])
        return notes + ([] if self.pose == "azimuth" else [self.pose])
