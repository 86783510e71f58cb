"""LSUN (Yu et al., 2015): an LMDB of encoded images by category, or the images that were exported from it.

Images are taken in the order of their keys, which are hashes, so that neighbours have nothing in common. The file name of an
exported image is its key: a folder of them becomes the same pack as the LMDB that they came from.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from genae.data.pictures import RESIZE
from genae.data.reading import Packing, Reading, files_below, note_if_incomplete, picture_chunks

LMDB_FILE = "data.mdb"

# Where each split of the bedrooms lies: as LSUN's own script unpacks it, or as folders of images may be called.
_BEDROOMS = {
    "train": ("bedroom_train_lmdb", "bedroom_train", "train"),
    "test": ("bedroom_val_lmdb", "bedroom_val", "val", "test"),
}
_NUM_BEDROOMS = 3_033_042 + 300
_CARS = ("car_lmdb", "car")
_NUM_TRAIN_CARS, _NUM_CARS = 4_968_695, 5_520_756  # Heljakka et al. (2020), A.1: 4,968,695 and 552,061


def read_lsun_bedrooms(source: Path, packing: Packing) -> Reading:
    """bedroom_train_lmdb is train, bedroom_val_lmdb, of 300, is test: the split of LSUN's authors."""
    if (source / LMDB_FILE).exists():
        raise ValueError(
            f"{source} is one LMDB; lsun-bedrooms needs the folder that holds {_BEDROOMS['train'][0]} and the other"
        )
    stores = {split: _store(_one_of(source, names)) for split, names in _BEDROOMS.items()}
    rule = "as published: bedroom_train_lmdb is train, bedroom_val_lmdb test (3,033,042 and 300)"
    ranges = {split: (store, 0, len(store)) for split, store in stores.items()}
    return _reading(ranges, rule, packing, expected=_NUM_BEDROOMS)


def read_lsun_cars(source: Path, packing: Packing) -> Reading:
    """One store, split by the order of the keys: the paper gives how many are train and test, and not which."""
    inner = [source / name for name in _CARS if (source / name).is_dir()]
    store = _store(inner[0] if inner and not (source / LMDB_FILE).exists() else source)
    num_train = len(store) * _NUM_TRAIN_CARS // _NUM_CARS
    rule = "by the order of the keys: the first nine tenths are train, the others test (4,968,695 and 552,061 of 5,520,756)"
    ranges = {"train": (store, 0, num_train), "test": (store, num_train, len(store))}
    return _reading(ranges, rule, packing, expected=_NUM_CARS)


# ---------------------------------------------------------------- an LMDB, or a folder of what was in one


@dataclass(frozen=True)
class LmdbStore:
    """An LMDB that maps keys to encoded images. Raises ValueError where it is not whole."""

    folder: Path
    num_images: int
    num_bytes: int

    @classmethod
    def open(cls, folder: Path) -> "LmdbStore":
        with _opened_lmdb(folder) as environment:
            return cls(folder, environment.stat()["entries"], (folder / LMDB_FILE).stat().st_size)

    def __len__(self) -> int:
        return self.num_images

    def pictures(self, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        """Images number `start` to `stop`, in the order of the keys, each by its name."""
        with _opened_lmdb(self.folder) as environment, environment.begin() as transaction:
            cursor = transaction.cursor()
            if start and cursor.first():
                first = next(islice(cursor.iternext(keys=True, values=False), start, None))  # reads no image on the way
                cursor.set_key(first)
            for key, content in islice(cursor.iternext(), stop - start):
                yield f"{self.folder.name}/{key.decode('ascii', 'backslashreplace')}", content


@dataclass(frozen=True)
class FolderStore:
    """Image files, by the key in the name of each."""

    folder: Path
    files: tuple[str, ...]
    num_bytes: int

    @classmethod
    def open(cls, folder: Path) -> "FolderStore":
        files = sorted(files_below(folder), key=lambda file: (os.path.splitext(os.path.basename(file))[0], file))
        return cls(folder, tuple(files), sum((folder / file).lstat().st_size for file in files))

    def __len__(self) -> int:
        return len(self.files)

    def pictures(self, start: int, stop: int) -> Iterator[tuple[str, Path]]:
        """Images number `start` to `stop`, each by its name."""
        for file in self.files[start:stop]:
            yield f"{self.folder.name}/{file}", self.folder / file


Store = LmdbStore | FolderStore


def _store(folder: Path) -> Store:
    return LmdbStore.open(folder) if (folder / LMDB_FILE).exists() else FolderStore.open(folder)


def _reading(ranges: dict[str, tuple[Store, int, int]], rule: str, packing: Packing, *, expected: int) -> Reading:
    reading = Reading({}, sum(stop - start for _, start, stop in ranges.values()), rule, RESIZE)
    reading.encoded_bytes = sum({store.folder: store.num_bytes for store, _, _ in ranges.values()}.values())
    note_if_incomplete(reading, expected)
    for split, (store, start, stop) in ranges.items():
        reading.splits[split] = picture_chunks(store.pictures(start, stop), packing, reading.set_aside)
    return reading


@contextmanager
def _opened_lmdb(folder: Path) -> Iterator[Any]:
    """An lmdb.Environment to read from. Raises ValueError, naming data.mdb, where it is cut short, damaged or something else.

    LMDB maps the whole file and trusts it, so reading beyond the end of one that is cut short would end the process.
    """
    data = folder / LMDB_FILE
    try:
        import lmdb
    except ImportError:
        raise ValueError(f"{data} is read by the package lmdb: pip install 'genae[lsun]'") from None
    try:
        with closing(lmdb.open(str(folder), readonly=True, create=False, lock=False, max_readers=1)) as environment:
            size, needed = data.stat().st_size, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if size < needed:
                raise ValueError(f"{data} is cut short: {size:,} bytes of {needed:,}. Copy it again")
            yield environment
    except lmdb.Error as error:
        raise ValueError(f"{data} is no LMDB, or damaged: {str(error).rpartition(': ')[2]}") from None


def _one_of(source: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (source / name).is_dir():
            return source / name
    raise ValueError(f"{source} has none of the folders {', '.join(names)}")
