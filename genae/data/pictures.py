"""One image file, or the bytes of one -> a square uint8 array, or the reason why it is set aside.

Converted, by rule: EXIF orientation is applied; palette and black-and-white images become colour or grey; what is transparent
is laid over white; grey becomes three equal channels, or colour one channel of luma (ITU-R 601), where the pack asks for that.
Set aside: what no decoder reads to its end, several frames, CMYK and other print or laboratory colours (they need a profile),
more than 8 bits a channel, and images smaller than the pack's resolution, since enlarging invents what it shows.
"""

import contextlib
import io
import stat
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CROPS = ("center", "none", "pad")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")  # not PostScript, which is a program
RESIZE = "exact area average: each pixel weighs by the area that it shares with the new one"

# What Pillow's decoders raise on damaged files, besides OSError.
_DAMAGED = (
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    LookupError,
    ArithmeticError,
    TypeError,
    MemoryError,
    RuntimeError,
)
_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"}


class Unsuitable(ValueError):
    """A file that cannot become an image of the pack; the message is the reason."""


def check_crop(crop: str) -> str:
    """A crop as it is given by a user: "center", "none", "pad" (white margins), or a window's width in pixels."""
    if crop in CROPS or (crop.isdecimal() and int(crop) > 0):
        return crop
    raise ValueError(f"unknown crop {crop!r}; known: {', '.join(CROPS)}, or a number of pixels for a window about the centre")


def inspect_picture(path: Path, *, crop: str, resolution: int) -> None:
    """Raise Unsuitable where the file's header already tells that it cannot be packed. Decodes no pixel."""
    with _damage_is_unsuitable(), _opened(path) as image:
        _check_header(image, crop, resolution)


def file_bytes(path: Path) -> bytes:
    """What a file holds. Raises Unsuitable where it cannot be read."""
    with _damage_is_unsuitable():
        _check_is_file(path)
        return path.read_bytes()


def read_picture(source: Path | bytes, *, channels: int, crop: str, resolution: int) -> np.ndarray:
    """A file, or the bytes of one, as uint8 [channels, resolution, resolution]. Raises Unsuitable."""
    with _damage_is_unsuitable(), _opened(source) as image:
        _check_header(image, crop, resolution)
        pixels = np.asarray(_plain(ImageOps.exif_transpose(image), channels))
    window = _cropped(pixels.reshape(*pixels.shape[:2], channels), crop)
    return area_resize(window, resolution).transpose(2, 0, 1)


def read_whole(path: Path, *, channels: int) -> np.ndarray:
    """A file as uint8 [H, W, channels], neither cropped nor resized. Raises Unsuitable."""
    with _damage_is_unsuitable(), _opened(path) as image:
        _check_kind(image)
        pixels = np.asarray(_plain(ImageOps.exif_transpose(image), channels))
    return pixels.reshape(*pixels.shape[:2], channels)


def area_resize(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 [S, S, C] -> uint8 [resolution, resolution, C] by area, also where resolution does not divide S; halves rounded up.

    Counted in whole numbers, so it is exact whatever order a processor adds in: overlaps in units of 1 / resolution of a pixel
    are integers, and no sum leaves what its float type holds exactly (255 S < 2^24 along the rows, 255 S^2 < 2^53 in all).
    """
    side, _, channels = pixels.shape
    if side == resolution:
        return pixels
    weights = _overlaps(side, resolution)  # [resolution, S]
    rows = weights @ pixels.reshape(side, -1).astype(np.float32)  # [resolution, S * C]
    sums = weights.astype(np.float64) @ rows.reshape(resolution, side, channels).astype(np.float64)
    return ((2 * sums.astype(np.int64) + side**2) // (2 * side**2)).astype(np.uint8)


@lru_cache(maxsize=64)
def _overlaps(old: int, new: int) -> np.ndarray:
    """[new, old]: the length that each new pixel shares with each old one, in units of 1 / new of an old pixel."""
    begin, pixel = np.arange(new)[:, None] * old, np.arange(old) * new
    shared = np.minimum(begin + old, pixel + new) - np.maximum(begin, pixel)
    return shared.clip(0).astype(np.float32)


def area_average(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 [N, C, H, W] -> uint8 [N, C, resolution, resolution]: exact averages of whole pixels, halves rounded up."""
    n, channels, own, _ = images.shape
    factor = own // resolution
    blocks = images.reshape(n, channels, resolution, factor, resolution, factor)
    sums = blocks.sum(axis=(3, 5), dtype=np.uint32)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    if isinstance(source, Path):
        _check_is_file(source)
    if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
        raise Unsuitable("is empty")
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        yield image


def _check_is_file(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise Unsuitable("is not a file")


@contextlib.contextmanager
def _damage_is_unsuitable() -> Iterator[None]:
    """Whatever keeps an image's pixels or its header from being read is raised as Unsuitable."""
    try:
        yield
    except Unsuitable:
        raise
    except Image.UnidentifiedImageError:
        raise Unsuitable(f"is not an image ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Unsuitable("has more pixels than is safe to decode") from None
    except (OSError, *_DAMAGED) as error:
        raise Unsuitable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _check_kind(image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO is a camera's photograph with its own preview behind it
        raise Unsuitable(f"has {frames} frames")
    if image.mode.startswith("I") or image.mode == "F" or _bits(image) > 8:
        raise Unsuitable("has more than 8 bits a channel")
    if image.mode not in _EIGHT_BIT_MODES:
        raise Unsuitable(f"has {image.mode} colours, which need a profile to convert; save it as RGB")


def _check_header(image: Image.Image, crop: str, resolution: int) -> None:
    _check_kind(image)
    width, height = image.size
    if crop == "none" and width != height:
        raise Unsuitable(f"is {width}x{height}, not square, and crop is none")
    window = int(crop) if crop.isdecimal() else resolution
    side = max(width, height) if crop == "pad" else min(width, height)
    if side < max(window, resolution):
        raise Unsuitable(f"is {width}x{height}, smaller than {max(window, resolution)} pixels")


def _bits(image: Image.Image) -> int:
    """Bits a channel as stored: Pillow opens 16-bit colour as 8-bit "RGB" and drops the rest without a word."""
    stored = str(image.tile)  # the decoder's arguments name the raw mode, as in "RGB;16B"
    return 16 if ";16" in stored or ";12" in stored else 8


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """The image in grey ("L") or colour ("RGB"), what is transparent laid over white."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, (255, 255, 255, 255)), layered)
    return image.convert("RGB" if channels == 3 else "L")


def _cropped(pixels: np.ndarray, crop: str) -> np.ndarray:
    """The square window of [H, W, C] about the centre; of an odd remainder the extra pixel goes right and bottom.

    For "pad" it is the smallest that holds the whole image, in the middle of white.
    """
    height, width, channels = pixels.shape
    if crop == "pad" and height != width:
        side = max(height, width)
        square = np.full((side, side, channels), 255, np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = pixels
        return square
    side = int(crop) if crop.isdecimal() else min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
