"""Data sets made of others: some of the images of one, one without its padding, two in one.

Each is a pack of its own in the cache, keyed by the digest of the images that it is made of.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genae.cache import cached_folder
from genae.data.dataset import Dataset
from genae.data.packs import Chunk, open_pack, write_pack
from genae.randomness import seed_for

_ROWS_AT_ONCE = 1024  # bounds the memory that copying takes


def validation_rows(num_images: int, num_validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of a training split's images stay in it and which are held out, int64, each in the split's own order.

    They are drawn by a seed that never changes: whoever holds out as many of as many images holds out the same. Raises
    ValueError where none would stay.
    """
    if not 0 < num_validation < num_images:
        raise ValueError(
            f"num_validation must be from 1 to {num_images - 1:,} of the {num_images:,} images, not {num_validation:,}"
        )
    words = np.random.Philox(key=seed_for("validation", num_images)).random_raw(num_images)
    shuffled = np.argsort(words, kind="stable")
    return np.sort(shuffled[num_validation:]), np.sort(shuffled[:num_validation])


def rows_of(dataset: Dataset, rows: np.ndarray, split: str) -> Dataset:
    """The images `rows` of a data set, with their factors, as its split `split`. Raises ValueError where there are none."""
    if not len(rows):
        raise ValueError(f"{dataset.name}: none of its {len(dataset):,} images is of the {split} split")

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            yield dataset.images[rows[start : start + _ROWS_AT_ONCE]], {}

    key = {"images": dataset.digest, "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(), "split": split}
    images = _kept("some-rows", key, split, chunks)
    factors = {name: values[rows] for name, values in dataset.factors.items()}
    return replace(dataset, split=split, images=images.images, digest=images.digest, factors=factors)


def without_padding(dataset: Dataset, padding: int) -> Dataset:
    """The data set without the outermost `padding` pixels on every side."""
    inner = slice(padding, -padding)

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            yield dataset.images[start : start + _ROWS_AT_ONCE][:, :, inner, inner], {}

    images = _kept("unpadded", {"images": dataset.digest, "padding": padding, "split": dataset.split}, dataset.split, chunks)
    return replace(dataset, images=images.images, digest=images.digest)


def in_turn(first: Dataset, second: Dataset, name: str) -> Dataset:
    """As many images of each, in turn: one of the first, one of the second. Factor: domain, 0 or 1.

    Grey images become three equal channels where the others are in colour. Raises ValueError where sizes differ.
    """
    if first.shape[1:] != second.shape[1:]:
        sizes = " and ".join(f"{each.name} is {each.shape[2]}x{each.shape[1]}" for each in (first, second))
        raise ValueError(f"{name}: the two must be of one resolution: {sizes}")
    count = min(len(first), len(second))
    channels = max(first.shape[0], second.shape[0])

    def chunks() -> Iterator[Chunk]:
        for start in range(0, count, _ROWS_AT_ONCE):
            rows = slice(start, min(count, start + _ROWS_AT_ONCE))
            taken = np.empty((rows.stop - rows.start, 2, channels, *first.shape[1:]), np.uint8)
            taken[:, 0], taken[:, 1] = first.images[rows], second.images[rows]  # grey is repeated to colour
            yield taken.reshape(-1, *taken.shape[2:]), {}

    key = {"first": first.digest, "second": second.digest, "split": first.split}
    images = _kept("two-domains", key, first.split, chunks)
    return replace(images, name=name, factors={"domain": np.tile(np.arange(2), count)})


def _kept(kind: str, key: Mapping[str, Any], split: str, chunks: Callable[[], Iterator[Chunk]]) -> Dataset:
    """The images of `chunks`, packed on first use."""

    def build(folder: Path) -> None:
        write_pack(folder, {split: chunks()}, lambda: {"name": kind, **key})

    return open_pack(cached_folder(kind, key, build), split)
