"""Drawn faces in colour, whose factors of variation are known, at any power-of-two resolution.

A face is a function of its factors, and its factors of (seed, index): face i is the same however many are drawn, in whatever
order, beside whichever others, and at every resolution. Each factor belongs to a scale, so that style mixing, conditional
sampling and invariance can be scored: coarse ones move outlines, middle ones features, fine ones only colours and patterns.

Shapes are signed distances on the plane [-1, 1] x [-1, 1] (x right, y down), covered by 1/2 - distance / pixel width, clipped.
Features sit on a round head: azimuth turns it, so they shift by sin and narrow by cos, and the mirrored face has the mirrored
azimuth. Per pixel only + - * / and square roots are taken, which IEEE 754 rounds alike on every machine: equal bytes anywhere.
"""

from collections.abc import Mapping

import numpy as np

from genae.data.dataset import Factor
from genae.data.drawing import Canvas, curved_band, ellipse, ring, slab
from genae.randomness import seed_for

REVISION = 3  # raised when the same factors come to draw other pixels
RESOLUTIONS = (16, 32, 64, 128, 256)
_DRAWN_AT_LEAST = 64  # smaller faces are averaged from this, as thin lines need it
_PIXELS_AT_ONCE = 65_536  # faces are drawn in groups whose planes stay in a core's cache


FACTORS = (  # one is added at the end only: the draws of those before it stay
    Factor("azimuth", "coarse", "turned and moved to the left of the image (-1, 36 degrees) .. to its right (1)", -1, 1),
    Factor("head_shape", "coarse", "round and wide (-1) .. long and narrow (1)", -1, 1),
    Factor("hair_style", "coarse", "outline of the hair", choices=("short", "long", "curly")),
    Factor("expression", "middle", "frown (-1) .. smile (1)", -1, 1),
    Factor("mouth_opening", "middle", "closed (0) .. open (1)"),
    Factor("eyebrows", "middle", "worried, inner ends up (-1) .. cross, inner ends down (1)", -1, 1),
    Factor("glasses", "middle", "what is worn", choices=("none", "round", "dark")),
    Factor("skin_tone", "fine", "pale (0) .. dark (1)"),
    Factor("hair_color", "fine", "of hair and eyebrows", choices=("black", "brown", "red", "blond", "grey", "blue")),
    Factor("background_color", "fine", "along red, yellow, green, cyan, blue, violet (0 .. 1)"),
    Factor("texture", "fine", "of the background", choices=("plain", "bands", "columns", "checks")),
)

# Colours in [0, 1]: ramps are read between their stops, lists by index.
_SKIN = np.array([(1.0, 0.88, 0.78), (0.95, 0.76, 0.6), (0.82, 0.58, 0.41), (0.62, 0.41, 0.27), (0.44, 0.28, 0.19)])
_BACKGROUND = np.array(
    [(0.9, 0.45, 0.42), (0.93, 0.79, 0.4), (0.52, 0.77, 0.46), (0.4, 0.76, 0.78), (0.42, 0.55, 0.88), (0.69, 0.5, 0.83)]
)
_HAIR = np.array(
    [(0.1, 0.09, 0.1), (0.27, 0.15, 0.09), (0.7, 0.27, 0.1), (0.94, 0.78, 0.37), (0.74, 0.74, 0.77), (0.2, 0.33, 0.76)]
)
_CLOTHES, _WHITE, _IRIS, _BLACK = (0.25, 0.28, 0.4), (0.98, 0.98, 0.98), (0.24, 0.3, 0.35), (0.06, 0.05, 0.07)
_LIPS, _MOUTH, _FRAME, _LENS = (0.78, 0.23, 0.27), (0.3, 0.05, 0.08), (0.1, 0.09, 0.13), (0.8, 0.92, 1.0)
_BLUSH = np.array([1.0, 0.84, 0.82]).reshape(3, 1, 1, 1)  # times the skin's own

