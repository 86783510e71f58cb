"""`bound`: a lower bound of the log likelihood of test images, for models that have one (Burda et al., 2016).

    log p(x) >= E[log 1/K sum_k p(x, z_k) / q(z_k | x)],  z_k drawn from q(z | x)

in nats, of the density of pixels in [0, 1]: the units of `parzen`, which it stands beside. K = 1 is the evidence lower bound;
the more draws, the tighter.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.images import real_images
from genae.metrics.metric import Metric, check_at_least
from genae.models.autoencoder import Generator
from genae.pixels import dequantize
from genae.registry import METRICS

IMAGES_AT_ONCE = 25  # whatever the context's batch: the draws are made batch by batch


@METRICS.add("bound", small={"num_draws": 4, "num_images": 8})
@dataclass(kw_only=True)
class Bound(Metric):
    """Mean lower bound of log p(x) over test images, in nats.

    Detail: `standard_error` of the mean over test images.

    num_draws: K.  num_images: only the first so many of the test split; None for all.
    dequantize: pixels are counts of 1/255, about which a density may be as narrow as it likes. Uniform noise as wide as a count
        makes them continuous, and the mean a lower bound of the log probability of the counts, by d log 255.
    """

    name: ClassVar[str] = "bound"
    needs: ClassVar[frozenset[str]] = frozenset({"bound"})
    direction: ClassVar[str] = "max"
    num_draws: int = 100
    num_images: int | None = None
    dequantize: bool = True

    def __post_init__(self) -> None:
        check_at_least(1, num_draws=self.num_draws)
        check_at_least(2, num_images=self.num_images)

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        draws, noise = context.generator("draws of the posterior"), context.generator("noise of the pixels")
        nats = []
        for images in real_images(self._images(data), replace(context, batch_size=IMAGES_AT_ONCE)):
            if self.dequantize:
                images = dequantize(images.cpu(), 256, noise).to(context.device)
            nats.append(model.bound(images, self.num_draws, draws).double())
        nats = torch.cat(nats)
        broken = int((~nats.isfinite()).sum())
        if broken:
            raise ValueError(f"{broken} of {len(nats)} images have no finite bound")
        return {self.name: nats.mean().item(), "standard_error": nats.std(correction=0).item() / math.sqrt(len(nats))}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        images = self._images(data)
        return super().protocol(data, context) | {
            "images": {"split": images.split, "digest": images.digest, "count": len(images)},
            "range": [0, 1],
            "dtype": {"bound": "float32", "mean": "float64"},
            "seed": context.seed,
        }

    def notes(self) -> list[str]:
        notes = super().notes() + ([f"{self.num_draws} draws"] if self.num_draws != Bound.num_draws else [])
        notes += [] if self.num_images is None else [f"{self.num_images} images"]
        return notes + ([] if self.dequantize else ["not dequantised"])

    def _images(self, data: Splits) -> Dataset:
        return data.test.first(self.num_images)
