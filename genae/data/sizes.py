"""The shape and size of data sets, of those too that are not on this machine: to plan what training on them takes."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genae.data.dataset import Vectors
from genae.data.datasets import open_dataset
from genae.data.packs import packs_dir
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
    """(name, bytes on disk, how that is known) of every pack that a data spec reads; bytes are None where nobody knows."""
    for inner in _nested(spec):
        yield from sizes_of(inner)
    source = _source(spec)
    name = spec["pack"] if spec["name"] == "folder" else source.pack if source else spec["name"]
    pack = packs_dir() / name
    if pack.is_dir():
        yield name, _bytes_of(pack), "prepared here"
    elif spec["name"] == "folder":
        yield name, None, "not prepared here"
    elif source:
        shape, count = shape_of(spec), PUBLISHED[spec["name"]]
        what = f"{count:,} of {'x'.join(map(str, shape))}, as published"
        yield name, count * math.prod(shape) * (4 if source.dim else 1), f"estimate: {what}"
    elif not _nested(spec):
        dataset = open_dataset(spec, "train")
        stored = dataset.vectors if isinstance(dataset, Vectors) else dataset.images
        yield name, stored.dtype.itemsize * math.prod(stored.shape), "its training split, made by genae"


def _source(spec: Mapping[str, Any]) -> Source | None:
    """How the pack of a published data set is made; None of what genae makes, and of a folder of one's own."""
    pack = "bsds300-patches-hdf5" if spec.get("variant") == "hdf5" else spec["name"]
    return next((source for source in SOURCES.values() if source.pack == pack), None)


def _nested(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [value for value in spec.values() if isinstance(value, Mapping) and "name" in value]


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
