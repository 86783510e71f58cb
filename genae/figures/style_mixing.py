"""Style mixing of real images (Karras et al., 2019, Fig. 3; Heljakka et al., 2020, Sec. 3.2)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.models.autoencoder import Autoencoder, mix
from genae.registry import FIGURES


def coarse_layers(split: int | None, num_layers: int) -> int:
    """How many layers are the coarse ones: `split`, or by default the paper's 4x4 and 8x8 blocks, leaving at least one."""
    if num_layers < 2:
        raise ValueError("mixing needs a decoder of at least two layers")
    if split is None:
        return min(2, num_layers - 1)
    if not 1 <= split < num_layers:
        raise ValueError(f"split must be between 1 and {num_layers - 1}, for a decoder of {num_layers} layers; it is {split}")
    return split


@FIGURES.add("style-mixing", small={"rows": 2, "columns": 2})
@dataclass(kw_only=True)
class StyleMixing(Figure):
    """A matrix: layers 1..split follow the row's image, the rest the column's.

    split: how many layers are the row's; None for the blocks of 4x4 and 8x8.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    caption: ClassVar[str] = (
        "Style mixing of test images: coarse layers from the image at the left, the rest from the image above. Not chosen."
    )
    rows: int = 6
    columns: int = 8
    split: int | None = None

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        split = coarse_layers(self.split, model.num_layers)
        images = first_images(data.test, self.rows + self.columns, context.device)
        codes = model.encode(images)
        coarse, fine = codes[: self.rows], codes[self.rows :]
        mixed = mix(
            coarse.repeat_interleave(self.columns, 0), fine.repeat(self.rows, 1), split, model.num_layers
        )  # [rows * columns, L, D]
        matrix = model.decode(mixed).split(self.columns)

        header = [None, *images[self.rows :]]
        return grid(
            [header, *([left, *row] for left, row in zip(images[: self.rows], matrix, strict=True))],
            header_rows=1,
            header_columns=1,
        )
