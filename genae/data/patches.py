"""8x8 patches of natural photographs as vectors of 63 numbers, with the preprocessing of RNADE (Uria et al., 2013).

Of a patch in grey levels 0 to 255: uniform noise between 0 and 1 is added to every pixel, all is divided by 256, the patch's
own mean is subtracted, and the last of the 64 pixels, in rows from the top left, is dropped: it is what makes their sum zero.
Colour becomes grey by 0.299 R + 0.587 G + 0.114 B, not rounded, as in the released code of the Unpriortized Autoencoder.

Log-likelihoods are those of the 63 numbers. A density on the subspace of all 64, in its own lengths, would add the constant
log |det| of that map; what is published of BSDS300 leaves it out, and so do we.

Everything is counted in whole numbers (grey in thousandths, noise in 2^-24) up to one division, and the random words are a
counter generator's own output, so a patch has the same bytes on every machine and is the same however many are drawn.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genae.cache import cached_folder
from genae.data.dataset import Vectors
from genae.data.packs import Chunk
from genae.data.vectors import open_vectors, write_vectors
from genae.randomness import seed_for
from genae.registry import DATASETS

SIDE = 8
DIM = SIDE * SIDE - 1
DRAWING = 1  # raised when the same photographs come to give other patches

_NOISE_BITS = 24
_WORDS = SIDE * SIDE + 4  # random words of 64 bits a patch takes: row, column, two to spare, and the noise
_WORDS_A_COUNT = 4  # that Philox gives for each value of its counter
_PATCHES_AT_ONCE = 16_384


# ---------------------------------------------------------------- the preprocessing


def grey(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] -> int32 [H, W]: grey levels in thousandths, 299 R + 587 G + 114 B, not rounded."""
    if pixels.ndim == 2:
        return 1000 * pixels.astype(np.int32)
    return pixels.astype(np.int32) @ np.array([299, 587, 114], np.int32)


