"""`outliers`: the share of samples that lie off the data's manifold, which is 1 - precision (Kynkaanniemi et al., 2019, Eq. 1).

The manifold is the union of balls about the features of training images, each as wide as the distance to its k-th nearest
other one, k = 3; a sample whose features lie in no ball is an outlier. Features are the 1,280 of EfficientNet-Lite0, as of
`fd-efficientnet`, where the authors have VGG-16's: so the number stands for theirs and is not it. The manifold of few training
images has holes: the share of *test* images that lie off it, the detail `of_images`, is what no model need be below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.features import efficientnet
from genae.metrics.images import real_images, samples
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least, short_count, weights_notes
from genae.models.autoencoder import Generator
from genae.registry import FEATURES, METRICS

PUBLISHED_COUNT = 50_000
DISTANCES_AT_ONCE = 4_000_000  # 32 MB of them


@METRICS.add("outliers", small={"num_generated": 8, "num_reference": 12, "num_images": 8})
@dataclass(kw_only=True)
class Outliers(Metric):
    """The share of samples off the manifold of the training images, in [0, 1].

    Details: `of_images`; and the mean distance of samples to the nearest training image, `distance`, beside that of test ones,
    `distance_of_images`.

    num_generated: samples; another count than 50,000 shows in the column's name.
    num_reference: only the first so many training images; None for all, of which the authors have 50,000.
    num_images: only the first so many test images; None for all.  neighbour: k.
    """

    name: ClassVar[str] = "outliers"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    num_generated: Annotated[int, Ge(1)] = PUBLISHED_COUNT
    num_reference: int | None = PUBLISHED_COUNT
    num_images: int | None = None
    neighbour: Annotated[int, Ge(1)] = 3

    def __post_init__(self) -> None:
        check_at_least(1, num_generated=self.num_generated, num_images=self.num_images, neighbour=self.neighbour)

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        extractor = FEATURES.build({"name": "efficientnet-lite0"}).to(context.device)

        def features(batches: Iterator[Tensor]) -> Tensor:
            return torch.cat([extractor(images).double() for images in batches])

        reference, held_out = self._images(data)
        known = features(real_images(reference, context))
        if len(known) <= self.neighbour:
            raise ValueError(f"{len(known)} training images have no neighbour number {self.neighbour}")
        radii = squared_radii(known, self.neighbour)
        outside, distance = against(features(samples(model, self.num_generated, context)), known, radii)
        of_images, usual = against(features(real_images(held_out, context)), known, radii)
        return {self.name: outside, "of_images": of_images, "distance": distance, "distance_of_images": usual}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        parts = zip(("reference", "images"), self._images(data), strict=True)
        return (
            super().protocol(data, context)
            | {use: {"split": part.split, "digest": part.digest, "count": len(part)} for use, part in parts}
            | {
                "extractor": "efficientnet-lite0",
                "weights": efficientnet.used(),
                "resize": efficientnet.RESIZE,
                "rounded": True,
                "noise": NOISE_INPUTS,
                "dtype": {"features": "float32", "distances": "float64"},
                "seed": context.seed,
            }
        )

    def notes(self) -> list[str]:
        notes = super().notes() + ([f"neighbour {self.neighbour}"] if self.neighbour != Outliers.neighbour else [])
        if self.num_reference != PUBLISHED_COUNT:
            notes.append("all reference images" if self.num_reference is None else f"{self.num_reference} reference images")
        return notes + weights_notes(efficientnet.used())

    def label(self, name: str) -> str:
        counted = "" if self.num_generated == PUBLISHED_COUNT else f"-{short_count(self.num_generated)}"
        return super().label(name + counted)

    def _images(self, data: Splits) -> tuple[Dataset, Dataset]:
        """Those that the manifold is of, and those that are held against it beside the samples."""
        if data.train.digest == data.test.digest:
            raise ValueError("outliers holds test images against training images; here they are the same")
        return data.train.first(self.num_reference), data.test.first(self.num_images)


def squared_radii(features: Tensor, neighbour: int) -> Tensor:
    """The squared distance of each of M features [M, d] to its `neighbour`-th nearest other: [M]."""
    found = [squared.kthvalue(neighbour + 1, 1).values for squared in _squared(features, features)]  # itself is the nearest
    return torch.cat(found).clamp(min=0)


def against(features: Tensor, known: Tensor, radii: Tensor) -> tuple[float, float]:
    """Of features [N, d]: the share in no ball about known ones [M, d], of squared radii [M]; and how far the nearest is."""
    outside, nearest = [], []
    for squared in _squared(features, known):
        outside.append((squared > radii).all(1))
        nearest.append(squared.amin(1).clamp(min=0).sqrt())
    return torch.cat(outside).double().mean().item(), torch.cat(nearest).mean().item()


def _squared(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """The squared distances [n, M] of features [N, d] to known ones [M, d], some rows at a time, in float64."""
    middle = b.mean(0)  # small numbers lose fewer digits
    a, b = a - middle, b - middle
    lengths = b.square().sum(1)
    for some in a.split(max(1, DISTANCES_AT_ONCE // len(b))):
        yield torch.addmm(lengths, some, b.T, alpha=-2) + some.square().sum(1, keepdim=True)
