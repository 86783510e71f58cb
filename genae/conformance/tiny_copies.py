"""What a user's own copy of each data set looks like, in a few small images: for tests that prepare and open them."""

import gzip
import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: int = 16) -> np.ndarray:
    """A colour image uint8 [size, size, 3] like no other."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of unsigned bytes, gzipped where its name says so."""
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _idx_files(folder: Path, suffix: str) -> None:
    generator = np.random.default_rng(28)
    for stem, count in (("train", 20), ("t10k", 8)):
        write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", generator.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


def _mnist(folder: Path) -> None:
    _idx_files(folder, "")


def _fashion_mnist(folder: Path) -> None:
    _idx_files(folder, ".gz")


def _cifar10(folder: Path) -> None:
    generator = np.random.default_rng(10)
    for name, count in {**{f"data_batch_{i}": 4 for i in range(1, 6)}, "test_batch": 5}.items():
        records = generator.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(count)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def _celeba(folder: Path) -> None:
    (folder / "img_align_celeba").mkdir()
    lines = []
    for number in range(1, 13):
        name = f"{number:06d}.jpg"
        wide = np.pad(picture(number), ((3, 3), (1, 1), (0, 0)))  # 22 x 18: taller than wide, as the real ones
        Image.fromarray(wide).save(folder / "img_align_celeba" / name, quality=95)
        lines.append(f"{name} {(number - 1) // 4}\n")  # four each of train, validation and test
    (folder / "list_eval_partition.txt").write_text("".join(lines))


def _celeba_hq(folder: Path) -> None:
    for number in range(20):
        Image.fromarray(picture(100 + number)).save(folder / f"{number}.png")


def _ffhq(folder: Path) -> None:
    for number in (0, 1, 59_999, 60_000, 69_999):
        inner = folder / f"{number // 1000 * 1000:05d}"
        inner.mkdir(exist_ok=True)
        Image.fromarray(picture(200 + number)).save(inner / f"{number:05d}.png")


def _folder(folder: Path) -> None:
    for number in range(12):
        inner = folder / f"kind-{number % 3}"
        inner.mkdir(exist_ok=True)
        Image.fromarray(picture(300 + number)).save(inner / f"{number}.png")


def _lsun_bedrooms(folder: Path) -> None:
    """As exported from the two LMDBs: opening those would need the package lmdb."""
    for name, count in (("bedroom_train", 12), ("bedroom_val", 3)):
        _exported(folder / name, count, seed=400 if name == "bedroom_train" else 450)


def _lsun_cars(folder: Path) -> None:
    _exported(folder, 20, seed=500)


def _exported(folder: Path, count: int, *, seed: int) -> None:
    """WebP files, wider than high, named and nested by their keys as LSUN's own script does it."""
    for number in range(count):
        content = as_webp(np.pad(picture(seed + number), ((0, 0), (2, 3), (0, 0))))
        key = lsun_key(content)
        inner = folder.joinpath(*key[:6])
        inner.mkdir(parents=True)
        (inner / f"{key}.webp").write_bytes(content)


def _tfd(folder: Path) -> None:
    """As MATLAB's file: an axis for folds, every image in each, labels as a column."""
    import scipy.io

    generator = np.random.default_rng(48)
    folds = (np.arange(24)[:, None] + np.arange(5)) % 4  # of each kind in each fold
    content = {
        "images": generator.integers(0, 256, (24, 48, 48), dtype=np.uint8),
        "folds": folds.astype(np.uint8),
        "labs_id": np.arange(24)[:, None],
        "labs_ex": np.arange(24)[:, None] % 7,
    }
    scipy.io.savemat(folder / "TFD_48x48.mat", content)


def _shoes(folder: Path) -> None:
    """JPEGs wider than high, in folders by kind."""
    for number in range(12):
        inner = folder / "ut-zap50k-images" / ("Boots" if number % 2 else "Sandals")
        inner.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(600 + number)[2:-2]).save(inner / f"{number}.jpg", quality=95)


def _bsds300(folder: Path) -> None:
    for split, count in (("train", 2), ("test", 1)):
        inner = folder / "images" / split
        inner.mkdir(parents=True)
        for number in range(count):
            wide = np.concatenate([picture(700 + count + number), picture(800 + count + number)], axis=number % 2)
            Image.fromarray(wide).save(inner / f"{count}00{number}.jpg", quality=95)


def _bsds300_hdf5(folder: Path) -> None:
    import h5py

    generator = np.random.default_rng(63)
    with h5py.File(folder / "BSDS300.hdf5", "w") as file:
        for split, count in (("train", 40), ("validation", 10), ("test", 20)):
            file[split] = 0.1 * generator.standard_normal((count, 63), np.float32)


def as_webp(pixels: np.ndarray) -> bytes:
    """A WebP file, lossy as LSUN's are."""
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, "WEBP", quality=90)
        return buffer.getvalue()


def lsun_key(content: bytes) -> str:
    """A key such as LSUN's: 40 hexadecimal digits."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


COPIES: dict[str, Callable[[Path], None]] = {
    "folder": _folder,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "tfd": _tfd,
    "shoes": _shoes,
    "bsds300-patches": _bsds300,
    "bsds300-patches-hdf5": _bsds300_hdf5,
    "celeba": _celeba,
    "celeba-hq": _celeba_hq,
    "ffhq": _ffhq,
    "lsun-bedrooms": _lsun_bedrooms,
    "lsun-cars": _lsun_cars,
}


def write_copy(source: str, folder: Path) -> Path:
    """Write the tiny copy of a source into a new folder, and return it."""
    folder.mkdir(parents=True)
    COPIES[source](folder)
    return folder
