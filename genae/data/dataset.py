"""THE CONTRACT of data: what a data set is to everything that reads one.

A registered factory takes the split ("train", "validation" or "test") and keyword-only settings, and returns a Dataset of
images, or Vectors:

    @DATASETS.add("fashion-mnist")
    def fashion_mnist(split: str, *, resolution: int = 32, num_validation: int = 0) -> Dataset: ...

It has a validation split if it has the setting `num_validation`; one without is never asked for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from genae.data.encoded import EncodedImages

REQUIRED_SPLITS = ("train", "test")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Factor:
    """One factor of variation: continuous in [low, high], or an index into choices.

    scale: "coarse", "middle" or "fine", the size of what it changes.
    """

    name: str
    scale: Literal["coarse", "middle", "fine"]
    meaning: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["continuous", "categorical"]:
        return "categorical" if self.choices else "continuous"


@dataclass(frozen=True)
class Dataset:
    """One split, packed.

    images: uint8 [N, C, H, W] with H = W, memory-mapped or in memory, or decoded wherever they are indexed.
    digest: sha256 (hex) of the content: shape and bytes of the images.
    factors: known factors of variation, each an array [N] or [N, k], where the data set has them.
    described_factors: those of which scale and range are known too, float [N] or an index [N]: what factor-* metrics score.
    """

    name: str
    split: str
    images: np.ndarray | EncodedImages
    digest: str
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    described_factors: tuple[Factor, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return tuple(self.images.shape[1:])

    def first(self, count: int | None) -> "Dataset":
        """The first `count` images as a data set of its own digest (all of them for None)."""
        if count is None or count >= len(self):
            return self
        factors = {name: values[:count] for name, values in self.factors.items()}
        images = self.images.first(count) if isinstance(self.images, EncodedImages) else self.images[:count]
        return replace(self, images=images, digest=f"{self.digest}:{count}", factors=factors)


@dataclass(frozen=True)
class Vectors:
    """One split of vectors, packed: patches, codes.

    vectors: float32 [N, D], memory-mapped or in memory.
    digest: sha256 (hex) of the content: shape and bytes of the vectors.
    """

    name: str
    split: str
    vectors: np.ndarray
    digest: str
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    described_factors: tuple[Factor, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int]:
        """(dimensions,) of a vector."""
        return tuple(self.vectors.shape[1:])

    def first(self, count: int | None) -> "Vectors":
        """The first `count` vectors as a data set of its own digest (all of them for None)."""
        if count is None or count >= len(self):
            return self
        factors = {name: values[:count] for name, values in self.factors.items()}
        return replace(self, vectors=self.vectors[:count], digest=f"{self.digest}:{count}", factors=factors)


class Splits:
    """The splits that a measurement reads, opened when first asked for.

    open_split: split -> Dataset. Where a column is measured on one split of another set, it answers both questions with that.
    """

    def __init__(self, open_split: Callable[[str], Dataset | Vectors]) -> None:
        self._open_split = open_split

    @cached_property
    def train(self) -> Dataset | Vectors:
        return self._open_split("train")

    @cached_property
    def validation(self) -> Dataset | Vectors:
        return self._open_split("validation")

    @cached_property
    def test(self) -> Dataset | Vectors:
        return self._open_split("test")
