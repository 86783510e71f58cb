"""Interpolation between four images that the model was not trained on (Heljakka et al., 2019, Fig. 5; 2020, Fig. 12)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.models.autoencoder import Autoencoder
from genae.registry import FIGURES


@FIGURES.add("interpolation", small={"steps": 3})
@dataclass(kw_only=True)
class Interpolation(Figure):
    """A square whose corners are reconstructions of the test images beside them; between them, the latent space's own path.

    steps: images along an edge.  first: the number of the first of the four test images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    caption: ClassVar[str] = (
        "Interpolation between the codes of four test images, which stand beside the corners: these are their reconstructions. "
        "Not chosen."
    )
    steps: int = 8
    first: int = 0

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        images = first_images(data.test, self.first + 4, context.device)[self.first :]
        corners = model.encode(images)
        top_left, top_right, bottom_left, bottom_right = (code.expand(self.steps, -1) for code in corners)
        t = torch.linspace(0, 1, self.steps, device=corners.device)[:, None]
        left = model.latent.interpolate(top_left, bottom_left, t)  # [steps, D], downwards
        right = model.latent.interpolate(top_right, bottom_right, t)
        codes = model.latent.interpolate(
            left.repeat_interleave(self.steps, 0), right.repeat_interleave(self.steps, 0), t.repeat(self.steps, 1)
        )
        square = [list(row) for row in model.decode(codes).split(self.steps)]
        beside = {0: (images[0], images[1]), self.steps - 1: (images[2], images[3])}
        lines = [
            [beside.get(row, (None, None))[0], *inner, beside.get(row, (None, None))[1]] for row, inner in enumerate(square)
        ]
        return grid(lines, header_columns=1, footer_columns=1)
