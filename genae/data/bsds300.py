"""Patches of the Berkeley segmentation data set (Martin et al., 2001), as preprocessed in patches.py.

They come from a user's own copy of the images, as the Unpriortized Autoencoder's did, or from the file BSDS300.hdf5 that many
density estimators are compared on. The two are not the same patches, and likelihoods on one are not those on the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from genae.data.encoded import decoders
from genae.data.packs import Chunk
from genae.data.patches import DIM, SIDE, chunks, grey
from genae.data.pictures import Unsuitable, read_whole
from genae.data.reading import Packing, Reading
from genae.randomness import seed_for

HDF5_FILE = "BSDS300.hdf5"
PREPROCESSING = "8x8 patches in grey, plus uniform noise, over 256, less their mean, without the last pixel (Uria et al., 2013)"

_IMAGES = {"train": 200, "test": 100}
_VALIDATION_IMAGES = 20  # of the 200: the released code of the Unpriortized Autoencoder
_TRAIN_PATCHES, _TEST_PATCHES = 15_000, 10_000  # an image: 2.7 million and a million
_VALIDATION_PATCHES = 1_000  # in all
_ROWS_AT_ONCE = 16_384


def read_bsds300(source: Path, packing: Packing) -> Reading:
    """images/train (200) and images/test (100): 15,000 patches each of 180, 1,000 of the other 20, 10,000 each of 100."""
    _check_side(packing)
    root = source / "BSDS300" if (source / "BSDS300").is_dir() else source
    files = {split: _image_files(root, split) for split in _IMAGES}
    if len(files["train"]) < 2:
        raise ValueError(f"{root / 'images' / 'train'} has one image; one to train on and one to validate on are needed")
    words = np.random.Philox(key=seed_for("bsds300", "images")).random_raw(len(files["train"]))
    shuffled = [files["train"][row] for row in np.argsort(words, kind="stable")]
    num_validation = max(1, round(len(shuffled) * _VALIDATION_IMAGES / _IMAGES["train"]))
    of = {"train": shuffled[num_validation:], "validation": shuffled[:num_validation], "test": files["test"]}
    counts = {
        "train": _TRAIN_PATCHES * len(of["train"]),
        "validation": _VALIDATION_PATCHES,
        "test": _TEST_PATCHES * len(of["test"]),
    }
    rule = (
        f"by image: {len(of['train'])} and {len(of['validation'])} of images/train, shuffled by a fixed seed, are train and "
        f"validation; images/test is test; {_TRAIN_PATCHES:,} patches of each train image, {_TEST_PATCHES:,} of each test image"
    )
    splits = {split: _patches(of[split], counts[split], split) for split in of}
    reading = Reading(splits, sum(counts.values()), rule, PREPROCESSING)
    for split, expected in _IMAGES.items():
        if len(files[split]) != expected:
            found = len(files[split])
            reading.notes.append(
                f"{found} {split} images, where BSDS300 has {expected}: the patches are not the published ones"
            )
    reading.notes.append("decoded by " + ", ".join(f"{name} {version}" for name, version in decoders().items()))
    reading.notes.append("validation images: " + ", ".join(sorted(path.stem for path in of["validation"])))
    return reading


def _image_files(root: Path, split: str) -> list[Path]:
    """The images of a published split, by name: those that iids_<split>.txt lists where that is there, else all."""
    folder = root / "images" / split
    if not folder.is_dir():
        hint = f"; for {HDF5_FILE}, prepare bsds300-patches-hdf5" if (root / HDF5_FILE).exists() else ""
        raise ValueError(f"{root} has no folder images/{split}{hint}")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png")}
    if not found:
        raise ValueError(f"{folder} has no JPEG or PNG images")
    listing = root / f"iids_{split}.txt"
    if not listing.is_file():
        return list(found.values())
    listed = sorted(listing.read_text().split())
    if missing := [name for name in listed if name not in found]:
        raise ValueError(f"{folder} lacks {len(missing)} of the images that {listing.name} lists: {', '.join(missing[:5])}")
    if not listed:
        raise ValueError(f"{listing} lists no image")
    return [found[name] for name in listed]


def _patches(files: list[Path], count: int, split: str) -> Iterator[Chunk]:
    """Patches of the images in turn. A damaged image is an error: the published split has no place for fewer."""
    photographs = []
    for path in files:
        try:
            pixels = read_whole(path, channels=3)
        except Unsuitable as error:
            raise ValueError(f"{path} {error}") from None
        if min(pixels.shape[:2]) < SIDE:
            raise ValueError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, smaller than a patch of {SIDE}x{SIDE}")
        photographs.append(grey(pixels))
    yield from chunks(photographs, count, seed_for("bsds300", split))


def read_bsds300_hdf5(source: Path, packing: Packing) -> Reading:
    """BSDS300.hdf5 with its data sets train, validation and test, [N, 63] each, taken as they are."""
    _check_side(packing)
    path = source / HDF5_FILE
    if not path.is_file():
        raise ValueError(f"{source} has no file {HDF5_FILE}")
    splits, total = {}, 0
    with _opened(path) as file:
        for split in ("train", "validation", "test"):
            if split not in file:
                raise ValueError(f"{path} has no data set {split!r}; it has: {', '.join(file) or 'none'}")
            shape = getattr(file[split], "shape", None)  # None of a group
            if shape is None or len(shape) != 2 or shape[1] != DIM:
                raise ValueError(f"{path}: {split} is not [N, {DIM}] but {shape or 'a group'}")
            splits[split] = _rows(path, split)
            total += shape[0]
    return Reading(splits, total, f"as in {HDF5_FILE}: its train, validation and test", f"none: as in {HDF5_FILE}")


def _rows(path: Path, split: str) -> Iterator[Chunk]:
    with _opened(path) as file:
        for start in range(0, len(file[split]), _ROWS_AT_ONCE):
            yield np.asarray(file[split][start : start + _ROWS_AT_ONCE], np.float32), {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An h5py.File to read from."""
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path} is read by the package h5py: pip install 'genae[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from None


def _check_side(packing: Packing) -> None:
    if packing.resolution != SIDE:
        raise ValueError(f"--resolution {packing.resolution}: patches are {SIDE}x{SIDE}; leave it out")
