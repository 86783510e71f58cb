"""What a user's own copy of a data set looks like on disk, and by which rule it is split.

Each reader takes the user's folder and how to pack, and returns a Reading: for each split the images in chunks, read as they
are asked for. No reader unpickles or downloads anything.
"""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genae.data.bsds300 import read_bsds300, read_bsds300_hdf5
from genae.data.lsun import read_lsun_bedrooms, read_lsun_cars
from genae.data.packs import Chunk
from genae.data.patches import DIM, SIDE
from genae.data.pictures import area_average
from genae.data.reading import Packing, Reading, SetAside, files_below, inspected, note_if_incomplete, of_files, told
from genae.data.tfd import SIDE as TFD_SIDE
from genae.data.tfd import read_tfd

_ARRAYS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of copy that can be prepared.

    crop: the default, None where images are not cropped; channels likewise.
    dim: where the pack holds vectors, of how many numbers; resolution and channels are then those of the patches.
    """

    read: Callable[[Path, Packing], Reading]
    pack: str | None
    resolution: int
    channels: int
    crop: str | None = None
    dim: int | None = None
    licence: str
    homepage: str


# ---------------------------------------------------------------- arrays: the IDX format of MNIST, CIFAR-10's binary version


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (LeCun et al., 1998), gzipped or not, as an array of its own shape."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    rank = content[3]
    shape = tuple(np.frombuffer(content, ">u4", rank, 4).tolist()) if len(content) >= 4 + 4 * rank else ()
    values = np.frombuffer(content, np.uint8, offset=min(4 + 4 * rank, len(content)))
    if rank == 0 or values.size != np.prod(shape):
        raise ValueError(f"{path} is damaged: {values.size} bytes for the shape {shape}")
    return values.reshape(shape)


def read_idx_split(source: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels uint8 [N] of the four files of MNIST or Fashion-MNIST."""
    stem = {"train": "train", "test": "t10k"}[split]
    images = read_idx(_found(source, rf"{stem}-images[-.]idx3-ubyte(\.gz)?"))
    labels = read_idx(_found(source, rf"{stem}-labels[-.]idx1-ubyte(\.gz)?"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{source}: images of shape {images.shape} and labels of shape {labels.shape} do not belong together")
    return images, labels


def pad_to_32(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 28, 28] -> uint8 [N, 1, 32, 32]: two black pixels on every side."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None]


def _read_idx_folder(source: Path, packing: Packing) -> Reading:
    splits, total = {}, 0
    for split in ("train", "test"):
        images, labels = read_idx_split(source, split)
        splits[split] = _array_chunks(pad_to_32(images), labels, packing.resolution)
        total += len(images)
    reading = Reading(splits, total, "as published: the train and the t10k files", "28x28 padded with 2 black pixels to 32x32")
    note_if_incomplete(reading, 70_000)
    return reading


def _read_cifar10(source: Path, packing: Packing) -> Reading:
    """The binary version, six files of records: label byte and 3 x 32 x 32 bytes. The Python version is a pickle: not read."""
    nested = source / "cifar-10-batches-bin"
    source = nested if nested.is_dir() else source
    splits, total = {}, 0
    for split, pattern in {"train": r"data_batch_\d\.bin", "test": r"test_batch\.bin"}.items():
        records = [np.frombuffer(path.read_bytes(), np.uint8) for path in _all_found(source, pattern)]
        joined = np.concatenate(records)
        if joined.size % 3073:
            raise ValueError(f"{source}: {split} files do not hold whole records of 3073 bytes; is this the *binary* version?")
        rows = joined.reshape(-1, 3073)
        splits[split] = _array_chunks(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0], packing.resolution)
        total += len(rows)
    reading = Reading(splits, total, "as published: data_batch_1..5 and test_batch", "none: kept at 32x32")
    note_if_incomplete(reading, 60_000)
    return reading


def _array_chunks(images: np.ndarray, labels: np.ndarray, resolution: int) -> Iterator[Chunk]:
    if resolution > 32 or 32 % resolution:
        raise ValueError(f"these images are 32x32; resolution {resolution} cannot be had from them (1, 2, 4, 8, 16 or 32)")

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(images), _ARRAYS_AT_ONCE):
            rows = slice(start, start + _ARRAYS_AT_ONCE)
            yield area_average(images[rows], resolution), {"label": labels[rows].astype(np.int64)}

    return chunks()


# ---------------------------------------------------------------- folders of image files


