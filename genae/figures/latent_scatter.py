"""Where test images lie in a latent space of two dimensions, and what is left of them there (Yoo et al., 2019, Fig. 2)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Splits
from genae.figures.figure import Figure
from genae.figures.grid import READABLE, first_images, grid
from genae.models.autoencoder import Autoencoder
from genae.pixels import from_uint8, reduce
from genae.registry import FIGURES

SIDE, DPI = 4.8, 100  # inches, and pixels of each: the scatter is 480x480
ABREAST = 2  # pairs in a row
GAP = 16  # pixels
NAMED = 20  # more labels have no key
GREY = "#8b929b"


@FIGURES.add("latent-scatter", small={"num_codes": 6, "num_pairs": 4})
@dataclass(kw_only=True)
class LatentScatter(Figure):
    """The first two dimensions of the codes of test images, in a colour for each label; beside them, some reconstructions.

    num_codes: of the first so many test images, or of as many as there are.  num_pairs: test images beside what the model makes
    of their codes.
    label: the factor whose values have a colour each; data without it are grey.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    caption: ClassVar[str] = (
        "Codes of test images, in a colour for each label, and pairs of a test image and its reconstruction. The first of the "
        "split, not chosen."
    )
    num_codes: Annotated[int, Ge(1)] = 2000
    num_pairs: Annotated[int, Ge(1)] = 14
    label: str = "label"

    def draw(self, model: Autoencoder, data: Splits, context: Context) -> np.ndarray:
        test = data.test.first(self.num_codes)
        codes = []
        for start in range(0, len(test), context.batch_size):
            images = torch.tensor(test.images[start : start + context.batch_size])
            codes.append(model.encode(from_uint8(images.to(context.device))).cpu())
        dots = scatter(torch.cat(codes), np.asarray(test.factors[self.label]) if self.label in test.factors else None)

        images = first_images(data.test, self.num_pairs, context.device)
        pairs = torch.stack([shown(images), shown(model.decode(model.encode(images)))], 1)  # [num_pairs, 2, C, H, W]
        return beside(dots, grid([list(row.flatten(0, 1)) for row in pairs.split(ABREAST)], header_columns=2))

    def caption_for(self, model: Autoencoder) -> str:
        if model.latent.dim == 2:
            return self.caption
        return f"Of {model.latent.dim} dimensions the first two. {self.caption}"


def scatter(codes: Tensor, labels: np.ndarray | None) -> np.ndarray:
    """Uint8 [480, 480, 3]: a dot for each of the codes [N, D] at its first two dimensions; of one alone, on a level line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    x, y = F.pad(codes, (0, 1))[:, :2].double().numpy().T
    figure = Canvas(figsize=(SIDE, SIDE), dpi=DPI, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panel = figure.subplots()
    size = min(40.0, 8000 / len(codes))
    if labels is None:
        panel.scatter(x, y, s=size, color=GREY, linewidths=0)
    else:
        values = np.unique(labels)
        for value, colour in zip(values, colours_of(len(values)), strict=True):
            panel.scatter(x[labels == value], y[labels == value], s=size, color=colour, linewidths=0, label=str(value))
        if len(values) <= NAMED:
            key = figure.legend(
                loc="outside upper center", ncols=10, fontsize=7, frameon=False, handletextpad=0, columnspacing=0.8
            )
            for handle in key.legend_handles:
                handle.set_sizes([24])
    panel.tick_params(labelsize=7)
    panel.set_aspect("equal", adjustable="datalim")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def colours_of(count: int) -> list[tuple[float, ...]]:
    """As many colours, told apart as well as may be."""
    import matplotlib as mpl

    if count <= 10:
        return list(mpl.colormaps["tab10"].colors[:count])
    return [tuple(colour) for colour in mpl.colormaps["turbo"](np.linspace(0, 1, count))]


def shown(images: Tensor) -> Tensor:
    """Images at no more than a readable size, where an area average has it."""
    size = images.shape[-1]
    return reduce(images, READABLE) if size > READABLE and size % READABLE == 0 else images


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures, the lower one filled up with white below."""
    height = max(len(left), len(right))
    parts = [np.pad(part, ((0, height - len(part)), (0, 0), (0, 0)), constant_values=255) for part in (left, right)]
    return np.concatenate([parts[0], np.full((height, GAP, 3), 255, np.uint8), parts[1]], 1)
