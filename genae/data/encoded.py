"""Images kept as the files' own bytes and decoded when they are asked for: packs of what would be too large as arrays.

    images.bin     the encoded files, back to back, as they were in the source
    offsets.npy    int64 [N + 1]: image i is bytes offsets[i] to offsets[i + 1] of images.bin

Nothing is encoded anew: a lossy file would lose once more, a lossless one would be several times larger than the source. So
what the pack's resolution asks for (crop, area average; pictures.py) is done each time an image is decoded. It is counted in
whole numbers, so the pixels are those that a pack of arrays would hold, bit for bit, as long as the decoder is the same one.
"""

from array import array
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from os import sched_getaffinity
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL
from PIL import features

from genae.data.pictures import Unsuitable, area_average, read_picture

BYTES_FILE = "images.bin"
OFFSETS_FILE = "offsets.npy"

_NUM_THREADS = len(sched_getaffinity(0))
_PARTS_PER_THREAD = 4  # so that a thread with quick images takes over from one with slow ones


class EncodedImages:
    """A read-only array uint8 [N, C, R, R] whose images are decoded when they are indexed, in threads (Pillow lets them run).

    Index it by an integer (one image [C, R, R]), a slice or an array of integers or bools (copies [n, C, R, R]), as an array;
    `np.asarray` decodes everything. `first` and `at_resolution` decode nothing.

    path: of images.bin.  offsets: int64 [N + 1], where each image begins and ends.
    channels, crop, resolution: what each file becomes (`read_picture`).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, offsets: np.ndarray, *, channels: int, crop: str, resolution: int) -> None:
        size = path.stat().st_size
        if offsets.ndim != 1 or len(offsets) < 2 or offsets[-1] > size:
            raise ValueError(f"{path} is cut short: {size:,} bytes of {int(offsets[-1]) if offsets.size else 0:,}")
        self.path = path
        self._offsets = offsets
        self._bytes = np.asarray(np.memmap(path, np.uint8, mode="r"))  # drops np.memmap, whose every slice costs microseconds
        self._decoding = {"channels": channels, "crop": crop, "resolution": resolution}
        self._resolution = resolution  # of what is given out
        self._ahead: tuple[bytes, np.ndarray, list[Future[None]]] | None = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), self._decoding["channels"], self._resolution, self._resolution)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, int | np.integer):
            return self._decode(range(len(self))[key])
        indices = self._indices(key)
        if self._ahead and self._ahead[0] == indices.tobytes():
            (_, images, parts), self._ahead = self._ahead, None
        else:
            self._drop_ahead()
            images, parts = self._begun(indices)
        for part in parts:
            part.result()
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("encoded images are decoded into a new array; copy=False cannot be had")
        return self[:].astype(dtype or np.uint8, copy=False)

    def prefetch(self, indices: np.ndarray) -> None:
        """Begin to decode these images; indexing by an equal array next takes what is ready. Another index drops them."""
        self._drop_ahead()
        indices = self._indices(indices)
        self._ahead = (indices.tobytes(), *self._begun(indices))

    def first(self, count: int) -> Self:
        """The first `count` images, not decoded."""
        return self._with(self._offsets[: count + 1], self._resolution)

    def at_resolution(self, resolution: int) -> Self:
        """The same images, each area-averaged to `resolution` once it is decoded."""
        return self._with(self._offsets, resolution)

    def _with(self, offsets: np.ndarray, resolution: int) -> Self:
        other = type(self)(self.path, offsets, **self._decoding)
        other._resolution = resolution
        return other

    def _indices(self, key: Any) -> np.ndarray:
        """An index of the first axis as int64 [n], in 0 .. N - 1. Raises IndexError beyond the ends, TypeError for others."""
        if isinstance(key, slice):
            return np.arange(*key.indices(len(self)))
        indices = np.asarray(key)
        if indices.dtype == bool and indices.shape == (len(self),):
            return np.flatnonzero(indices)
        if isinstance(key, tuple) or indices.ndim != 1 or (indices.size and not np.issubdtype(indices.dtype, np.integer)):
            raise TypeError(
                "encoded images are indexed along their first axis, by integers, a slice or bools; slice the result"
            )
        indices = indices.astype(np.int64)
        if indices.size and not -len(self) <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"there are {len(self)} images")
        return np.where(indices < 0, indices + len(self), indices)

    def _begun(self, indices: np.ndarray) -> tuple[np.ndarray, list[Future[None]]]:
        """The array that images `indices` are being decoded into, and the parts of that work."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)

        def fill(rows: np.ndarray) -> None:
            for row in rows:
                images[row] = self._decode(indices[row])

        parts = np.array_split(np.arange(len(indices)), _PARTS_PER_THREAD * _NUM_THREADS)
        return images, [self._pool.submit(fill, rows) for rows in parts if len(rows)]

    def _drop_ahead(self) -> None:
        for part in self._ahead[2] if self._ahead else ():
            part.cancel()
        self._ahead = None

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="decode")

    def _decode(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [C, R, R]. Raises ValueError where its bytes are no longer what was packed."""
        encoded = self._bytes[self._offsets[index] : self._offsets[index + 1]].tobytes()
        try:
            image = read_picture(encoded, **self._decoding)
        except Unsuitable as error:
            raise ValueError(f"image {index} of {self.path} {error}; was the pack altered? See: genae data verify") from None
        return image if image.shape[-1] == self._resolution else area_average(image[None], self._resolution)[0]


class EncodedWriter:
    """Writes images.bin and offsets.npy as their parts come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle = (folder / BYTES_FILE).open("wb")
        self._offsets = array("q", [0])

    def write(self, images: np.ndarray, encoded: Iterable[bytes]) -> None:
        """encoded: what `images` were decoded from."""
        for content in encoded:
            self._handle.write(content)
            self._offsets.append(self._offsets[-1] + len(content))

    def close(self) -> None:
        self._handle.close()
        np.save(self._folder / OFFSETS_FILE, np.frombuffer(self._offsets, np.int64))


def decoders() -> dict[str, str]:
    """The versions of Pillow and of the decoders in it on which pixels may depend."""
    found = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "jpg_2000")}
    return {"pillow": PIL.__version__} | {name: version for name, version in found.items() if version}
