"""Test images over what the model makes of their codes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.models.autoencoder import Autoencoder
from genae.registry import FIGURES


@FIGURES.add("reconstructions", small={"num_images": 4, "columns": 2})
@dataclass(kw_only=True)
class Reconstructions(Figure):
    """The first images of the test split, each above its reconstruction."""

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    caption: ClassVar[str] = (
        "Test images (upper rows) and their reconstructions (lower rows). The first of the split, not chosen."
    )
    num_images: int = 20
    columns: int = 10

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        images = first_images(data.test, self.num_images, context.device)
        outputs = model.decode(model.encode(images))
        rows = []
        for inputs, decoded in zip(images.split(self.columns), outputs.split(self.columns), strict=True):
            rows += [list(inputs), list(decoded)]
        return grid(rows, group=2)