def _read_folder(source: Path, packing: Packing) -> Reading:
    """Any tree of images; split by its own folders train/ and test/, else by the content of the files.

    Each split is in the order of its files' sha256: shuffled, so that its first images are no one folder's.
    """
    files = files_below(source)
    usable, set_aside = inspected(source, files, packing)
    digests = {file: hashlib.sha256((source / file).read_bytes()).hexdigest() for file in told(usable, packing)}
    if {"train", "test"} <= {file.split("/")[0] for file in files if "/" in file}:
        rule = "the source's own folders train/ and test/"
        ordered = _by_digest(digests)
        names = {split: [f for f in ordered if f.startswith(f"{split}/")] for split in ("train", "test")}
        elsewhere = [f for f in usable if not f.startswith(("train/", "test/"))]
        set_aside += [SetAside(file, "is outside the folders train/ and test/") for file in elsewhere]
    else:
        names, rule = split_by_content(digests, packing.test_share)
    return of_files(source, names, rule, packing, set_aside)


def split_by_content(digests: Mapping[str, str], test_share: float) -> tuple[dict[str, list[str]], str]:
    """Files by split: those of the smallest sha256 of content are the test split, `test_share` of all but at least one.

    It depends on no name, order, crop or resolution, and equal files fall on one side. Returns the rule in words too.
    """
    ordered = _by_digest(digests)
    num_test = min(max(1, round(test_share * len(ordered))), len(ordered) - 1)
    last = digests[ordered[num_test - 1]] if num_test > 0 else ""
    names = {
        "train": [file for file in ordered if digests[file] > last],
        "test": [file for file in ordered if digests[file] <= last],
    }
    return names, f"test: the {test_share:g} of the files whose sha256 is smallest, equal files together; train: the others"


def _by_digest(digests: Mapping[str, str]) -> list[str]:
    return sorted(digests, key=lambda file: (digests[file], file))


