"""Frechet distances between the features of generated images and of the training split.

`fid` is the Frechet Inception Distance (Heusel et al., 2017) with 50,000 samples; it must agree with pytorch_fid over folders
of PNGs of the same images. `fd-efficientnet` is another number, over another network. The `-mix` ones generate style mixtures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from genae.cache import cached_folder
from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.features import efficientnet, inception, weights
from genae.features.extractor import Extractor
from genae.metrics.frechet import Statistics, frechet_distance, statistics_of
from genae.metrics.images import mixed_samples, real_images, samples
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least, short_count, weights_notes
from genae.models.autoencoder import Generator
from genae.registry import FEATURES, METRICS

PUBLISHED_COUNT = 50_000


@dataclass(kw_only=True)
class FrechetMetric(Metric):
    """The Frechet distance of samples to the training split, over one extractor's vectors.

    num_generated: samples; another count than 50,000 shows in the column's name.
    num_reference: only the first so many training images; None for all.
    """

    name: ClassVar[str]
    extractor: ClassVar[str]
    resize: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    mixed: ClassVar[bool] = False
    num_generated: int = PUBLISHED_COUNT
    num_reference: int | None = None

    def __post_init__(self) -> None:
        check_at_least(2, num_generated=self.num_generated, num_reference=self.num_reference)

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        extractor = FEATURES.build({"name": self.extractor}).to(context.device)
        reference = reference_statistics(data.train.first(self.num_reference), self.extractor, extractor, context)
        generate = mixed_samples if self.mixed else samples
        generated = statistics_of(extractor(images) for images in generate(model, self.num_generated, context))
        return {self.name: frechet_distance(reference, generated)}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        reference = data.train.first(self.num_reference)
        return super().protocol(data, context) | {
            "reference": {"split": reference.split, "digest": reference.digest, "count": len(reference)},
            "extractor": self.extractor,
            "weights": self.weights(),
            "resize": self.resize,
            "crop": "none",
            "rounded": True,
            "noise": NOISE_INPUTS,
            "dtype": {"features": "float32", "statistics": "float64"},
            "seed": context.seed,
        }

    def weights(self) -> dict[str, Any]:
        """The weights in use, as genae.features.weights.used gives them."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        reference = [] if self.num_reference is None else [f"{self.num_reference} reference images"]
        return reference + weights_notes(self.weights())

    def label(self, name: str) -> str:
        counted = "" if self.num_generated == PUBLISHED_COUNT else f"-{short_count(self.num_generated)}"
        return super().label(name + counted)


class InceptionFrechet(FrechetMetric):
    """Over the 2,048 features of the 2015 Inception."""

    extractor: ClassVar[str] = "inception-2015"
    resize: ClassVar[str] = inception.RESIZE

    def weights(self) -> dict[str, Any]:
        return weights.used("inception-2015")


class EfficientNetFrechet(FrechetMetric):
    """Over the 1,280 pooled features of EfficientNet-Lite0."""

    extractor: ClassVar[str] = "efficientnet-lite0"
    resize: ClassVar[str] = efficientnet.RESIZE

    def weights(self) -> dict[str, Any]:
        return efficientnet.used()


@METRICS.add("fid", small={"num_generated": 4, "num_reference": 4})
@dataclass(kw_only=True)
class FID(InceptionFrechet):
    """Frechet Inception Distance of samples to the training split."""

    name: ClassVar[str] = "fid"


@METRICS.add("fid-mix", small={"num_generated": 4, "num_reference": 4})
@dataclass(kw_only=True)
class FIDMix(InceptionFrechet):
    """FID of style mixtures: codes A and B drawn, layers 1..j from A and the rest from B, j uniform in 1..L-1 per image."""

    name: ClassVar[str] = "fid-mix"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample", "layers"})
    mixed: ClassVar[bool] = True


@METRICS.add("fd-efficientnet", small={"num_generated": 8, "num_reference": 8})
@dataclass(kw_only=True)
class FDEfficientNet(EfficientNetFrechet):
    """Frechet distance of samples to the training split over EfficientNet-Lite0: needs no download, is not FID."""

    name: ClassVar[str] = "fd-efficientnet"


@METRICS.add("fd-mix-efficientnet", small={"num_generated": 8, "num_reference": 8})
@dataclass(kw_only=True)
class FDMixEfficientNet(EfficientNetFrechet):
    """fd-efficientnet of style mixtures, drawn as for fid-mix."""

    name: ClassVar[str] = "fd-mix-efficientnet"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample", "layers"})
    mixed: ClassVar[bool] = True


def reference_statistics(dataset: Dataset, name: str, extractor: Extractor, context: Context) -> Statistics:
    """Statistics of a data set's features, computed once and cached by the content of images, weights and preprocessing."""
    key = {
        "data": dataset.digest,
        "count": len(dataset),
        "extractor": name,
        "weights": extractor.digest,
        "resize": extractor.resize,
        "revision": extractor.revision,
        "device": context.device.type,  # rounding differs between kinds of device
    }

    def build(folder: Path) -> None:
        made = statistics_of(extractor(images) for images in real_images(dataset, context))
        arrays = {"mean": made.mean, "covariance": made.covariance, "root": made.root}
        np.savez(folder / "statistics.npz", **{k: v.cpu().numpy() for k, v in arrays.items() if v is not None})

    with np.load(cached_folder("reference-statistics", key, build) / "statistics.npz") as file:
        arrays = {key: torch.from_numpy(file[key]).to(context.device) for key in file.files}
    return Statistics(len(dataset), **arrays)
