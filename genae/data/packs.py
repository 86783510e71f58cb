"""Packs: images as one memory-mapped uint8 array per split, with all that must be known to trust it.

    PACK/dataset.json              name, source, licence, split rule, crop, resize, resolution, channels, set_aside, notes, and
                                   for each split its num_images, its digest and the digests of its factors
    PACK/train/images.npy          uint8 [N, C, H, W]
    PACK/train/<factor>.npy        [N] or [N, k], aligned with the images
    PACK/test/...

No image is decoded once it is packed. A data set's digest is the sha256 of its images' bytes in C order, followed by its shape
written as "NxCxHxW": bytes first, because a pack is written before it is known how many images are usable.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genae.cache import cache_dir, cached_folder
from genae.data.dataset import SPLITS, Dataset

DESCRIPTION_FILE = "dataset.json"
IMAGES_FILE = "images.npy"

Chunk = tuple[np.ndarray, Mapping[str, np.ndarray]]  # images [n, C, H, W] and their factors, [n] or [n, k] each

_ROWS_AT_ONCE = 1024  # bounds the memory that hashing and reducing take


def packs_dir() -> Path:
    """Where prepared packs lie: $GENAE_DATA, else cache_dir() / packs."""
    chosen = os.environ.get("GENAE_DATA")
    return Path(chosen).expanduser() if chosen else cache_dir() / "packs"


def content_digest(array: np.ndarray) -> str:
    """sha256 (hex) of an array's bytes in C order and its shape: what `Dataset.digest` is for images."""
    hashed = hashlib.sha256()
    for start in range(0, len(array), _ROWS_AT_ONCE):
        hashed.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)
    return _closed_digest(hashed, array.shape)


def write_pack(folder: Path, splits: Mapping[str, Iterable[Chunk]], describe: Callable[[], Mapping[str, Any]]) -> None:
    """Write every split, then dataset.json: what `describe()` returns and what was counted.

    describe is called after the last chunk was taken, so that it can tell what was set aside on the way. Raises ValueError for
    a split without images.
    """
    counted = {split: write_split(folder / split, chunks) for split, chunks in splits.items()}
    for split, summary in counted.items():
        if not summary["num_images"]:
            raise ValueError(f"no usable image for the {split} split")
    description = {**describe(), "splits": counted}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")


def write_split(folder: Path, chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Write one split's arrays as they come, and return {num_images, digest, shape, factors: {name: digest}}."""
    folder.mkdir(parents=True)
    hashed = hashlib.sha256()
    shape: tuple[int, ...] = (0,)
    factors: dict[str, list[np.ndarray]] = {}
    with (folder / IMAGES_FILE).open("wb") as handle:
        for images, of_chunk in chunks:
            images = np.ascontiguousarray(images, dtype=np.uint8)
            if not shape[0]:
                _write_header(handle, images.shape)
            elif images.shape[1:] != shape[1:]:
                raise ValueError(f"images of shape {images.shape[1:]} after images of shape {shape[1:]}")
            handle.write(images.data)
            hashed.update(images.data)
            shape = (shape[0] + len(images), *images.shape[1:])
            for name, values in of_chunk.items():
                factors.setdefault(name, []).append(values)
        handle.seek(0)
        _write_header(handle, shape)  # as long as the first: NumPy leaves room for the first axis to grow
    joined = {name: np.concatenate(values) for name, values in factors.items()}
    for name, values in joined.items():
        if len(values) != shape[0]:
            raise ValueError(f"factor {name!r} has {len(values)} values for {shape[0]} images")
        np.save(folder / f"{name}.npy", values)
    return {
        "num_images": shape[0],
        "digest": _closed_digest(hashed, shape),
        "factors": {name: content_digest(values) for name, values in joined.items()},
    }


def read_description(folder: Path) -> dict[str, Any]:
    """What dataset.json says. Raises ValueError where it is missing or unreadable."""
    try:
        return json.loads((folder / DESCRIPTION_FILE).read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a pack: it has no {DESCRIPTION_FILE}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / DESCRIPTION_FILE} cannot be read: {error}") from None


def open_pack(folder: Path, split: str) -> Dataset:
    """One split of a pack, memory-mapped. Its digest is what was counted at writing (`verify_pack` recounts)."""
    description = read_description(folder)
    if split not in description["splits"]:
        raise ValueError(f"pack {description['name']!r} has no split {split!r}; it has: {', '.join(description['splits'])}")
    summary = description["splits"][split]
    images = np.load(folder / split / IMAGES_FILE, mmap_mode="r")
    if len(images) != summary["num_images"]:
        raise ValueError(f"{folder / split}: {len(images)} images, but {DESCRIPTION_FILE} counts {summary['num_images']}")
    factors = {name: np.load(folder / split / f"{name}.npy") for name in summary["factors"]}
    return Dataset(description["name"], split, images, summary["digest"], factors)


def verify_pack(folder: Path) -> list[str]:
    """What is wrong with a pack, one line each, by reading every array again. Empty when all is well."""
    try:
        description = read_description(folder)
    except ValueError as error:
        return [str(error)]
    problems = []
    for split, summary in description["splits"].items():
        expected = {IMAGES_FILE: summary["digest"]} | {f"{n}.npy": digest for n, digest in summary["factors"].items()}
        for file, digest in expected.items():
            path = folder / split / file
            try:
                found = content_digest(np.load(path, mmap_mode="r"))
            except FileNotFoundError:
                problems.append(f"{split}/{file} is missing")
            except (ValueError, OSError) as error:
                problems.append(f"{split}/{file} cannot be read: {error}")
            else:
                if found != digest:
                    problems.append(f"{split}/{file} was altered: its sha256 is {found[:12]}..., not {digest[:12]}...")
    problems += [f"the {split} split is missing" for split in SPLITS if split not in description["splits"]]
    return problems


def at_resolution(dataset: Dataset, resolution: int) -> Dataset:
    """The data set at `resolution`, its images area-averaged: a pack of its own in the cache, keyed by the images' digest.

    Raises ValueError where `resolution` does not divide the images' own.
    """
    own = dataset.shape[-1]
    if resolution == own:
        return dataset
    if resolution < 1 or own % resolution:
        raise ValueError(f"{dataset.name} holds images of {own}x{own} pixels, which cannot be averaged to {resolution}")

    def build(folder: Path) -> None:
        starts = range(0, len(dataset), _ROWS_AT_ONCE)
        chunks = ((area_average(dataset.images[start : start + _ROWS_AT_ONCE], resolution), {}) for start in starts)
        write_pack(folder, {dataset.split: chunks}, lambda: {"name": dataset.name, "averaged_from": dataset.digest})

    key = {"images": dataset.digest, "resolution": resolution}
    reduced = open_pack(cached_folder("area-averaged", key | {"split": dataset.split}, build), dataset.split)
    return Dataset(dataset.name, dataset.split, reduced.images, reduced.digest, dataset.factors)


def area_average(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 [N, C, H, W] -> uint8 [N, C, resolution, resolution]: exact averages of whole pixels, halves rounded up."""
    n, channels, own, _ = images.shape
    factor = own // resolution
    blocks = images.reshape(n, channels, resolution, factor, resolution, factor)
    sums = blocks.sum(axis=(3, 5), dtype=np.uint32)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def _write_header(handle: Any, shape: tuple[int, ...]) -> None:
    layout = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, layout)


def _closed_digest(hashed: Any, shape: tuple[int, ...]) -> str:
    hashed.update("x".join(map(str, shape)).encode())
    return hashed.hexdigest()
