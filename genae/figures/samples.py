"""What the model makes of codes drawn at random."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import grid
from genae.models.autoencoder import Generator
from genae.registry import FIGURES


@FIGURES.add("samples", small={"rows": 2, "columns": 3})
@dataclass(kw_only=True)
class Samples(Figure):
    """Decoded random codes."""

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    caption: ClassVar[str] = f"Samples: {Generator.drawn}. The first drawn, not chosen."
    rows: int = 5
    columns: int = 10

    def caption_for(self, model: Generator) -> str:
        return self.caption.replace(Generator.drawn, model.drawn)

    def draw(self, model: Generator, data: Splits, context: Context) -> np.ndarray:
        codes = model.sample_codes(self.rows * self.columns, context.generator("samples to show"))
        return grid([list(row) for row in model.decode(codes.to(context.device)).split(self.columns)])