def _read_celeba(source: Path, packing: Packing) -> Reading:
    """img_align_celeba/*.jpg and list_eval_partition.txt (Liu et al., 2015): 0 is train, 1 validation, 2 test."""
    published = source / "Eval"
    partition = _found(published if published.is_dir() else source, r"list_eval_partition\.txt")
    nested = source / "img_align_celeba"
    images = nested if nested.is_dir() else source
    names: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    for number, line in enumerate(partition.read_text().splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in names:
            raise ValueError(f"{partition}, line {number}: expected a file name and 0, 1 or 2, not {line!r}")
        names[fields[1]].append(fields[0])
    present = {"train": names["0"], "test": names["2"]}
    rule = "as published: partition 0 is train, 2 is test; 1 (validation) is left out"
    listed = [file for split in present.values() for file in split]
    usable, set_aside = inspected(images, listed, packing)
    kept = set(usable)
    return of_files(
        images, {split: [f for f in files if f in kept] for split, files in present.items()}, rule, packing, set_aside
    )


def _read_celeba_hq(source: Path, packing: Packing) -> Reading:
    """30,000 images named by number: the first nine tenths in that order are train (Heljakka et al., 2020: 27k / 3k)."""
    numbered, set_aside = _numbered(source, packing)
    num_train = len(numbered) * 9 // 10
    names = {"train": [file for _, file in numbered[:num_train]], "test": [file for _, file in numbered[num_train:]]}
    rule = "by the number in the name: the first nine tenths are train, the others test (27,000 and 3,000 of 30,000)"
    return of_files(source, names, rule, packing, set_aside, expected=30_000)


def _read_ffhq(source: Path, packing: Packing) -> Reading:
    """70,000 images named by number: below 60,000 is train (Karras et al., 2019)."""
    numbered, set_aside = _numbered(source, packing)
    names = {
        "train": [file for number, file in numbered if number < 60_000],
        "test": [file for number, file in numbered if number >= 60_000],
    }
    rule = "by the number in the name, as published: 0 to 59,999 is train, 60,000 to 69,999 test"
    return of_files(source, names, rule, packing, set_aside, expected=70_000)


def _numbered(source: Path, packing: Packing) -> tuple[list[tuple[int, str]], list[SetAside]]:
    """The usable files by the last number in their names, in its order. Files without one, or of another's, are set aside."""
    usable, set_aside = inspected(source, files_below(source), packing)
    by_number: dict[int, str] = {}
    for file in usable:
        digits = re.findall(r"\d+", Path(file).stem)
        if not digits:
            set_aside.append(SetAside(file, "has no number in its name, which the split goes by"))
        elif (number := int(digits[-1])) in by_number:
            set_aside.append(SetAside(file, f"has the same number as {by_number[number]}"))
        else:
            by_number[number] = file
    return sorted(by_number.items()), set_aside


def _read_shoes(source: Path, packing: Packing) -> Reading:
    """UT-Zappos50K: its folder ut-zap50k-images-square or ut-zap50k-images, split by content as any folder."""
    nested = (source / name for name in ("ut-zap50k-images-square", "ut-zap50k-images"))
    source = next((folder for folder in nested if folder.is_dir()), source)
    usable, set_aside = inspected(source, files_below(source), packing)
    digests = {file: hashlib.sha256((source / file).read_bytes()).hexdigest() for file in told(usable, packing)}
    names, rule = split_by_content(digests, packing.test_share)
    return of_files(source, names, f"ours, by content; {rule}", packing, set_aside, expected=50_025)


def _all_found(source: Path, pattern: str) -> list[Path]:
    matching = sorted(path for path in source.iterdir() if re.fullmatch(pattern, path.name))
    if not matching:
        raise ValueError(f"{source} has no file like {pattern}; it has: {', '.join(_glimpse(source)) or 'nothing'}")
    return matching


def _found(source: Path, pattern: str) -> Path:
    return _all_found(source, pattern)[0]


def _glimpse(source: Path) -> list[str]:
    names = sorted(path.name for path in source.iterdir())
    return names if len(names) <= 8 else [*names[:8], "..."]


SOURCES = {
    "folder": Source(read=_read_folder, pack=None, resolution=64, channels=3, crop="center", licence="your own", homepage=""),
    "mnist": Source(
        read=_read_idx_folder,
        pack="mnist",
        resolution=32,
        channels=1,
        licence="CC BY-SA 3.0 as commonly stated (Y. LeCun, C. Cortes)",
        homepage="http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion-mnist": Source(
        read=_read_idx_folder,
        pack="fashion-mnist-full",
        resolution=32,
        channels=1,
        licence="MIT (Zalando SE)",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
    ),
    "cifar10": Source(
        read=_read_cifar10,
        pack="cifar10",
        resolution=32,
        channels=3,
        licence="none stated (A. Krizhevsky)",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "tfd": Source(
        read=read_tfd,
        pack="tfd",
        resolution=TFD_SIDE,
        channels=1,
        licence="from its owners, on request; each photograph by its source's licence",
        homepage="http://aclab.ca/users/josh/TFD.html",
    ),
    "shoes": Source(
        read=_read_shoes,
        pack="shoes",
        resolution=64,
        channels=3,
        crop="pad",
        licence="academic, non-commercial use only (A. Yu, K. Grauman; photographs: zappos.com)",
        homepage="https://vision.cs.utexas.edu/projects/finegrained/utzap50k/",
    ),
    "bsds300-patches": Source(
        read=read_bsds300,
        pack="bsds300-patches",
        resolution=SIDE,
        channels=1,
        dim=DIM,
        licence="non-commercial research and education (D. Martin, C. Fowlkes, D. Tal, J. Malik)",
        homepage="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
    ),
    "bsds300-patches-hdf5": Source(
        read=read_bsds300_hdf5,
        pack="bsds300-patches-hdf5",
        resolution=SIDE,
        channels=1,
        dim=DIM,
        licence="non-commercial research and education (D. Martin, C. Fowlkes, D. Tal, J. Malik)",
        homepage="https://zenodo.org/record/1161203",
    ),
    "celeba": Source(
        read=_read_celeba,
        pack="celeba",
        resolution=128,
        channels=3,
        crop="center",
        licence="non-commercial research only",
        homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
    "celeba-hq": Source(
        read=_read_celeba_hq,
        pack="celeba-hq",
        resolution=256,
        channels=3,
        crop="none",
        licence="CC BY-NC 4.0; the photographs: non-commercial research only",
        homepage="https://github.com/tkarras/progressive_growing_of_gans",
    ),
    "ffhq": Source(
        read=_read_ffhq,
        pack="ffhq",
        resolution=256,
        channels=3,
        crop="none",
        licence="CC BY-NC-SA 4.0; each photograph by its own licence",
        homepage="https://github.com/NVlabs/ffhq-dataset",
    ),
    "lsun-bedrooms": Source(
        read=read_lsun_bedrooms,
        pack="lsun-bedrooms",
        resolution=256,
        channels=3,
        crop="center",
        licence="none stated; each photograph is its owner's",
        homepage="https://www.yf.io/p/lsun",
    ),
    "lsun-cars": Source(
        read=read_lsun_cars,
        pack="lsun-cars",
        resolution=256,
        channels=3,
        crop="center",
        licence="none stated; each photograph is its owner's",
        homepage="https://www.yf.io/p/lsun",
    ),
}
