"""Shapes painted over one another on small canvases, anti-aliased, many pictures at a time.

A shape is its signed distance on the plane [-1, 1] x [-1, 1] (x right, y down) together with a box that holds it; a pixel is
covered by 1/2 - distance / pixel width, clipped to [0, 1]. Only + - * / and square roots are taken per pixel, in float32.
"""

from collections.abc import Callable

import numpy as np

Value = np.ndarray | float  # a number for each picture, [n, 1, 1], or one for all
Box = tuple[Value, Value, Value, Value]  # left, right, top, bottom
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x [1, 1, w], y [1, h, 1]) -> signed distance [n, h, w]


class Canvas:
    """n pictures of `resolution`, as three planes [n, R, R] of float32 in [0, 1], painted shape over shape."""

    def __init__(self, background: np.ndarray, resolution: int) -> None:
        self.planes = background  # [3, n, R, R]
        self.pixel = np.float32(2 / resolution)
        self.axis = ((np.arange(resolution) + 0.5) * (2 / resolution) - 1).astype(
            np.float32
        )  # pixel centres, exactly symmetric

    def paint(self, shape: Shape, extent: Box, color: Value | tuple, opacity: Value = 1.0, *, blur: float = 0.0) -> None:
        """Lay a shape of one colour over what is there.

        extent: left, right, top, bottom, numbers or [n, 1, 1]: a box that holds the whole shape; only its pixels are touched.
        color: three numbers, or [3, n, 1, 1].  blur: the width over which the edge fades, where that is more than a pixel.
        """
        window = self.window(extent, blur)
        if window is None:
            return
        rows, columns = window
        distance = shape(self.axis[None, None, columns], self.axis[None, rows, None])
        cover = np.float32(0.5) - distance * np.float32(1 / max(self.pixel, blur))
        np.clip(cover, 0, 1, out=cover)
        cover *= np.asarray(opacity, np.float32)
        for plane, value in zip(self.planes, np.asarray(color, np.float32), strict=True):
            below = plane[:, rows, columns]
            below += cover * (value - below)

    def window(self, extent: Box, blur: float = 0.0) -> tuple[slice, slice] | None:
        """The rows and columns that the box of any of the pictures touches, with a pixel to spare."""
        left, right, top, bottom = (np.asarray(edge) for edge in extent)
        rows = self._span(float(top.min()) - blur, float(bottom.max()) + blur)
        columns = self._span(float(left.min()) - blur, float(right.max()) + blur)
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def _span(self, begin: float, end: float) -> slice:
        first = int(np.floor((begin + 1) / self.pixel)) - 1
        last = int(np.ceil((end + 1) / self.pixel)) + 1
        return slice(max(0, first), max(0, min(len(self.axis), last)))


def ellipse(center_x: Value, center_y: Value, half_width: Value, half_height: Value) -> tuple[Shape, Box]:
    """An upright ellipse; its distance to first order, exact on the outline."""
    x0, y0, a, b = _single(center_x, center_y, half_width, half_height)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = ((x - x0) / a) ** 2, ((y - y0) / b) ** 2
        radius = np.sqrt(u + v)
        return radius * (radius - 1) / (np.sqrt(u / a**2 + v / b**2) + np.float32(1e-6))

    return distance, _box(x0, y0, a, b)


def ring(center_x: Value, center_y: Value, half_width: Value, half_height: Value, half_line: float) -> tuple[Shape, Box]:
    """The outline of an ellipse, as a line of width 2 half_line."""
    disc, _ = ellipse(center_x, center_y, half_width, half_height)
    line = np.float32(half_line)
    return lambda x, y: np.abs(disc(x, y)) - line, _box(center_x, center_y, half_width + half_line, half_height + half_line)


def slab(center_x: Value, center_y: Value, half_width: Value, half_height: Value) -> tuple[Shape, Box]:
    """An upright rectangle."""
    x0, y0, a, b = _single(center_x, center_y, half_width, half_height)
    return lambda x, y: np.maximum(np.abs(x - x0) - a, np.abs(y - y0) - b), _box(x0, y0, a, b)


def curved_band(
    center_x: Value, center_y: Value, half_width: Value, half_height: Value, tilt: Value, bend: Value
) -> tuple[Shape, Box]:
    """A lens about the parabola y = center_y + tilt t + bend (t^2 - 1/2), t = (x - center_x) / half_width in [-1, 1].

    It is 2 half_height high in the middle and ends in points. The distance is the vertical one over the parabola's steepness.
    """
    x0, y0, a, b, slope, curve = _single(center_x, center_y, half_width, half_height, tilt, bend)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        t = (x - x0) / a  # [n, 1, w]
        line = y0 + slope * t + curve * (t * t - np.float32(0.5))
        steepness = np.sqrt(1 + ((slope + 2 * curve * t) / a) ** 2)
        thickness = b * (1 - t * t)
        return np.maximum((np.abs(y - line) - thickness) / steepness, np.abs(x - x0) - a)  # the points end the band

    reach = b + np.abs(slope) + np.abs(curve)
    return distance, _box(x0, y0, a, reach)


def _single(*values: Value) -> list[np.ndarray]:
    """As float32, so that no plane is promoted to doubles."""
    return [np.asarray(value, np.float32) for value in values]


def _box(center_x: Value, center_y: Value, half_width: Value, half_height: Value) -> Box:
    return center_x - half_width, center_x + half_width, center_y - half_height, center_y + half_height
