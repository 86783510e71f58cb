"""Images laid out in rows and columns: one uint8 picture with thin white lines, small images enlarged to be readable."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genae.data.dataset import Dataset
from genae.pixels import from_uint8, to_rgb, to_uint8

LINE = 2  # pixels between images
HEADER_LINE = 8  # pixels between the headers and the rest
LARGEST_WIDTH = 900
READABLE = 64  # pixels: smaller images are enlarged towards this size, by a whole factor


def grid(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    header_rows: int = 0,
    header_columns: int = 0,
    footer_columns: int = 0,
    group: int | None = None,
) -> np.ndarray:
    """The picture, uint8 [height, width, 3], of float images [C, H, W] in [-1, 1], all of one size; None is left white.

    header_rows, header_columns: the first so many stand apart.  footer_columns: the last so many do.  group: of the other rows,
    so many belong together, apart from the next.
    """
    size = next(image.shape[-1] for row in rows for image in row if image is not None)
    columns = max(len(row) for row in rows)
    scale = max(1, min(READABLE // size, LARGEST_WIDTH // (columns * size)))
    cell = size * scale
    groups = range(header_rows, len(rows), group) if group else [header_rows]
    tops = _starts(len(rows), cell, set(groups))
    lefts = _starts(columns, cell, {header_columns, columns - footer_columns})

    picture = np.full((tops[-1] + cell, lefts[-1] + cell, 3), 255, dtype=np.uint8)
    for top, row in zip(tops, rows, strict=True):
        for left, image in zip(lefts, row, strict=False):
            if image is not None:
                picture[top : top + cell, left : left + cell] = _enlarged(image, scale)
    return picture


def first_images(dataset: Dataset, count: int, device: torch.device) -> Tensor:
    """The first images of a data set, float [N, C, H, W] in [-1, 1]: nobody chose them."""
    if count > len(dataset):
        raise ValueError(f"the figure shows {count} images; the {dataset.split} split of {dataset.name} has {len(dataset)}")
    return from_uint8(torch.tensor(dataset.images[:count]).to(device))


def _starts(count: int, cell: int, apart: set[int]) -> list[int]:
    """Where each of `count` cells begins; those in `apart` keep a wider distance from the one before."""
    starts = [0]
    for index in range(1, count):
        starts.append(starts[-1] + cell + (HEADER_LINE if index in apart else LINE))
    return starts


def _enlarged(image: Tensor, scale: int) -> np.ndarray:
    """[C, H, W] -> uint8 [H * scale, W * scale, 3], every pixel a square."""
    pixels = to_uint8(to_rgb(image[None]))[0].permute(1, 2, 0).cpu().numpy()
    return pixels.repeat(scale, 0).repeat(scale, 1)
