"""What every reader of a user's copy finds and gives: images in chunks for each split, read as they are asked for."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genae.data.packs import Chunk
from genae.data.pictures import RESIZE, Unsuitable, file_bytes, inspect_picture, read_picture

_FILES_AT_ONCE = 64


class SetAside(NamedTuple):
    """A file of the source that is not in the pack, and why."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How to pack: see `prepare`. crop is None where a source has nothing to crop.

    progress(done, total): told of files that are looked at before any is packed.
    """

    resolution: int
    channels: int
    crop: str | None
    test_share: float
    progress: Callable[[int, int], None]

    @property
    def decoding(self) -> dict[str, Any]:
        """What `read_picture` makes of each file."""
        return {"channels": self.channels, "crop": self.crop or "none", "resolution": self.resolution}


@dataclass
class Reading:
    """What a reader found. set_aside grows while the splits are read; it is whole after the last chunk of the last split.

    encoded_bytes: what the image files take together; None where the source holds arrays.
    """

    splits: dict[str, Iterable[Chunk]]
    num_files: int
    split_rule: str
    resize: str
    encoded_bytes: int | None = None
    set_aside: list[SetAside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def of_files(
    source: Path,
    names: Mapping[str, list[str]],
    rule: str,
    packing: Packing,
    set_aside: list[SetAside],
    *,
    expected: int | None = None,
) -> Reading:
    """The Reading of image files, named for each split relative to `source`. expected: how many the whole data set has."""
    reading = Reading({}, sum(len(files) for files in names.values()), rule, RESIZE, set_aside=set_aside)
    reading.encoded_bytes = sum((source / file).stat().st_size for files in names.values() for file in files)
    note_if_incomplete(reading, expected)
    for split, files in names.items():
        reading.splits[split] = picture_chunks(((file, source / file) for file in files), packing, set_aside)
    return reading


def note_if_incomplete(reading: Reading, expected: int | None) -> None:
    """Note where a copy has not as many images as the whole data set."""
    if expected is not None and reading.num_files != expected:
        reading.notes.append(
            f"{reading.num_files:,} images, where the whole data set has {expected:,}: the split is not the published one"
        )


def picture_chunks(
    pictures: Iterable[tuple[str, Path | bytes]], packing: Packing, set_aside: list[SetAside]
) -> Iterator[Chunk]:
    """Images by name, in files or as the bytes of one, decoded in their order; what fails is set aside."""
    decoding = packing.decoding

    def read(picture: tuple[str, Path | bytes]) -> tuple[np.ndarray, bytes] | SetAside:
        name, content = picture
        try:
            content = content if isinstance(content, bytes) else file_bytes(content)
            return read_picture(content, **decoding), content
        except Unsuitable as error:
            return SetAside(name, str(error))

    remaining = iter(pictures)
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
        while some := list(islice(remaining, _FILES_AT_ONCE)):
            results = list(pool.map(read, some))
            set_aside += [result for result in results if isinstance(result, SetAside)]
            usable = [result for result in results if not isinstance(result, SetAside)]
            if usable:
                images, encoded = zip(*usable, strict=True)
                yield np.stack(images), {}, list(encoded)


def inspected(source: Path, files: list[str], packing: Packing) -> tuple[list[str], list[SetAside]]:
    """The files whose headers promise an image of the pack, in order, and the others with the reason."""
    usable, set_aside = [], []
    for file in told(files, packing):
        try:
            inspect_picture(source / file, crop=packing.crop or "none", resolution=packing.resolution)
        except Unsuitable as error:
            set_aside.append(SetAside(file, str(error)))
        else:
            usable.append(file)
    return usable, set_aside


def told(files: list[str], packing: Packing) -> Iterator[str]:
    """The files, with word of how many are done now and then: a large folder takes minutes to look at."""
    for done, file in enumerate(files, 1):
        yield file
        if done % _FILES_AT_ONCE == 0:
            packing.progress(done, len(files))


def files_below(source: Path) -> list[str]:
    """Every file below `source` but hidden ones, as sorted relative paths with forward slashes. Links are followed."""
    found, visited = [], set()
    for folder, subfolders, files in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back up
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name).relative_to(source).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)
