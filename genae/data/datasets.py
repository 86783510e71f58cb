"""The data sets that YAML files name.

`fashion-mnist`, `synthetic-faces` and `natural-patches` (patches.py) need nothing but the package; `two-domains` puts two
others together. The rest open a pack that `genae data prepare` made from the user's own copy, at its own resolution or averaged
to a lower one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genae.cache import cached_folder
from genae.data import synthetic_faces
from genae.data.dataset import SPLITS, Dataset, Vectors
from genae.data.derived import in_turn, rows_of, validation_rows, without_padding
from genae.data.packs import WHOLE, Chunk, at_resolution, open_pack, packs_dir, write_pack
from genae.data.sources import SOURCES, pad_to_32
from genae.data.tfd import TEST, TRAIN, UNLABELLED, VALIDATION
from genae.data.vectors import open_vectors
from genae.registry import DATASETS, suggestion

SHIPPED_FASHION_MNIST = Path(__file__).with_name("shipped") / "fashion-mnist.npz"
SHIPPED_SHA256 = "efefbe05b9d7eaf04f28ae39025070e3f555b25bf705ff9319bf8a7a4784fc6b"  # of that file; a test compares

_PADDING = 2  # black pixels on each side of MNIST's and Fashion-MNIST's 28x28
_FACES_SEED = {"train": 0, "test": 1}
_FACES_AT_ONCE = 512


class NotPrepared(ValueError):
    """A data set that is made from the user's own copy is not packed on this machine, or too small; the message says how to."""


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


@DATASETS.add(
    "fashion-mnist",
    added={"classes": None, "num_validation": 0},
    small={"resolution": 8, "count": 64, "num_validation": 32},
    sizes=(28,),
)
def fashion_mnist(
    split: str,
    *,
    resolution: int = 32,
    count: int | None = None,
    classes: tuple[int, ...] | None = None,
    num_validation: int = 0,
) -> Dataset:
    """Garments in grey (Xiao et al., 2017): the 10,000 training and 2,000 test images that the package ships.

    They are the first 1,000 and 200 of each class, 28x28, padded with black to 32x32; resolution 28 leaves the padding out.
    count: the first so many of the split, at most.  classes: only these (5, 7 and 9 are shoes); all for null.
    num_validation: so many training images, drawn by a fixed seed, are the validation split instead.
    Factor: label, the class.
    """
    origin = "test" if split == "test" else "train"
    holds_out = num_validation > 0 and origin == "train"
    packed = None if classes is not None or holds_out else count

    def build(folder: Path) -> None:
        with np.load(SHIPPED_FASHION_MNIST) as shipped:
            images, labels = pad_to_32(shipped[f"{origin}_images"]), shipped[f"{origin}_labels"].astype(np.int64)
        chunks = [(images[:packed], {"label": labels[:packed]})]
        write_pack(folder, {origin: chunks}, lambda: {"name": "fashion-mnist", "licence": SOURCES["fashion-mnist"].licence})

    if count is not None and count < 1:
        raise ValueError(f"fashion-mnist: count must be at least 1, not {count}")
    if classes is not None and (not classes or not set(classes) <= set(range(10))):
        raise ValueError(f"fashion-mnist: classes are some of 0 to 9, not {list(classes)}")
    if resolution != 28:
        _check_divides("fashion-mnist", 32, resolution)
    key = {"shipped": SHIPPED_SHA256, "split": origin, "count": packed}
    dataset = open_pack(cached_folder("fashion-mnist", key, build), origin)
    if classes is not None:
        dataset = rows_of(dataset, np.flatnonzero(np.isin(dataset.factors["label"], classes)), origin)
    dataset = _split_of(dataset, split, num_validation)
    if count is not None and count < len(dataset):
        dataset = rows_of(dataset, np.arange(count), split)
    return _at_size(dataset, resolution, _PADDING)


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


