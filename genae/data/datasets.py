"""The data sets that YAML files name.

`fashion-mnist` and `synthetic-faces` need nothing but the package. The others open a pack that `genae data prepare` made from
the user's own copy, at its own resolution or averaged to a lower one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genae.cache import cached_folder
from genae.data import synthetic_faces
from genae.data.dataset import SPLITS, Dataset, Vectors
from genae.data.packs import Chunk, at_resolution, open_pack, packs_dir, write_pack
from genae.data.sources import SOURCES, pad_to_32
from genae.registry import DATASETS, suggestion

SHIPPED_FASHION_MNIST = Path(__file__).with_name("shipped") / "fashion-mnist.npz"
SHIPPED_SHA256 = "efefbe05b9d7eaf04f28ae39025070e3f555b25bf705ff9319bf8a7a4784fc6b"  # of that file; a test compares

_FACES_SEED = {"train": 0, "test": 1}
_FACES_AT_ONCE = 512


class NotPrepared(ValueError):
    """A data set that is made from the user's own copy is not packed on this machine; the message says how to."""


def open_dataset(spec: Mapping[str, Any], split: str) -> Dataset | Vectors:
    """The split of the data set that a YAML mapping `{name: ..., setting: value, ...}` describes.

    Raises ValueError for an unknown name, setting or split, and for a pack that is not there, with the command that makes it.
    """
    if "name" not in spec:
        raise ValueError(f"data needs a name; {suggestion('', DATASETS.names())}")
    settings = DATASETS[spec["name"]].settings
    for key in spec:
        if key != "name" and key not in settings:
            raise ValueError(f"data set {spec['name']!r} has no setting {key!r}; {suggestion(key, settings)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; {suggestion(split, SPLITS)}")
    if split == "validation" and "num_validation" not in settings:
        raise ValueError(f"data set {spec['name']!r} has no validation split")
    dataset = DATASETS.build(spec, split)
    if isinstance(dataset, Vectors):
        if dataset.vectors.dtype != np.float32 or dataset.vectors.ndim != 2:
            found = f"{dataset.vectors.dtype} {dataset.vectors.shape}"
            raise ValueError(f"data set {spec['name']!r} must give vectors as float32 [N, D], not {found}")
        return dataset
    if dataset.images.dtype != np.uint8 or dataset.images.ndim != 4 or dataset.shape[1] != dataset.shape[2]:
        found = f"{dataset.images.dtype} {dataset.images.shape}"
        raise ValueError(f"data set {spec['name']!r} must give square images as uint8 [N, C, H, W], not {found}")
    return dataset


# ---------------------------------------------------------------- what needs no download


@DATASETS.add("fashion-mnist", small={"resolution": 8, "count": 64})
def fashion_mnist(split: str, *, resolution: int = 32, count: int | None = None) -> Dataset:
    """Garments in grey (Xiao et al., 2017): the 10,000 training and 2,000 test images that the package ships.

    They are the first 1,000 and 200 of each class, 28x28, padded with black to 32x32. count: the first so many of the split, at
    most. Factor: label, the class.
    """

    def build(folder: Path) -> None:
        with np.load(SHIPPED_FASHION_MNIST) as shipped:
            images, labels = pad_to_32(shipped[f"{split}_images"]), shipped[f"{split}_labels"].astype(np.int64)
        chunks = [(images[:count], {"label": labels[:count]})]
        write_pack(folder, {split: chunks}, lambda: {"name": "fashion-mnist", "licence": SOURCES["fashion-mnist"].licence})

    if count is not None and count < 1:
        raise ValueError(f"fashion-mnist: count must be at least 1, not {count}")
    _check_divides("fashion-mnist", 32, resolution)
    key = {"shipped": SHIPPED_SHA256, "split": split, "count": count}
    return at_resolution(open_pack(cached_folder("fashion-mnist", key, build), split), resolution)


@DATASETS.add(
    "synthetic-faces",
    revision=synthetic_faces.REVISION,
    small={"resolution": 16, "num_train": 96, "num_test": 32},
)
def drawn_faces(split: str, *, resolution: int = 64, num_train: int = 20_000, num_test: int = 2_000) -> Dataset:
    """Drawn colour faces whose factors of variation are known (synthetic_faces.py), at 16 to 256 pixels.

    Drawn on first use and kept in the cache. Face i is the same at every resolution and count. Factors: those of
    synthetic_faces.FACTORS.
    """
    count = {"train": num_train, "test": num_test}[split]
    if count < 1:
        raise ValueError(f"synthetic-faces: num_{split} must be at least 1, not {count}")
    seed = _FACES_SEED[split]

    def chunks() -> Iterator[Chunk]:
        for start in range(0, count, _FACES_AT_ONCE):
            factors = synthetic_faces.sample_factors(np.arange(start, min(count, start + _FACES_AT_ONCE)), seed)
            yield synthetic_faces.draw(factors, resolution), factors

    def build(folder: Path) -> None:
        write_pack(folder, {split: chunks()}, lambda: {"name": "synthetic-faces", "licence": "MIT (genae)"})

    key = {"drawing": synthetic_faces.REVISION, "seed": seed, "split": split, "count": count, "resolution": resolution}
    return replace(open_pack(cached_folder("synthetic-faces", key, build), split), described_factors=synthetic_faces.FACTORS)