_TURN = np.deg2rad(36)  # azimuth 1
_MOVE = 0.14  # of the head, at azimuth 1: a pixel at 16x16, where a turn alone hardly moves an outline
_EYE_ANGLE = np.deg2rad(26)  # of each eye from the middle of the face


def sample_factors(indices: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The factors of faces `indices` of the stream `seed`: float32 [N] for continuous ones, int64 [N] for categorical ones."""
    drawn = np.empty((len(indices), len(FACTORS)))
    for row, index in enumerate(indices):
        generator = np.random.Generator(np.random.Philox(seed_for("synthetic-faces", seed, int(index))))
        drawn[row] = generator.random(len(FACTORS))
    return {factor.name: _scaled(factor, drawn[:, column]) for column, factor in enumerate(FACTORS)}


def _scaled(factor: Factor, uniform: np.ndarray) -> np.ndarray:
    if factor.choices:
        return (uniform * len(factor.choices)).astype(np.int64)
    return (factor.low + (factor.high - factor.low) * uniform).astype(np.float32)


def draw(factors: Mapping[str, np.ndarray], resolution: int) -> np.ndarray:
    """Faces as uint8 [N, 3, resolution, resolution].

    factors: every one of FACTORS, an array [N] each, of any values in range. Raises ValueError for others.
    """
    values = _checked(factors, resolution)
    count, drawn_at = len(values["azimuth"]), max(resolution, _DRAWN_AT_LEAST)
    group = max(1, _PIXELS_AT_ONCE // drawn_at**2)
    faces = np.empty((count, 3, resolution, resolution), np.uint8)
    for start in range(0, count, group):
        rows = slice(start, start + group)
        planes = _draw_group({name: column[rows] for name, column in values.items()}, drawn_at)
        while planes.shape[-1] > resolution:  # written out, because the order of a mean's additions is NumPy's own affair
            columns = planes[..., 0::2] + planes[..., 1::2]
            planes = (columns[..., 0::2, :] + columns[..., 1::2, :]) * np.float32(0.25)
        faces[rows] = np.rint(planes * np.float32(255)).clip(0, 255).transpose(1, 0, 2, 3)
    return faces


def _checked(factors: Mapping[str, np.ndarray], resolution: int) -> dict[str, np.ndarray]:
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution {resolution}: faces are drawn at {', '.join(map(str, RESOLUTIONS))} pixels")
    names = [factor.name for factor in FACTORS]
    if set(factors) != set(names):
        raise ValueError(f"a face needs exactly the factors {', '.join(names)}; given: {', '.join(factors)}")
    values = {}
    for factor in FACTORS:
        column = np.asarray(factors[factor.name])
        low, high = (0, len(factor.choices) - 1) if factor.choices else (factor.low, factor.high)
        if column.ndim != 1 or not ((column >= low) & (column <= high)).all():
            raise ValueError(f"factor {factor.name!r} must be an array [N] of values from {low} to {high}")
        values[factor.name] = column
    if len({len(column) for column in values.values()}) != 1:
        raise ValueError("every factor needs one value for each face")
    return values


def _draw_group(values: Mapping[str, np.ndarray], resolution: int) -> np.ndarray:
    """A few faces, back to front, as planes float32 [3, n, R, R] in [0, 1]."""
    given = {name: column.reshape(-1, 1, 1) for name, column in values.items()}  # [n, 1, 1]: one value a picture
    azimuth = given["azimuth"].astype(np.float64)
    turn, axis = azimuth * _TURN, azimuth * _MOVE  # axis: x of the head's own
    narrow = (given["head_shape"].astype(np.float64) + 1) / 2  # 0 .. 1
    width, height = 0.7 - 0.24 * narrow, 0.62 + 0.14 * narrow  # half axes of the head
    middle = 0.12 - 0.02 * narrow  # its height in the picture
    style, glasses = given["hair_style"], given["glasses"]
    short, long, curly = style == 0, style == 1, style == 2
    skin = _ramp(_SKIN, values["skin_tone"])
    hair = _HAIR[values["hair_color"]].T[..., None, None]  # [3, n, 1, 1]

    def across(angle: float | np.ndarray, depth: float = 1.0) -> np.ndarray:
        """x of a point of the head's surface that sits `angle` from the middle of the face."""
        return axis + width * depth * np.sin(turn + angle)

    def narrowing(angle: float = 0.0) -> np.ndarray:
        """How much the turn narrows what lies on the surface there."""
        return np.cos(turn + angle).clip(0.3)

    canvas = Canvas(_background(values, resolution), resolution)

    # Behind the head: long or curly hair, shoulders, neck, ears.
    back = across(0, -0.2)
    canvas.paint(*ellipse(back, middle - 0.1, width * 1.36, height * 1.2), hair, curly)
    for turn_of_curl in np.linspace(-2.2, 2.2, 9):  # from the top of the head, to both sides
        curl_x, curl_y = back + width * 1.3 * np.sin(turn_of_curl), middle - 0.1 - height * 1.14 * np.cos(turn_of_curl)
        canvas.paint(*ellipse(curl_x, curl_y, width * 0.34, width * 0.34), hair, curly)
    canvas.paint(*ellipse(axis + (back - axis) * 0.6, middle + 0.2, width * 1.22, height * 1.32), hair, long)
    canvas.paint(*ellipse(0.0, 1.32, 0.86, 0.46), _CLOTHES)
    canvas.paint(*slab(axis * 0.7, middle + 0.75, width * 0.4, 0.35), skin * 0.78)
    canvas.paint(*ellipse(axis * 0.7, middle + height + 0.22, width * 0.4, 0.1), skin * 0.78)
    for side in (-1, 1):
        canvas.paint(*ellipse(across(side * np.pi / 2, 1.03), middle + 0.06, 0.09, 0.14), skin * 0.86, short)

    # The head, a little darker where it bends away.
    head, head_box = ellipse(axis, middle, width, height)
    canvas.paint(head, head_box, skin * 0.84)
    lit, _ = ellipse(across(0, 0.3), middle - 0.04, width * 0.95, height * 0.95)
    canvas.paint(lambda x, y: np.maximum(head(x, y), lit(x, y)), head_box, skin, blur=0.12)
    for side in (-1, 1):
        angle = side * np.deg2rad(38)
        cheek, cheek_box = ellipse(across(angle), middle + 0.24, 0.1 * narrowing(angle), 0.07)
        canvas.paint(lambda x, y, c=cheek: np.maximum(c(x, y), head(x, y) + 0.06), cheek_box, skin * _BLUSH, 0.7, blur=0.12)

    # What glasses rest on runs under the hair.
    eye_level = middle - 0.02
    worn, dark = glasses > 0, glasses == 2
    for side in (-1, 1):
        outer, temple = across(side * _EYE_ANGLE, 1.04), across(side * np.pi / 2)
        ahead = side * (temple - outer) > 0
        canvas.paint(*slab((outer + temple) / 2, eye_level - 0.02, abs(temple - outer) / 2, 0.025), _FRAME, worn & ahead)

    # Hair in front: what of the skull the opening about the face leaves; it turns with the face.
    skull, skull_box = ellipse(across(0, -0.06), middle - 0.04, width * 1.06, height * 1.06)
    opening, _ = ellipse(across(0, 0.5), middle + 0.2, width * 0.9, height * 0.9)
    end = np.where(short, middle - 0.02, np.where(curly, middle + 0.3, 2.0)).astype(np.float32)  # how far down it reaches
    canvas.paint(lambda x, y: np.maximum(np.maximum(skull(x, y), -opening(x, y)), y - end), skull_box, hair)
    for side in (-1, 1):  # the ear on the side that comes forward
        angle = side * np.pi / 2
        toward = (np.cos(turn + angle) / 0.3).clip(0, 1)
        canvas.paint(*ellipse(across(angle), middle + 0.06, 0.08, 0.13), skin * 0.86, toward * short)

    # Eyes and eyebrows.
    for side in (-1, 1):
        angle = side * _EYE_ANGLE
        x, squeeze = across(angle), narrowing(angle) / np.cos(_EYE_ANGLE)
        canvas.paint(*ellipse(x, eye_level - 0.015, 0.155 * squeeze, 0.11), skin * 0.66)  # the lid's edge shows above
        canvas.paint(*ellipse(x, eye_level + 0.005, 0.145 * squeeze, 0.1), _WHITE)
        canvas.paint(*ellipse(x, eye_level + 0.005, 0.085 * squeeze, 0.088), _IRIS)
        canvas.paint(*ellipse(x, eye_level + 0.005, 0.05 * squeeze, 0.052), _BLACK)
        canvas.paint(*ellipse(x, eye_level - 0.035, 0.024 * squeeze, 0.024), _WHITE)
        tilt = side * given["eyebrows"] * -0.14
        canvas.paint(*curved_band(x, eye_level - 0.22, 0.18 * squeeze, 0.055, tilt, -0.03), hair * 0.7)

    # Nose and mouth. Lips about an opening; their ends rise in a smile.
    canvas.paint(*ellipse(across(0, 1.12), middle + 0.19, 0.085 * narrowing(), 0.055), skin * 0.74)
    canvas.paint(*ellipse(across(0, 1.18), middle + 0.165, 0.07 * narrowing(), 0.055), skin * 0.97)
    smile, opened = given["expression"].astype(np.float64), given["mouth_opening"].astype(np.float64)
    mouth_x, mouth_y = across(0, 1.02), middle + 0.41 + 0.07 * narrow
    mouth_width, bend = 0.3 * narrowing() * (0.92 + 0.08 * smile), -0.22 * smile
    canvas.paint(*curved_band(mouth_x, mouth_y, mouth_width, 0.055 + 0.115 * opened, 0.0, bend), _LIPS)
    canvas.paint(*curved_band(mouth_x, mouth_y, mouth_width * 0.84, 0.01 + 0.115 * opened, 0.0, bend * 0.7), _MOUTH)

    # Glasses: two lenses, their frames and a bridge.
    for side in (-1, 1):
        angle = side * _EYE_ANGLE
        lens = across(angle, 1.04), eye_level + 0.01, 0.205 * narrowing(angle) / np.cos(_EYE_ANGLE), 0.185
        canvas.paint(*ellipse(*lens), _LENS, 0.3 * (glasses == 1))
        canvas.paint(*ellipse(*lens), _FRAME, 0.93 * dark)
        canvas.paint(*ring(*lens, 0.045), _FRAME, worn)
    gap = (across(_EYE_ANGLE, 1.04) - across(-_EYE_ANGLE, 1.04)) / 2 - 0.19 * narrowing()
    canvas.paint(*slab(across(0, 1.08), eye_level - 0.02, gap.clip(0.02), 0.025), _FRAME, worn)
    return canvas.planes


def _ramp(stops: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Colours [3, n, 1, 1] at positions [n] in [0, 1] of a ramp [k, 3]."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(position, at, stops[:, channel]) for channel in range(3)])[..., None, None]


def _background(values: Mapping[str, np.ndarray], resolution: int) -> np.ndarray:
    """The background's planes float32 [3, n, R, R]: a colour, and a pattern of cosines averaged over each pixel exactly."""
    frequency = 4 * np.pi  # a period of a quarter of the picture: 4 pixels at 16x16
    axis = (np.arange(resolution) + 0.5) * (2 / resolution) - 1
    wave = (np.cos(frequency * axis) * np.sinc(frequency / np.pi / resolution)).astype(np.float32)
    flat = np.ones_like(wave)
    down = np.stack([flat * 0, wave * 0.14, flat * 0.14, wave * 0.18])[values["texture"]]  # [n, R]
    along = np.stack([flat, flat, wave, wave])[values["texture"]]
    pattern = 1 + down[:, :, None] * along[:, None, :]
    return (_ramp(_BACKGROUND, values["background_color"]).astype(np.float32) * pattern).clip(0, 1)
