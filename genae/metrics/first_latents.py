"""`first-latents`: how well images come back from the first dimensions of their codes, the rest being zero.

Incremental learning (Yoo et al., 2019, Sec. 3.4) trains the first dimensions longest, on the ground that they then carry the
most important factors of the data; this measures it, as it masks codes in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.images import real_images
from genae.metrics.metric import NotDefined, check_at_least
from genae.metrics.reconstruction import ReconstructionMetric, squared_error
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS


@METRICS.add("first-latents", small={"num_images": 8})
@dataclass(kw_only=True)
class FirstLatents(ReconstructionMetric):
    """Mean squared error, pixels in [-1, 1], of test images decoded from the first dimensions of their codes alone.

    Details: `k1`, `k2`, ... of each number of dimensions kept; `floor`, the error of the mean training image, which is as near
    to all images as one picture can be.

    keep: how many dimensions; None for the mean over every number of them, from one to all.
    num_images: only the first so many of the test split; None for all.
    """

    name: ClassVar[str] = "first-latents"
    keep: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, keep=self.keep)

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float]:
        kept = self._kept(model.latent.dim)
        mean = _mean_image(data.train, context)
        errors = torch.zeros(len(kept), dtype=torch.float64, device=context.device)
        floor = torch.zeros((), dtype=torch.float64, device=context.device)
        images = self._images(data)
        for batch in real_images(images, context):
            codes = model.encode(batch)
            for index, count in enumerate(kept):
                decoded = model.decode(first(codes, count)).clamp(-1, 1)
                errors[index] += squared_error(batch, decoded).double().sum()
            floor += squared_error(batch, mean).double().sum()
        each = (errors / len(images)).tolist()
        named = {f"k{count}": error for count, error in zip(kept, each, strict=True)}
        return {self.name: fmean(each), "floor": floor.item() / len(images)} | named

    def _kept(self, dim: int) -> Sequence[int]:
        if self.keep is None:
            return range(1, dim + 1)
        if self.keep > dim:
            raise NotDefined(f"the codes have {dim} dimensions, of which {self.keep} cannot be kept")
        return [self.keep]

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.keep is None else [f"first {self.keep}"])


def first(codes: Tensor, count: int) -> Tensor:
    """Codes [N, D] whose dimensions after the first `count` are zero."""
    return torch.cat([codes[:, :count], torch.zeros_like(codes[:, count:])], 1)


def _mean_image(data: Dataset, context: Context) -> Tensor:
    """[1, C, H, W] in [-1, 1]."""
    total = sum(batch.double().sum(0, keepdim=True) for batch in real_images(data, context))
    return (total / len(data)).float()
