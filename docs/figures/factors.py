"""Draws docs/figures/factors-16.png: each factor of synthetic-faces swept while the others stay, on two faces, at 16x16.

    python docs/figures/factors.py

Rows are the factors in their order, coarse, middle and fine ones apart.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from genae.data.synthetic_faces import FACTORS, draw

PICTURE = Path(__file__).with_name("factors-16.png")
RESOLUTION, STEPS, SCALE, GAP = 16, 6, 4, 10
FACES = (
    {"azimuth": 0.1, "head_shape": -0.3, "hair_style": 1, "skin_tone": 0.15, "hair_color": 1, "background_color": 0.75},
    {"azimuth": -0.4, "head_shape": 0.3, "hair_style": 0, "skin_tone": 0.45, "hair_color": 0, "background_color": 0.4},
)
BOTH = {"expression": 0.3, "mouth_opening": 0.3, "eyebrows": 0.0, "glasses": 0, "texture": 0}


def sheet() -> np.ndarray:
    """The picture, uint8 [height, width, 3]."""
    bands: list[np.ndarray] = []
    for before, factor in zip((None, *FACTORS), FACTORS, strict=False):
        values = np.arange(STEPS) % len(factor.choices) if factor.choices else np.linspace(factor.low, factor.high, STEPS)
        rows = [np.concatenate(draw(_face(number) | {factor.name: values}, RESOLUTION), axis=2) for number in range(len(FACES))]
        gap = np.full((3, RESOLUTION, GAP // SCALE), 255, np.uint8)
        band = np.concatenate([rows[0], gap, rows[1]], axis=2)  # [3, R, width]
        if before and before.scale != factor.scale:
            bands.append(np.full((3, GAP // SCALE, band.shape[2]), 255, np.uint8))
        bands.append(band)
    picture = np.concatenate(bands, axis=1).transpose(1, 2, 0)
    return picture.repeat(SCALE, 0).repeat(SCALE, 1)


def _face(number: int) -> dict[str, np.ndarray]:
    """A face STEPS times over."""
    return {name: np.full(STEPS, value) for name, value in (FACES[number] | BOTH).items()}


if __name__ == "__main__":
    Image.fromarray(sheet()).save(PICTURE, optimize=True)
