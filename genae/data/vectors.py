"""Packs of vectors: what packs.py is for images, with one memory-mapped float32 array [N, D] per split.

    PACK/dataset.json              as of images, `num_vectors` in the place of `num_images`
    PACK/train/vectors.npy         float32 [N, D], little-endian
    PACK/validation/vectors.npy
    PACK/test/...

The digest is counted as of images: sha256 of the bytes, followed by the shape as "NxD". `packs.verify_pack` recounts it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genae.data.dataset import Vectors
from genae.data.packs import DESCRIPTION_FILE, ArrayKind, Chunk, read_summary, write_pack

VECTORS = ArrayKind("vectors.npy", "<f4", "num_vectors")


def write_vectors(folder: Path, splits: Mapping[str, Iterable[Chunk]], describe: Callable[[], Mapping[str, Any]]) -> None:
    """Write every split, then dataset.json, as `packs.write_pack` does. chunks: vectors [n, D] with their factors.

    Raises ValueError for a split without vectors, for vectors of unlike lengths and for values that are not finite.
    """
    checked = {split: _checked(split, chunks) for split, chunks in splits.items()}
    write_pack(folder, checked, describe, kind=VECTORS)


def open_vectors(folder: Path, split: str) -> Vectors:
    """One split of a pack of vectors, memory-mapped. Its digest is what was counted at writing."""
    name, summary = read_summary(folder, split, VECTORS)
    vectors = np.load(folder / split / VECTORS.file, mmap_mode="r")
    if len(vectors) != summary["num_vectors"]:
        found, counted = len(vectors), summary["num_vectors"]
        raise ValueError(f"{folder / split}: {found} vectors, but {DESCRIPTION_FILE} counts {counted}")
    factors = {factor: np.load(folder / split / f"{factor}.npy") for factor in summary["factors"]}
    return Vectors(name, split, vectors, summary["digest"], factors)


def _checked(split: str, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks as they come, each looked at before it is written."""
    start = 0
    for vectors, factors, *_ in chunks:
        if vectors.ndim != 2:
            raise ValueError(f"the {split} split: vectors are [N, D], not of shape {vectors.shape}")
        finite = np.isfinite(vectors).all(1)
        if not finite.all():
            raise ValueError(f"the {split} split: vector {start + int(np.argmin(finite))} holds a value that is not finite")
        start += len(vectors)
        yield vectors, factors