@DATASETS.add(
    "two-domains",
    nested={"first": DATASETS, "second": DATASETS},
    small={
        "resolution": 16,
        "first": {"name": "synthetic-faces", "resolution": 16, "num_train": 24, "num_test": 12},
        "second": {"name": "fashion-mnist", "resolution": 16, "count": 20, "classes": [5, 7, 9]},
    },
    sizes=(28, 48),
)
def two_domains(split: str, *, first: dict[str, Any], second: dict[str, Any], resolution: int = 64) -> Dataset:
    """Images of two data sets in one, as many of each, in turn: what interpolation between domains is tried on.

    first, second: data sets, each with its name and settings; both must be at `resolution`. Grey becomes colour beside colour.
    Factor: domain, 0 for the first and 1 for the second.
    """
    pair = [_of_images(open_dataset(spec, split)) for spec in (first, second)]
    for key, dataset in zip(("first", "second"), pair, strict=True):
        if dataset.shape[-1] != resolution:
            own = dataset.shape[-1]
            raise ValueError(f"two-domains: {key} is {own}x{own}; write resolution: {resolution} there, or {own} for both")
    return in_turn(*pair, "two-domains")


# ---------------------------------------------------------------- the user's own copies


@DATASETS.add("folder", small={"pack": "contract-test", "resolution": 8})
def folder(split: str, *, pack: str, resolution: int = 64) -> Dataset:
    """Any images of your own: `genae data prepare folder --source DIR --name PACK`."""
    return _prepared(pack, f"folder --source DIR --name {pack}", split, resolution)


@DATASETS.add("fashion-mnist-full", added={"num_validation": 0}, small={"resolution": 8, "num_validation": 4}, sizes=(28,))
def fashion_mnist_full(split: str, *, resolution: int = 32, num_validation: int = 0) -> Dataset:
    """Garments in grey (Xiao et al., 2017), all 60,000 and 10,000, 28x28 padded to 32x32. Factor: label.

    resolution: 28 leaves the padding out.
    num_validation: so many training images, drawn by a fixed seed, are the validation split instead.
    """
    whole = _opened("fashion-mnist-full", "fashion-mnist --source DIR", "test" if split == "test" else "train")
    return _at_prepared_size(_split_of(whole, split, num_validation), "fashion-mnist --source DIR", resolution, _PADDING)


@DATASETS.add("mnist", added={"num_validation": 0}, small={"resolution": 8, "num_validation": 4}, sizes=(28,))
def mnist(split: str, *, resolution: int = 32, num_validation: int = 0) -> Dataset:
    """Digits in grey (LeCun et al., 1998): 60,000 and 10,000, 28x28 padded to 32x32. Factor: label.

    resolution: 28 leaves the padding out.
    num_validation: so many training images, drawn by a fixed seed, are the validation split instead.
    """
    whole = _opened("mnist", "mnist --source DIR", "test" if split == "test" else "train")
    return _at_prepared_size(_split_of(whole, split, num_validation), "mnist --source DIR", resolution, _PADDING)


@DATASETS.add("tfd", small={"resolution": 8}, sizes=(48,))
def tfd(split: str, *, resolution: int = 48, fold: int = 0, unlabelled: bool = True, num_validation: int = 0) -> Dataset:
    """Faces in grey (Susskind et al., 2010), 48x48, by one of the five folds of TFD. Factors: identity, expression.

    fold: 0 to 4; a copy of train.npy, valid.npy and test.npy is one fold, 0.
    unlabelled: train on the images of no fold too, as the Parzen estimates that are published of TFD do.
    num_validation: 0 takes the fold's own validation split; else so many training images, drawn by a fixed seed, are it.
    """
    whole = _opened("tfd", "tfd --source DIR", WHOLE)
    folds = whole.factors["folds"]
    if not 0 <= fold < folds.shape[1]:
        raise ValueError(f"tfd: this copy has the folds 0 to {folds.shape[1] - 1}, not {fold}")
    marks = {"train": [TRAIN, UNLABELLED] if unlabelled else [TRAIN], "validation": [VALIDATION], "test": [TEST]}
    origin = "train" if split == "validation" and num_validation else split
    dataset = rows_of(whole, np.flatnonzero(np.isin(folds[:, fold], marks[origin])), origin)
    if num_validation:
        dataset = _split_of(dataset, split, num_validation)
    factors = {name: values for name, values in dataset.factors.items() if name != "folds"}
    return _at_prepared_size(replace(dataset, factors=factors), "tfd --source DIR", resolution)