# ---------------------------------------------------------------- the user's own copies


@DATASETS.add("folder", small={"pack": "contract-test", "resolution": 8})
def folder(split: str, *, pack: str, resolution: int = 64) -> Dataset:
    """Any images of your own: `genae data prepare folder --source DIR --name PACK`."""
    return _prepared(pack, f"folder --source DIR --name {pack}", split, resolution)


@DATASETS.add("fashion-mnist-full", small={"resolution": 8})
def fashion_mnist_full(split: str, *, resolution: int = 32) -> Dataset:
    """Garments in grey (Xiao et al., 2017), all 60,000 and 10,000, 28x28 padded to 32x32. Factor: label."""
    return _prepared("fashion-mnist-full", "fashion-mnist --source DIR", split, resolution)


@DATASETS.add("mnist", small={"resolution": 8})
def mnist(split: str, *, resolution: int = 32) -> Dataset:
    """Digits in grey (LeCun et al., 1998): 60,000 and 10,000, 28x28 padded to 32x32. Factor: label."""
    return _prepared("mnist", "mnist --source DIR", split, resolution)


@DATASETS.add("cifar10", small={"resolution": 8})
def cifar10(split: str, *, resolution: int = 32) -> Dataset:
    """Small photographs of ten kinds (Krizhevsky, 2009): 50,000 and 10,000, 32x32. Factor: label."""
    return _prepared("cifar10", "cifar10 --source DIR", split, resolution)


@DATASETS.add("celeba", small={"resolution": 8})
def celeba(split: str, *, resolution: int = 128) -> Dataset:
    """Faces (Liu et al., 2015): the published 162,770 and 19,962, aligned, the central 178x178 by default."""
    return _prepared("celeba", "celeba --source DIR", split, resolution)


@DATASETS.add("celeba-hq", small={"resolution": 8})
def celeba_hq(split: str, *, resolution: int = 256) -> Dataset:
    """Faces (Karras et al., 2018): 27,000 and 3,000 (Heljakka et al., 2020, A.1)."""
    return _prepared("celeba-hq", "celeba-hq --source DIR", split, resolution)


@DATASETS.add("ffhq", small={"resolution": 8})
def ffhq(split: str, *, resolution: int = 256) -> Dataset:
    """Faces (Karras et al., 2019): 60,000 and 10,000, as published."""
    return _prepared("ffhq", "ffhq --source DIR", split, resolution)


@DATASETS.add("lsun-bedrooms", small={"resolution": 8})
def lsun_bedrooms(split: str, *, resolution: int = 256) -> Dataset:
    """Bedrooms (Yu et al., 2015): 3,033,042 and 300, as published, the central square of each."""
    return _prepared("lsun-bedrooms", "lsun-bedrooms --source DIR", split, resolution)


@DATASETS.add("lsun-cars", small={"resolution": 16})
def lsun_cars(split: str, *, resolution: int = 256) -> Dataset:
    """Cars (Yu et al., 2015): 4,968,695 and 552,061 (Heljakka et al., 2020, A.1), the central square of each."""
    return _prepared("lsun-cars", "lsun-cars --source DIR", split, resolution)


def _prepared(pack: str, arguments: str, split: str, resolution: int) -> Dataset:
    """A split of a prepared pack, averaged to `resolution` where the pack's own is higher."""
    path = packs_dir() / pack
    if not path.is_dir():
        raise NotPrepared(f"no pack {pack!r} in {packs_dir()}; make it with: genae data prepare {arguments}")
    dataset = open_pack(path, split)
    own = dataset.shape[-1]
    if resolution > own:
        command = f"genae data prepare {arguments} --resolution {resolution} --replace"
        raise ValueError(
            f"pack {pack!r} holds {own}x{own} images, not {resolution}x{resolution}; make it larger with: {command}"
        )
    return at_resolution(dataset, resolution)


def _check_divides(name: str, own: int, resolution: int) -> None:
    if resolution < 1 or own % resolution:
        raise ValueError(f"{name} has images of {own}x{own}; resolution {resolution} cannot be had from them")
