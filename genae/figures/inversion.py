"""Distance against seconds of a search for codes, beside one pass of the encoder (Heljakka et al., 2020, Fig. 15)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from genae.context import Context, seconds_of
from genae.data.dataset import Splits
from genae.features.extractor import Distance, MapDistance
from genae.figures.figure import Figure
from genae.figures.grid import first_images
from genae.models.autoencoder import Generator
from genae.models.inversion import CodeSearch, Point
from genae.pixels import face_crop
from genae.registry import FEATURES, FIGURES

SIZE, DPI = (9.0, 3.6), 100  # inches, and pixels of each: 900x360
REPEATS = 5
SEARCH, ENCODER, GREY = "#3f7fd0", "#d9772b", "#8b929b"


@FIGURES.add("inversion", small={"num_images": 2, "iterations": 2})
@dataclass(kw_only=True)
class Inversion(CodeSearch, Figure):
    """Two panels of the same curve, the seconds on a linear and on a logarithmic axis; the encoder's distance is a level line.

    Its defaults are for a processor: the paper has 200 iterations, one image at a time.

    num_images: the first so many of the test split, averaged over.  distance: that is lowered and drawn: that of the metric
    `lpips`, or of `pd-efficientnet`, which needs no download.  crop: `face` draws that of the window about the face; the search
    sees all.
    """

    repeatable: ClassVar[bool] = False
    caption: ClassVar[str] = (
        "Distance of test images to what the codes found for them decode to, against seconds per image of the search; and "
        "where the model encodes, the distance that its encoder's one pass reaches, and when."
    )
    iterations: int = 50
    batch_size: int = 4
    num_images: int = 4
    distance: Literal["lpips", "pd-efficientnet"] = "pd-efficientnet"
    crop: Literal["none", "face"] = "none"

    def draw(self, model: Generator, data: Splits, context: Context) -> np.ndarray:
        with torch.inference_mode(False):  # weights made under it would take no part in a gradient
            loss = self._distance().to(context.device)
        images = first_images(data.test, self.num_images, context.device)
        whole = self.crop == "none"

        def compare(real: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
            return loss(real, outputs) if whole else loss(face_crop(real), face_crop(outputs))

        generator = context.generator("codes to start from")
        curve = self.curve(model, images.split(self.batch_size), loss, compare, generator)
        encoder = None
        if "encode" in model.provides:
            reached = compare(images, model.decode(model.encode(images)).clamp(-1, 1)).mean().item()
            one = images[: self.batch_size]
            seconds = min(seconds_of(lambda: model.encode(one), context.device) for _ in range(REPEATS)) / len(one)
            encoder = Point(0, seconds, reached)
        return drawn(curve, encoder, self.distance + (" (face crop)" if not whole else ""))

    def _distance(self) -> Distance:
        if self.distance == "lpips":
            return FEATURES.build({"name": "lpips"})
        return MapDistance(FEATURES.build({"name": "efficientnet-lite0"}))


def drawn(curve: Sequence[Point], encoder: Point | None, distance: str) -> np.ndarray:
    """The picture, uint8 [360, 900, 3], of a search and of an encoder's one pass."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=SIZE, dpi=DPI, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for panel, scale in zip(figure.subplots(1, 2, sharey=True), ("linear", "log"), strict=True):
        points = [point for point in curve if point.seconds > 0] if scale == "log" else curve  # the start is at no time at all
        panel.plot(
            [point.seconds for point in points],
            [point.distance for point in points],
            color=SEARCH,
            marker="o",
            markersize=3,
            linewidth=1.4,
            label=f"search for codes, up to {curve[-1].iterations} iterations",
        )
        if encoder:
            panel.axhline(encoder.distance, color=ENCODER, linewidth=1.2, label=f"encoder, {encoder.seconds:.2g} s per image")
            panel.plot([encoder.seconds], [encoder.distance], color=ENCODER, marker="D", markersize=5, linestyle="none")
        panel.set_xscale(scale)
        panel.set_ylim(bottom=0)
        panel.set_title(f"{scale} scale", loc="left", fontsize=9)
        panel.set_xlabel("seconds per image", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(color=GREY, alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    left = figure.axes[0]
    left.set_ylabel(distance, fontsize=9)
    left.legend(fontsize=8, frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
