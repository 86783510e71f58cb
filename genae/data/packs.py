"""Packs: images as one memory-mapped uint8 array per split, or as encoded bytes, with all that must be known to trust them.
Vectors (vectors.py) are packed alike.

    PACK/dataset.json              name, source, licence, split rule, crop, resize, resolution, channels, set_aside, notes, and
                                   for each split its num_images, its digest and the digests of its factors
    PACK/train/images.npy          uint8 [N, C, H, W]; in a pack of encoded bytes images.bin and offsets.npy (encoded.py)
    PACK/train/<factor>.npy        [N] or [N, k], aligned with the images
    PACK/test/...

A data set's digest is the sha256 of its images' bytes in C order, followed by its shape written as "NxCxHxW": bytes first,
because a pack is written before it is known how many images are usable. It speaks of pixels, so a pack of arrays and one of
encoded bytes that hold the same images have one digest; an encoded one is not opened where it would decode to others.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genae.cache import cache_dir, cached_folder
from genae.data.dataset import REQUIRED_SPLITS, Dataset
from genae.data.encoded import BYTES_FILE, OFFSETS_FILE, EncodedImages, EncodedWriter, decoders
from genae.data.pictures import area_average

DESCRIPTION_FILE = "dataset.json"
IMAGES_FILE = "images.npy"
WHOLE = "all"  # the one split of a pack that is split when it is opened

# Images [n, C, H, W], their factors, [n] or [n, k] each, and where they come from encoded files, the bytes of those.
Chunk = tuple[np.ndarray, Mapping[str, np.ndarray]] | tuple[np.ndarray, Mapping[str, np.ndarray], list[bytes]]


class ArrayKind(NamedTuple):
    """What a pack's arrays are. counted: what dataset.json calls their number."""

    file: str
    dtype: str
    counted: str

    @property
    def noun(self) -> str:
        """What they hold, in the plural."""
        return self.counted.removeprefix("num_")


IMAGES = ArrayKind(IMAGES_FILE, "|u1", "num_images")

_PROBED = 16  # images that are decoded when a pack is opened, to see that the decoder is still the one that packed it
_ROWS_AT_ONCE = 1024  # bounds the memory that hashing and reducing take


def packs_dir() -> Path:
    """Where prepared packs lie: $GENAE_DATA, else cache_dir() / packs."""
    chosen = os.environ.get("GENAE_DATA")
    return Path(chosen).expanduser() if chosen else cache_dir() / "packs"


def content_digest(array: np.ndarray | EncodedImages) -> str:
    """sha256 (hex) of an array's bytes in C order and its shape: what `Dataset.digest` is for images."""
    hashed = hashlib.sha256()
    for start in range(0, len(array), _ROWS_AT_ONCE):
        hashed.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).data)
    return _closed_digest(hashed, array.shape)


def write_pack(
    folder: Path,
    splits: Mapping[str, Iterable[Chunk]],
    describe: Callable[[], Mapping[str, Any]],
    *,
    decoding: Mapping[str, Any] | None = None,
    kind: ArrayKind = IMAGES,
) -> None:
    """Write every split, then dataset.json: what `describe()` returns and what was counted.

    describe is called after the last chunk was taken, so that it can tell what was set aside on the way. Raises ValueError for
    a split without images.
    decoding: keep the encoded bytes; the settings of `read_picture` by which they become the images. Without it, the arrays.
    """
    counted = {split: write_split(folder / split, chunks, decoding=decoding, kind=kind) for split, chunks in splits.items()}
    for split, summary in counted.items():
        if not summary[kind.counted]:
            raise ValueError(f"no usable {kind.noun[:-1]} for the {split} split")
    description = {**describe(), "splits": counted}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")


