"""An invariance enforced at some layers (Heljakka et al., 2020, Sec. 4.3, Fig. 5): what the first layers drive."""

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


@FIGURES.add("enforced-identity", small={"rows": 2, "columns": 2})
@dataclass(kw_only=True)
class EnforcedIdentity(Figure):
    """A row per source image, at the left; every image of the top row in turn drives the first layers of all sources.

    layers: that the top row drives; the paper's invariance leaves layers 1 and 2 to the pose. Beside each source stands its own
    reconstruction.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    caption: ClassVar[str] = (
        "Identity under driven layers: the first layers from the image above, the others from the source at the left, whose "
        "reconstruction is beside it. Not chosen."
    )
    rows: int = 4
    columns: int = 7
    layers: Layers = (1, 2)

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        images = first_images(data.test, self.rows + self.columns, context.device)
        codes = model.encode(images)
        sources, drivers = codes[: self.rows], codes[self.rows :]
        (driven,) = shown_bands(model, self.layers)
        by_driver = [list(column) for column in mixed(model, drivers, sources, driven)]  # columns of the picture
        lines = [[None, None, *images[self.rows :]]]
        for row, (source, decoded) in enumerate(zip(images, model.decode(sources), strict=False)):
            lines.append([source, decoded, *(column[row] for column in by_driver)])
        return grid(lines, header_rows=1, header_columns=2)

    def caption_for(self, model: Autoencoder) -> str:
        said = in_turn(shown_bands(model, self.layers))
        return (
            f"Identity under driven layers: {said} from the image above, the others from the source at the left, whose "
            "reconstruction is beside it. Not chosen."
        )