def preprocessed(patches: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Patches int [N, 8, 8] in thousandths of a grey level, and noise int [N, 64] in 2^-24 of one -> float32 [N, 63]."""
    levels = (patches.reshape(-1, SIDE * SIDE).astype(np.int64) << _NOISE_BITS) + 1000 * noise.astype(np.int64)
    centred = SIDE * SIDE * levels - levels.sum(1, keepdims=True)  # of 64 times as much, so that the mean is a whole number
    unit = SIDE * SIDE * 1000 * 2**_NOISE_BITS * 256
    return (centred[:, :-1] / unit).astype(np.float32)  # below 2^53 before the division: exact in float64


def draw(photographs: Sequence[np.ndarray], start: int, stop: int, seed: int) -> np.ndarray:
    """Patches `start` to `stop` of the endless stream `seed`, float32 [stop - start, 63].

    photographs: int [H, W] each, as `grey` gives them. Patch i is of photograph i mod their number, from a place drawn
    uniformly (with replacement), under noise of its own.
    """
    words = _words(start, stop, seed)
    patches = np.empty((stop - start, SIDE, SIDE), np.int32)
    of = np.arange(start, stop) % len(photographs)
    for number, photograph in enumerate(photographs):
        windows = np.lib.stride_tricks.sliding_window_view(photograph, (SIDE, SIDE))
        rows = np.flatnonzero(of == number)
        patches[rows] = windows[_below(windows.shape[0], words[rows, 0]), _below(windows.shape[1], words[rows, 1])]
    return preprocessed(patches, words[:, -SIDE * SIDE :] >> np.uint64(64 - _NOISE_BITS))


def chunks(photographs: Sequence[np.ndarray], count: int, seed: int) -> Iterator[Chunk]:
    """The first `count` patches of a stream, as they are packed."""
    for start in range(0, count, _PATCHES_AT_ONCE):
        yield draw(photographs, start, min(count, start + _PATCHES_AT_ONCE), seed), {}


def _words(start: int, stop: int, seed: int) -> np.ndarray:
    """uint64 [stop - start, _WORDS]: those of patch i are the generator's output from count i * _WORDS / 4 on."""
    generator = np.random.Philox(key=seed, counter=start * _WORDS // _WORDS_A_COUNT)
    return generator.random_raw((stop - start) * _WORDS).reshape(-1, _WORDS)


def _below(limit: int, words: np.ndarray) -> np.ndarray:
    """Whole numbers in [0, limit) from the upper halves of 64-bit words."""
    return ((words >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


# ---------------------------------------------------------------- photographs inside scikit-image's wheel


@dataclass(frozen=True)
class Photograph:
    """A photograph that scikit-image ships, and the one split that it belongs to."""

    file: str
    split: str
    sha256: str
    licence: str
    shows: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut.png",
        "train",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "public domain (NASA)",
        "a portrait before a flag and a model of a space shuttle",
    ),
    Photograph(
        "brick.png",
        "train",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        "CC0 (CC0Textures)",
        "a brick wall",
    ),
    Photograph(
        "coins.png",
        "train",
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        "no known copyright restrictions (Brooklyn Museum)",
        "Greek coins",
    ),
    Photograph(
        "grass.png",
        "train",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "CC0 (linolafett)",
        "grass from above",
    ),
    Photograph(
        "gravel.png",
        "validation",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "CC0 (CC0Textures)",
        "gravel from above",
    ),
    Photograph(
        "motorcycle_left.png",
        "train",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        "none stated (Middlebury 2014 stereo benchmark)",
        "a motorcycle in a garage; its right-hand view is not used",
    ),
    Photograph(
        "clock_motion.png",
        "validation",
        "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        "public domain (Stefan van der Walt)",
        "a clock, blurred by motion",
    ),
    Photograph(
        "coffee.png",
        "test",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0 (Rachel Michetti)",
        "a cup of coffee on wood",
    ),
    Photograph(
        "camera.png",
        "test",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "CC0 (Lav Varshney)",
        "a man with a camera on a meadow",
    ),
    Photograph(
        "chelsea.png",
        "test",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0 (Stefan van der Walt)",
        "a cat",
    ),
    Photograph(
        "moon.png",
        "train",
        "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
        "none stated",
        "the surface of the moon",
    ),
)


def photographs_of(split: str) -> list[Photograph]:
    """The photographs of one split."""
    return [photograph for photograph in PHOTOGRAPHS if photograph.split == split]


def read_photograph(photograph: Photograph) -> np.ndarray:
    """Its pixels, uint8 [H, W] or [H, W, 3]. Raises ValueError where the installed scikit-image has it not, or has another."""
    import skimage

    path = Path(skimage.__file__).with_name("data") / photograph.file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"natural-patches: this scikit-image ({skimage.__version__}) came without {path}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != photograph.sha256:
        raise ValueError(f"natural-patches: {path} is another picture: its sha256 is {found}, not {photograph.sha256}")
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return np.asarray(image)


@DATASETS.add("natural-patches", small={"num_train": 300, "num_validation": 100, "num_test": 100})
def natural_patches(split: str, *, num_train: int = 100_000, num_validation: int = 10_000, num_test: int = 10_000) -> Vectors:
    """8x8 patches of eleven photographs that scikit-image ships, split by photograph, with RNADE's preprocessing: 63 numbers.

    Drawn on first use and kept in the cache; as many from each photograph of the split, in turn. Patch i is the same however
    many are drawn.
    """
    count = {"train": num_train, "validation": num_validation, "test": num_test}[split]
    if count < 1:
        raise ValueError(f"natural-patches: num_{split} must be at least 1, not {count}")
    chosen = photographs_of(split)

    def build(folder: Path) -> None:
        pixels = [grey(read_photograph(photograph)) for photograph in chosen]
        patches = chunks(pixels, count, seed_for("natural-patches", split))
        write_vectors(folder, {split: patches}, lambda: {"name": "natural-patches", "photographs": sources})

    sources = {photograph.file: photograph.licence for photograph in chosen}
    key = {"drawing": DRAWING, "photographs": [photograph.sha256 for photograph in chosen], "split": split, "count": count}
    return open_vectors(cached_folder("natural-patches", key, build), split)