def write_split(
    folder: Path, chunks: Iterable[Chunk], *, decoding: Mapping[str, Any] | None = None, kind: ArrayKind = IMAGES
) -> dict[str, Any]:
    """Write one split as its chunks come, and return what dataset.json says of it: {num_images, digest, factors, ...}."""
    folder.mkdir(parents=True)
    hashed = hashlib.sha256()
    shape: tuple[int, ...] = (0,)
    factors: dict[str, list[np.ndarray]] = {}
    with closing(_ArrayWriter(folder, kind) if decoding is None else EncodedWriter(folder)) as writer:
        for images, of_chunk, *encoded in chunks:
            images = np.ascontiguousarray(images, dtype=kind.dtype)
            if shape[0] and images.shape[1:] != shape[1:]:
                raise ValueError(f"{kind.noun} of shape {images.shape[1:]} after {kind.noun} of shape {shape[1:]}")
            writer.write(images, *encoded)
            hashed.update(images.data)
            shape = (shape[0] + len(images), *images.shape[1:])
            for name, values in of_chunk.items():
                factors.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in factors.items()}
    for name, values in joined.items():
        if len(values) != shape[0]:
            raise ValueError(f"factor {name!r} has {len(values)} values for {shape[0]} {kind.noun}")
        np.save(folder / f"{name}.npy", values)
    summary = {
        kind.counted: shape[0],
        "digest": _closed_digest(hashed, shape),
        "factors": {name: content_digest(values) for name, values in joined.items()},
    }
    if kind is not IMAGES:
        summary["file"] = kind.file
    if decoding is not None and shape[0]:
        summary["encoded"] = _describe_encoded(folder, decoding)
    return summary


class _ArrayWriter:
    """Writes an .npy file as its parts come."""

    def __init__(self, folder: Path, kind: ArrayKind) -> None:
        self._handle = (folder / kind.file).open("wb")
        self._dtype = kind.dtype
        self._shape: tuple[int, ...] = (0,)

    def write(self, images: np.ndarray, encoded: list[bytes] | None = None) -> None:
        if not self._shape[0]:
            self._write_header(images.shape)
        self._handle.write(images.data)
        self._shape = (self._shape[0] + len(images), *images.shape[1:])

    def close(self) -> None:
        self._handle.seek(0)
        self._write_header(self._shape)  # as long as the first: NumPy leaves room for the first axis to grow
        self._handle.close()

    def _write_header(self, shape: tuple[int, ...]) -> None:
        layout = {"descr": self._dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._handle, layout)


def _describe_encoded(folder: Path, decoding: Mapping[str, Any]) -> dict[str, Any]:
    """What dataset.json says of a split's encoded bytes: how, by which versions and to which pixels they decode."""
    offsets = np.load(folder / OFFSETS_FILE, mmap_mode="r")
    images = EncodedImages(folder / BYTES_FILE, offsets, **decoding)
    return {
        "decoding": dict(decoding),
        "decoders": decoders(),
        "probe": content_digest(images.first(_PROBED)),
        "bytes_digest": _file_digest(folder / BYTES_FILE),
        "offsets_digest": content_digest(offsets),
    }


def read_description(folder: Path) -> dict[str, Any]:
    """What dataset.json says. Raises ValueError where it is missing or unreadable."""
    try:
        return json.loads((folder / DESCRIPTION_FILE).read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a pack: it has no {DESCRIPTION_FILE}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / DESCRIPTION_FILE} cannot be read: {error}") from None


def read_summary(folder: Path, split: str, kind: ArrayKind = IMAGES) -> tuple[str, dict[str, Any]]:
    """The name of a pack, and what dataset.json says of one of its splits. Raises ValueError where it has no such split."""
    description = read_description(folder)
    if split not in description["splits"]:
        raise ValueError(f"pack {description['name']!r} has no split {split!r}; it has: {', '.join(description['splits'])}")
    summary = description["splits"][split]
    if kind.counted not in summary:
        raise ValueError(f"pack {description['name']!r} holds no {kind.noun}")
    return description["name"], summary


def open_pack(folder: Path, split: str) -> Dataset:
    """One split of a pack, memory-mapped. Its digest is what was counted at writing (`verify_pack` recounts)."""
    name, summary = read_summary(folder, split)
    images = _open_images(folder / split, summary)
    if len(images) != summary["num_images"]:
        raise ValueError(f"{folder / split}: {len(images)} images, but {DESCRIPTION_FILE} counts {summary['num_images']}")
    factors = {name: np.load(folder / split / f"{name}.npy") for name in summary["factors"]}
    return Dataset(name, split, images, summary["digest"], factors)


