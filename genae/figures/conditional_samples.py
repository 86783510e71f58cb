"""Conditional samples (Heljakka et al., 2019, 2020): the coarse layers of a real image, the others drawn at random."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.figures.style_mixing import coarse_layers
from genae.models.autoencoder import Autoencoder, mix
from genae.registry import FIGURES


@FIGURES.add("conditional-samples", small={"rows": 2, "columns": 2})
@dataclass(kw_only=True)
class ConditionalSamples(Figure):
    """A row per test image: the image, then samples that keep its coarse layers. A column's random layers are the same.

    split: how many layers are the image's; None for the blocks of 4x4 and 8x8.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    caption: ClassVar[str] = (
        "Conditional samples: at the left a test image, then its coarse layers with the others drawn at random. Not chosen."
    )
    rows: int = 5
    columns: int = 8
    split: int | None = None

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        split = coarse_layers(self.split, model.num_layers)
        images = first_images(data.test, self.rows, context.device)
        drawn = model.sample_codes(self.columns, context.generator("layers to show")).to(context.device)
        mixed = mix(
            model.encode(images).repeat_interleave(self.columns, 0), drawn.repeat(self.rows, 1), split, model.num_layers
        )  # [rows * columns, L, D]
        matrix = model.decode(mixed).split(self.columns)
        return grid([[image, *row] for image, row in zip(images, matrix, strict=True)], header_columns=1)
