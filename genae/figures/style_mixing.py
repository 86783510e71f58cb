"""Style mixing of real images (Karras et al., 2019, Fig. 3; Heljakka et al., 2019, Fig. 4; 2020, Figs. 4a, 13, 14)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.models.autoencoder import Autoencoder, mix
from genae.models.bands import Band, Layers, band, bands
from genae.registry import FIGURES


@FIGURES.add("style-mixing", small={"rows": 2, "columns": 2})
@dataclass(kw_only=True)
class StyleMixing(Figure):
    """A matrix: some layers follow the row's image, the others the column's.

    layers: that follow the row's: coarse, intermediate or fine ones (genae.models.bands), or a range [first, last]; None shows
    every band of the decoder in turn.  rows: of each band, the same images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    caption: ClassVar[str] = (
        "Style mixing of test images: some layers from the image at the left, the others from the image above. Not chosen."
    )
    rows: int = 3
    columns: int = 8
    layers: Layers | None = None

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        images = first_images(data.test, self.rows + self.columns, context.device)
        codes = model.encode(images)
        lines = [[None, *images[self.rows :]]]
        for shown in shown_bands(model, self.layers):
            matrix = mixed(model, codes[: self.rows], codes[self.rows :], shown)
            lines += [[left, *row] for left, row in zip(images[: self.rows], matrix, strict=True)]
        return grid(lines, header_rows=1, header_columns=1, group=self.rows)

    def caption_for(self, model: Autoencoder) -> str:
        said = in_turn(shown_bands(model, self.layers))
        return f"Style mixing of test images: {said} from the image at the left, the others from the image above. Not chosen."


def shown_bands(model: Autoencoder, layers: Layers | None) -> list[Band]:
    """The bands that a figure shows, one under the other: the one of its setting, or all that the decoder has."""
    resolutions = model.layer_resolutions
    return list(bands(resolutions).values()) if layers is None else [band(resolutions, layers)]


def in_turn(shown: list[Band]) -> str:
    """The bands in the words of a caption."""
    return ", then ".join(each.words for each in shown)


def mixed(model: Autoencoder, driving: Tensor, others: Tensor, chosen: Band) -> tuple[Tensor, ...]:
    """A row of images [C, ...] for each of the R codes in `driving`, which drives the chosen layers of all of them.

    driving: [R, D].  others: [C, D], one per column, for all other layers.
    """
    rows, columns = len(driving), len(others)
    codes = mix(
        driving.repeat_interleave(columns, 0), others.repeat(rows, 1), chosen.last, model.num_layers, first=chosen.first
    )  # [R * C, L, D]
    return model.decode(codes).split(columns)