@DATASETS.add("shoes", small={"resolution": 8})
def shoes(split: str, *, resolution: int = 64) -> Dataset:
    """Shoes on white (UT Zappos50K; Yu & Grauman, 2014): 50,025, squared by white margins, a tenth of them for testing."""
    return _prepared("shoes", "shoes --source DIR", split, resolution)


@DATASETS.add("bsds300-patches", small={})
def bsds300_patches(
    split: str,
    *,
    variant: Literal["images", "hdf5"] = "images",
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
) -> Vectors:
    """8x8 patches of BSDS300 (Martin et al., 2001) with RNADE's preprocessing: 2.7 million, 1,000 and a million of 63 numbers.

    variant: images is prepared from the images themselves, hdf5 from the file BSDS300.hdf5, whose patches are others.
    num_train, num_validation, num_test: the first so many of the split; all for null.
    """
    pack = {"images": "bsds300-patches", "hdf5": "bsds300-patches-hdf5"}[variant]
    count = {"train": num_train, "validation": num_validation, "test": num_test}[split]
    if count is not None and count < 1:
        raise ValueError(f"bsds300-patches: num_{split} must be at least 1, not {count}")
    return open_vectors(_pack_folder(pack, f"{pack} --source DIR"), split).first(count)


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
    return _at_prepared_size(_opened(pack, arguments, split), arguments, resolution)


def _pack_folder(pack: str, arguments: str) -> Path:
    path = packs_dir() / pack
    if not path.is_dir():
        raise NotPrepared(f"no pack {pack!r} in {packs_dir()}; make it with: genae data prepare {arguments}")
    return path


def _opened(pack: str, arguments: str, split: str) -> Dataset:
    return open_pack(_pack_folder(pack, arguments), split)


def _at_prepared_size(dataset: Dataset, arguments: str, resolution: int, padding: int = 0) -> Dataset:
    """The images of a prepared pack at `resolution`; where the pack's own is too low, the error says how to make it larger."""
    own = dataset.shape[-1]
    if resolution > own:
        larger = resolution + 2 * padding if resolution & (resolution - 1) else resolution
        command = f"genae data prepare {arguments} --resolution {larger} --replace"
        raise NotPrepared(
            f"pack {dataset.name!r} holds {own}x{own} images, not {resolution}x{resolution}; make it larger with: {command}"
        )
    return _at_size(dataset, resolution, padding)


def _at_size(dataset: Dataset, resolution: int, padding: int = 0) -> Dataset:
    """The images at `resolution`: averaged, or without the padding where that is what is left."""
    if padding and resolution == dataset.shape[-1] - 2 * padding:
        return without_padding(dataset, padding)
    return at_resolution(dataset, resolution)


def _split_of(dataset: Dataset, split: str, num_validation: int) -> Dataset:
    """A split of a data set that comes as training and test images: `num_validation` of the first are held out for validation.

    dataset: the test images where split is test, else the training images.
    """
    if split == "test" or (split == "train" and not num_validation):
        return dataset
    if not num_validation:
        raise ValueError(f"{dataset.name} has no validation split of its own; hold one out with num_validation")
    train, validation = validation_rows(len(dataset), num_validation)
    return rows_of(dataset, train if split == "train" else validation, split)


def _of_images(dataset: Dataset | Vectors) -> Dataset:
    if isinstance(dataset, Vectors):
        raise ValueError(f"two-domains: {dataset.name} holds vectors; it takes images")
    return dataset


def _check_divides(name: str, own: int, resolution: int) -> None:
    if resolution < 1 or own % resolution:
        raise ValueError(f"{name} has images of {own}x{own}; resolution {resolution} cannot be had from them")
