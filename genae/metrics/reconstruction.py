"""How near a reconstruction is to its image, pixel by pixel: mse, l1, psnr, over the test split.

Every number is the mean over images of a number per image. What a decoder gives beyond [-1, 1] is clipped first, not rounded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.images import reconstructions
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS

Comparison = Callable[[Tensor, Tensor], Tensor]  # images and reconstructions [N, C, H, W] in [-1, 1] -> [N]


@dataclass(kw_only=True)
class ReconstructionMetric(Metric):
    """The mean of a comparison of test images with their reconstructions.

    num_images: only the first so many of the test split; None for all.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    num_images: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, num_images=self.num_images)

    def comparison(self, device: torch.device) -> Comparison:
        """The comparison, per image."""
        raise NotImplementedError

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float]:
        compare, dataset = self.comparison(context.device), self._images(data)
        total = torch.zeros((), dtype=torch.float64, device=context.device)
        for images, outputs in reconstructions(model, dataset, context):
            total += compare(images, outputs).to(torch.float64).sum()
        return {self.name: total.item() / len(dataset)}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        dataset = self._images(data)
        return super().protocol(data, context) | {
            "images": {"split": dataset.split, "digest": dataset.digest, "count": len(dataset)},
            "range": [-1, 1],
            "clipped": True,
            "rounded": False,
            "noise": NOISE_INPUTS,
            "dtype": "float32",
        }

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.num_images is None else [f"{self.num_images} images"])

    def _images(self, data: Splits) -> Dataset:
        return data.test.first(self.num_images)


@METRICS.add("mse", small={"num_images": 8})
@dataclass(kw_only=True)
class MeanSquaredError(ReconstructionMetric):
    """Mean squared error of reconstructions, pixels in [-1, 1]; it lies in [0, 4]."""

    name: ClassVar[str] = "mse"

    def comparison(self, device: torch.device) -> Comparison:
        return squared_error


@METRICS.add("l1", small={"num_images": 8})
@dataclass(kw_only=True)
class MeanAbsoluteError(ReconstructionMetric):
    """Mean absolute error of reconstructions, pixels in [-1, 1]; it lies in [0, 2]."""

    name: ClassVar[str] = "l1"

    def comparison(self, device: torch.device) -> Comparison:
        return lambda images, outputs: (images - outputs).abs().mean((1, 2, 3))


@METRICS.add("psnr", small={"num_images": 8})
@dataclass(kw_only=True)
class PeakSignalToNoiseRatio(ReconstructionMetric):
    """Peak signal-to-noise ratio of reconstructions in decibels, averaged over images.

    10 log10(range^2 / mse) with the range 2 of [-1, 1], which is the same as 255 of [0, 255].
    ceiling: an image that is matched exactly has no ratio; none counts for more than this.
    """

    name: ClassVar[str] = "psnr"
    direction: ClassVar[str] = "max"
    ceiling: float = 100.0

    def comparison(self, device: torch.device) -> Comparison:
        def decibels(images: Tensor, outputs: Tensor) -> Tensor:
            return (10 * (4 / squared_error(images, outputs).double()).log10()).clamp(max=self.ceiling)

        return decibels

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"data_range": 2}


def squared_error(images: Tensor, outputs: Tensor) -> Tensor:
    """Mean squared error of each image, [N]."""
    return (images - outputs).square().mean((1, 2, 3))
