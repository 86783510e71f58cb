"""Interpolation between images that the model was not trained on: between four (Heljakka et al., 2019, Fig. 5; 2020, Fig. 12),

and in rows between two, within a domain of the data and across two (Yoo et al., 2019, Fig. 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.figures.figure import Figure
from genae.figures.grid import first_images, grid
from genae.models.autoencoder import Autoencoder
from genae.pixels import from_uint8
from genae.registry import FIGURES

DOMAINS = {"any": (0, 0), "within-first": (0, 0), "within-second": (1, 1), "across": (0, 1)}  # at the left, at the right


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


@FIGURES.add("interpolation-rows", small={"steps": 3, "rows": 2})
@dataclass(kw_only=True)
class InterpolationRows(Figure):
    """In each row two test images at the sides, next to them their reconstructions, and between, the latent space's own path.

    pairs: any two images; or for data of two domains (the factor `domain`, 0 or 1) two of the first, two of the second, or one
        of each.
    steps: images along a path.  rows: of these.  first: the number of the first image, of its domain.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    caption: ClassVar[str] = (
        "Interpolation between the codes of two test images, which stand at the sides; next to them are their reconstructions. "
        "The first of the split, not chosen."
    )
    pairs: Literal["any", "within-first", "within-second", "across"] = "any"
    steps: Annotated[int, Ge(2)] = 8
    rows: Annotated[int, Ge(1)] = 4
    first: int = 0

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        left, right = (from_uint8(torch.tensor(data.test.images[of]).to(context.device)) for of in self._places(data.test))
        start, end = (model.encode(images).repeat_interleave(self.steps, 0) for images in (left, right))  # [rows steps, D]
        t = torch.linspace(0, 1, self.steps, device=start.device).repeat(self.rows)[:, None]
        between = model.decode(model.latent.interpolate(start, end, t)).split(self.steps)
        lines = [[a, *inner, b] for a, inner, b in zip(left, between, right, strict=True)]
        return grid(lines, header_columns=1, footer_columns=1)

    def caption_for(self, model: Autoencoder) -> str:
        whose = {"within-first": "of the first domain", "within-second": "of the second domain", "across": "of two domains"}
        return self.caption.replace("test images", f"test images {whose[self.pairs]}") if self.pairs in whose else self.caption

    def _places(self, data: Dataset) -> Sequence[np.ndarray]:
        """The numbers of the images at the left, and of those at the right, [rows] each.

        Of one domain its first image goes with its second, its third with its fourth; across, the first with the first.
        """
        if self.pairs != "any" and "domain" not in data.factors:
            raise ValueError(f"pairs: {self.pairs} needs data of two domains; {data.name} has no factor `domain`")
        domains = np.zeros(len(data)) if self.pairs == "any" else np.asarray(data.factors["domain"])
        apart = 0 if self.pairs == "across" else 1
        left = self.first + (1 + apart) * np.arange(self.rows)
        places = []
        for domain, of in zip(DOMAINS[self.pairs], (left, left + apart), strict=True):
            numbers = np.flatnonzero(domains == domain)
            if left[-1] + apart >= len(numbers):
                which = "" if self.pairs == "any" else f" of domain {domain}"
                raise ValueError(
                    f"the figure shows {left[-1] + apart + 1} images{which}; {data.name} has {len(numbers)}{which}"
                )
            places.append(numbers[of])
        return places
