"""The shape and size of data sets, of those too that are not on this machine: to plan what training on them takes."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genae.data.dataset import Vectors
from genae.data.datasets import open_dataset
from genae.data.packs import packs_dir, read_description
from genae.data.prepare import ARRAY_LIMIT
from genae.data.sources import SOURCES, Source

# Images (of bsds300-patches: vectors) of all splits, as published: see genae.data.datasets.
PUBLISHED = {
    "mnist": 70_000,
    "fashion-mnist-full": 70_000,
    "tfd": 102_236,
    "shoes": 50_025,
    "bsds300-patches": 3_701_000,
    "cifar10": 60_000,
    "celeba": 202_599,
    "celeba-hq": 30_000,
    "ffhq": 70_000,
    "lsun-bedrooms": 3_033_342,
    "lsun-cars": 5_520_756,
}

# Bytes of the encoded images, which a pack keeps where their array would be too large: of LSUN's LMDBs, as GenForce lists them.
ENCODED = {"lsun-bedrooms": 43 * 10**9, "lsun-cars": 173 * 10**9}


def shape_of(spec: Mapping[str, Any]) -> tuple[int, ...]:
    """(C, H, W) of the images that a data spec describes, or (D,) of its vectors, prepared here or not."""
    source = _source(spec)
    if source:
        return (source.dim,) if source.dim else (source.channels, spec["resolution"], spec["resolution"])
    nested = [shape_of(inner) for inner in _nested(spec)]
    if nested:  # grey becomes colour beside colour
        return max(nested)
    if spec["name"] == "folder" and not (packs_dir() / spec["pack"]).is_dir():
        return 3, spec["resolution"], spec["resolution"]
    return open_dataset(spec, "train").shape


def sizes_of(spec: Mapping[str, Any]) -> Iterator[tuple[str, int | None, str]]:
    """(name, bytes on disk, how that is known) of every pack that a data spec reads; bytes are None where nobody knows.

    A pack that is too small for the spec must be made again, and is not counted as prepared.
    """
    for inner in _nested(spec):
        yield from sizes_of(inner)
    source = _source(spec)
    name = spec["pack"] if spec["name"] == "folder" else source.pack if source else spec["name"]
    pack = packs_dir() / name
    here = read_description(pack).get("resolution") if pack.is_dir() else None
    too_small = here is not None and spec.get("resolution", 0) > here
    but = f"; the pack here is of {here}x{here}, too small" if too_small else ""
    if pack.is_dir() and not too_small:
        yield name, _bytes_of(pack), "prepared here"
    elif spec["name"] == "folder":
        yield name, None, f"not prepared here{but}"
    elif source:
        size, how = _as_published(spec, source)
        yield name, size, how + but
    elif not _nested(spec):
        dataset = open_dataset(spec, "train")
        stored = dataset.vectors if isinstance(dataset, Vectors) else dataset.images
        yield name, stored.dtype.itemsize * math.prod(stored.shape), "its training split, made by genae"


def _as_published(spec: Mapping[str, Any], source: Source) -> tuple[int | None, str]:
    """Bytes of the pack that `genae data prepare` makes of a whole copy, and how that is known."""
    shape, count = shape_of(spec), PUBLISHED[spec["name"]]
    size, what = count * math.prod(shape) * (4 if source.dim else 1), f"{count:,} of {'x'.join(map(str, shape))}, as published"
    if size <= ARRAY_LIMIT or size <= ENCODED.get(source.pack, 0):
        return size, f"estimate: {what}"
    if source.pack in ENCODED:
        return ENCODED[source.pack], f"estimate: {what}, kept as the source's encoded bytes"
    return None, f"{what}: kept as the source's encoded bytes, if they take less than the {size / 1e9:,.0f} GB of an array"


def _source(spec: Mapping[str, Any]) -> Source | None:
    """How the pack of a published data set is made; None of what genae makes, and of a folder of one's own."""
    pack = "bsds300-patches-hdf5" if spec.get("variant") == "hdf5" else spec["name"]
    return next((source for source in SOURCES.values() if source.pack == pack), None)


def _nested(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [value for value in spec.values() if isinstance(value, Mapping) and "name" in value]


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
