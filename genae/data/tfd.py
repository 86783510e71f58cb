"""The Toronto Face Database (Susskind et al., 2010), 48x48 in grey, as its two kinds of copies hold it.

TFD_48x48.mat has all images, and for each of five folds what each image is of: 0 unlabelled, 1 train, 2 validation, 3 test. The
released code of the Unpriortized Autoencoder reads train.npy, valid.npy and test.npy, of a fold that it does not name.

Either is packed whole, with the factor `folds`, and the data set picks a fold's images when it is opened.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from genae.data.packs import WHOLE, Chunk
from genae.data.pictures import area_average
from genae.data.reading import Packing, Reading

SIDE = 48
NUM_FOLDS = 5
UNLABELLED, TRAIN, VALIDATION, TEST = range(4)

_FILES = {"train.npy": TRAIN, "valid.npy": VALIDATION, "test.npy": TEST}
_SHAPES = ((SIDE, SIDE), (SIDE * SIDE,), (1, SIDE, SIDE), (SIDE, SIDE, 1))  # of one image
_ROWS_AT_ONCE = 4096


def read_tfd(source: Path, packing: Packing) -> Reading:
    """TFD_48x48.mat, or the three files of arrays."""
    if packing.resolution > SIDE or SIDE % packing.resolution:
        raise ValueError(f"--resolution {packing.resolution} cannot be had from images of {SIDE}x{SIDE}; use 48, 16, 8 or 4")
    matlab = sorted(path for path in source.iterdir() if path.suffix == ".mat" and "48" in path.stem)
    if matlab:
        images, factors = _from_matlab(matlab[0])
        rule = f"by the folds of {matlab[0].name}, picked when it is opened"
    else:
        images, factors = _from_arrays(source)
        rule = f"as in {', '.join(_FILES)}, which are one fold"
    return Reading({WHOLE: _chunks(images, factors, packing.resolution)}, len(images), rule, f"none: kept at {SIDE}x{SIDE}")


def _from_matlab(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=("images", "folds", "labs_id", "labs_ex"))
    except (ValueError, TypeError, NotImplementedError, OSError, scipy.io.matlab.MatReadError) as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}") from None
    for name in ("images", "folds"):
        if name not in content:
            found = ", ".join(key for key in content if not key.startswith("__")) or "none of them"
            raise ValueError(f"{path} has no variable {name!r}; of images, folds, labs_id and labs_ex it has: {found}")
    images = _as_images(content["images"], f"{path}: images")
    folds = np.asarray(content["folds"]).astype(np.int64)
    if folds.shape != (len(images), NUM_FOLDS) or not np.isin(folds, range(4)).all():
        raise ValueError(f"{path}: folds must be 0 to 3, [{len(images)}, {NUM_FOLDS}], not of shape {folds.shape}")
    factors = {"folds": folds}
    for variable, name in {"labs_id": "identity", "labs_ex": "expression"}.items():
        if variable in content:
            factors[name] = np.asarray(content[variable]).astype(np.int64).reshape(-1)
            if len(factors[name]) != len(images):
                raise ValueError(f"{path}: {variable} has {len(factors[name])} values for {len(images)} images")
    return images, factors


def _from_arrays(source: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    parts, marks = [], []
    for file, mark in _FILES.items():
        path = source / file
        if not path.is_file():
            raise ValueError(f"{source} has neither TFD_48x48.mat nor {file}; it needs the first, or {', '.join(_FILES)}")
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        parts.append(_as_images(array, str(path)))
        marks.append(np.full((len(parts[-1]), 1), mark))
    return np.concatenate(parts), {"folds": np.concatenate(marks)}


def _as_images(array: np.ndarray, what: str) -> np.ndarray:
    """uint8 [N, 1, 48, 48] of images in any of _SHAPES, as bytes or as numbers in [0, 255] or in [0, 1]."""
    if not len(array) or array.shape[1:] not in _SHAPES:
        raise ValueError(f"{what} are of shape {array.shape}; they should be [N, {SIDE}, {SIDE}] or [N, {SIDE * SIDE}]")
    if array.dtype != np.uint8:
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
            raise ValueError(f"{what} must be numbers from 0 to 255, or from 0 to 1, none of them NaN")
        unit = array.dtype.kind == "f" and array.max() <= 1
        array = np.rint(array * 255.0 if unit else array).astype(np.uint8)
    return array.reshape(-1, 1, SIDE, SIDE)


def _chunks(images: np.ndarray, factors: Mapping[str, np.ndarray], resolution: int) -> Iterator[Chunk]:
    for start in range(0, len(images), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        yield area_average(images[rows], resolution), {name: values[rows] for name, values in factors.items()}