def _open_images(folder: Path, summary: Mapping[str, Any]) -> np.ndarray | EncodedImages:
    if "encoded" not in summary:
        return np.load(folder / IMAGES_FILE, mmap_mode="r")
    encoded = summary["encoded"]
    offsets = np.load(folder / OFFSETS_FILE, mmap_mode="r")
    images = EncodedImages(folder / BYTES_FILE, offsets, **encoded["decoding"])
    if content_digest(images.first(_PROBED)) != encoded["probe"]:
        raise ValueError(
            f"{folder / BYTES_FILE} decodes to other pixels here than where it was packed: the decoders here are "
            f"{_listed(decoders())}, there they were {_listed(encoded['decoders'])}. Install those, or prepare the pack again"
        )
    return images


def verify_pack(folder: Path) -> list[str]:
    """What is wrong with a pack, one line each, by reading every byte and decoding every image again. Empty if all is well."""
    try:
        description = read_description(folder)
    except ValueError as error:
        return [str(error)]
    problems = []
    for split, summary in description["splits"].items():
        for file, digest, recount in _recounts(folder / split, summary):
            try:
                found = recount()
            except FileNotFoundError:
                problems.append(f"{split}/{file} is missing")
            except (ValueError, OSError) as error:
                problems.append(f"{split}/{file} cannot be read: {error}")
            else:
                if found != digest:
                    problems.append(f"{split}/{file} was altered: its sha256 is {found[:12]}..., not {digest[:12]}...")
    required = () if WHOLE in description["splits"] else REQUIRED_SPLITS
    problems += [f"the {split} split is missing" for split in required if split not in description["splits"]]
    return problems


def _recounts(folder: Path, summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Each file of a split, the digest that it should have, and how to count that again."""

    def of_array(file: str) -> Callable[[], str]:
        return lambda: content_digest(np.load(folder / file, mmap_mode="r"))

    if encoded := summary.get("encoded"):
        yield OFFSETS_FILE, encoded["offsets_digest"], of_array(OFFSETS_FILE)
        yield BYTES_FILE, encoded["bytes_digest"], lambda: _file_digest(folder / BYTES_FILE)
        yield f"{BYTES_FILE}, decoded,", summary["digest"], lambda: content_digest(_open_images(folder, summary))
    else:
        file = summary.get("file", IMAGES_FILE)
        yield file, summary["digest"], of_array(file)
    for name, digest in summary["factors"].items():
        yield f"{name}.npy", digest, of_array(f"{name}.npy")


def at_resolution(dataset: Dataset, resolution: int) -> Dataset:
    """The data set at `resolution`, its images area-averaged: a pack of its own in the cache, keyed by the images' digest.

    Encoded images are averaged whenever they are decoded, with nothing in the cache: the average, too, may be too large for it.
    Raises ValueError where `resolution` does not divide the images' own.
    """
    own = dataset.shape[-1]
    if resolution == own:
        return dataset
    if resolution < 1 or own % resolution:
        raise ValueError(f"{dataset.name} holds images of {own}x{own} pixels, which cannot be averaged to {resolution}")
    if isinstance(dataset.images, EncodedImages):
        digest = hashlib.sha256(f"{dataset.digest} averaged to {resolution}".encode()).hexdigest()  # of pixels: hours to count
        return replace(dataset, images=dataset.images.at_resolution(resolution), digest=digest)

    def build(folder: Path) -> None:
        starts = range(0, len(dataset), _ROWS_AT_ONCE)
        chunks = ((area_average(dataset.images[start : start + _ROWS_AT_ONCE], resolution), {}) for start in starts)
        write_pack(folder, {dataset.split: chunks}, lambda: {"name": dataset.name, "averaged_from": dataset.digest})

    key = {"images": dataset.digest, "resolution": resolution}
    reduced = open_pack(cached_folder("area-averaged", key | {"split": dataset.split}, build), dataset.split)
    return replace(dataset, images=reduced.images, digest=reduced.digest)


def _file_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _closed_digest(hashed: Any, shape: tuple[int, ...]) -> str:
    hashed.update("x".join(map(str, shape)).encode())
    return hashed.hexdigest()
