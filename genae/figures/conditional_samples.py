"""Conditional samples (Heljakka et al., 2019, Fig. 2; 2020, Fig. 11): some layers of a real image, the others drawn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.figures.style_mixing import in_turn, mixed, shown_bands
from genae.models.autoencoder import Autoencoder
from genae.models.bands import Layers
from genae.registry import FIGURES


@FIGURES.add("conditional-samples", small={"rows": 2, "columns": 2})
@dataclass(kw_only=True)
class ConditionalSamples(Figure):
    """A row per test image: the image, then samples that keep some of its layers. A column's drawn code is the same throughout.

    layers: that are kept: coarse, intermediate or fine ones (genae.models.bands), or a range [first, last]; None shows every
    band of the decoder in turn.  rows: of each band, the same images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample", "encode", "layers"})
    caption: ClassVar[str] = (
        "Conditional samples: at the left a test image, of which some layers are kept, the others drawn at random. Not chosen."
    )
    rows: int = 3
    columns: int = 8
    layers: Layers | None = None

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        images = first_images(data.test, self.rows, context.device)
        codes = model.encode(images)
        drawn = model.sample_codes(self.columns, context.generator("layers to show")).to(context.device)
        lines = []
        for shown in shown_bands(model, self.layers):
            matrix = mixed(model, codes, drawn, shown)
            lines += [[left, *row] for left, row in zip(images, matrix, strict=True)]
        return grid(lines, header_columns=1, group=self.rows)

    def caption_for(self, model: Autoencoder) -> str:
        said = in_turn(shown_bands(model, self.layers))
        return (
            f"Conditional samples: at the left a test image, of which {said} are kept, the others drawn at random. Not chosen."
        )
