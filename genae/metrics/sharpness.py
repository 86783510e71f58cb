"""`sharpness` of samples against that of test images, by the variance of the Laplacian (Pech-Pacheco et al., 2000).

As Tolstikhin et al. (2018, Sec. 4) measure samples of WAEs, VAEs and GANs: each image in grey, filtered by the Laplacian
(0 1 0; 1 -4 1; 0 1 0); the variance of what comes out, averaged over images. Here it is given over the same of test images, so
that 1 is as sharp as these. Noise is sharp, too: beyond 1, more is not better, and below it, a number says nothing alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.images import real_images, samples
from genae.metrics.metric import NOISE_INPUTS, Metric, NotDefined, check_at_least, short_count
from genae.models.autoencoder import Generator
from genae.registry import METRICS

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
PUBLISHED_COUNT = 1000


@METRICS.add("sharpness", small={"num_generated": 8, "num_images": 8})
@dataclass(kw_only=True)
class Sharpness(Metric):
    """Mean variance of the Laplacian of samples, over that of test images: 1 is as sharp, less is blurred, noise is more.

    Details: the two, `of_samples` and `of_images`, of pixels in [-1, 1].

    num_generated: samples; another count than 1,000 shows in the column's name.
    num_images: only the first so many of the test split; None for all.
    """

    name: ClassVar[str] = "sharpness"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    direction: ClassVar[str] = "max"
    num_generated: Annotated[int, Ge(1)] = PUBLISHED_COUNT
    num_images: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, num_generated=self.num_generated, num_images=self.num_images)

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        real = _mean(real_images(self._images(data), context))
        if not real:
            raise NotDefined("the test images are blank, so nothing can be as sharp")
        drawn = _mean(samples(model, self.num_generated, context))
        return {self.name: drawn / real, "of_samples": drawn, "of_images": real}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        images = self._images(data)
        return super().protocol(data, context) | {
            "images": {"split": images.split, "digest": images.digest, "count": len(images)},
            "range": [-1, 1],
            "rounded": True,
            "noise": NOISE_INPUTS,
            "seed": context.seed,
        }

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.num_images is None else [f"{self.num_images} images"])

    def label(self, name: str) -> str:
        counted = "" if self.num_generated == PUBLISHED_COUNT else f"-{short_count(self.num_generated)}"
        return super().label(name + counted)

    def _images(self, data: Splits) -> Dataset:
        return data.test.first(self.num_images)


def laplacian_variance(images: Tensor) -> Tensor:
    """The variance of the Laplacian of each image [N, 1 or 3, H, W], where it lies inside the image, in float64: [N]."""
    if images.shape[-1] < 3:
        raise ValueError(f"the Laplacian needs images of at least 3 pixels, not {images.shape[-1]}")
    images = images.double()
    if images.shape[1] == 3:
        images = (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return F.conv2d(images, images.new_tensor(LAPLACIAN)[None, None]).flatten(1).var(1, correction=0)


def _mean(batches: Iterator[Tensor]) -> float:
    return torch.cat([laplacian_variance(images) for images in batches]).mean().item()
