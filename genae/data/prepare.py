"""`genae data prepare | list | verify`: a user's own copy -> a pack, once. Plain values in, plain values out."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genae.cache import make_whole
from genae.data.packs import DESCRIPTION_FILE, Chunk, packs_dir, read_description, verify_pack, write_pack
from genae.data.pictures import check_crop
from genae.data.reading import Packing, Reading, SetAside
from genae.data.sources import SOURCES
from genae.data.vectors import VECTORS, write_vectors
from genae.registry import suggestion

ENCODINGS = ("auto", "array", "bytes")
ARRAY_LIMIT = 200 * 10**9  # bytes: larger than this as an array, a pack keeps the encoded bytes

_NAMED = 40  # files set aside that a printed summary names; dataset.json names all

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What a pack holds, as dataset.json says.

    digests: split -> sha256.  set_aside: files left out, with the reason.  dim: of a pack of vectors, which num_images counts.
    """

    name: str
    path: Path
    source: str
    licence: str
    resolution: int
    channels: int
    crop: str | None
    encoding: str
    split_rule: str
    num_images: dict[str, int]
    digests: dict[str, str]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...]
    dim: int | None = None

    @property
    def headline(self) -> str:
        """One line: what and how much."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.num_images.items())
        kind = {1: "grey", 3: "colour"}[self.channels] + f" {self.resolution}x{self.resolution}"
        if self.dim is not None:
            kind = f"vectors of {self.dim}"
        left_out = f", {len(self.set_aside):,} files set aside" if self.set_aside else ""
        return f"{self.name}: {counts}; {kind}, from {self.source}{left_out}"

    def __str__(self) -> str:
        """The headline, where it lies and how it was made; then the files that were set aside, and why."""
        crop = f"; crop {self.crop}" if self.crop else ""
        kept = {"array": "", "bytes": "; the files' own bytes, decoded when they are read"}[self.encoding]
        notes = [f"  note: {note}" for note in self.notes]
        aside = [f"  set aside: {entry.file} {entry.reason}" for entry in self.set_aside[:_NAMED]]
        if len(self.set_aside) > _NAMED:
            aside.append(f"  and {len(self.set_aside) - _NAMED:,} more, which {DESCRIPTION_FILE} names")
        return "\n".join([self.headline, f"  in {self.path}", f"  split: {self.split_rule}{crop}{kept}", *notes, *aside])


def prepare(
    name: str,
    source: str | Path,
    *,
    pack: str | None = None,
    resolution: int | None = None,
    crop: str | None = None,
    channels: int | None = None,
    test_share: float = 0.1,
    encoding: str = "auto",
    array_limit: int = ARRAY_LIMIT,
    replace: bool = False,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Pack the copy of data set `name` that lies in the folder `source`. The pack is whole or not there at all.

    pack: the pack's name; needed for "folder", else the data set's own.  resolution, crop, channels: the source's defaults.
    crop: "center", "none", "pad" or a number of pixels (see pictures.py).  test_share: of "folder" without train/ and test/.
    encoding: "array" decodes once, "bytes" keeps the encoded files and decodes when they are read (encoded.py); "auto" keeps
    bytes where the array would take more than `array_limit` bytes and more than they do.
    replace: put the new pack in the place of one of that name.
    progress(done, total): called as files are looked at, and then again from the start as images are packed.
    Raises ValueError for what cannot be prepared; single files that are damaged or odd are set aside, in the summary.
    """
    if name not in SOURCES:
        raise ValueError(f"no way to prepare {name!r}; {suggestion(name, SOURCES)}")
    if encoding not in ENCODINGS:
        raise ValueError(f"unknown --encoding {encoding!r}; {suggestion(encoding, ENCODINGS)}")
    kind = SOURCES[name]
    target = packs_dir() / _checked_name(pack or kind.pack)
    if target.exists() and not replace:
        raise ValueError(f"there is a pack {target.name!r} already, in {target}; choose another --name, or pass --replace")
    source = Path(source).expanduser()
    if not source.is_dir():
        raise ValueError(f"--source {source} is not a folder")
    packing = Packing(
        resolution=_checked_resolution(resolution, kind.resolution),
        channels=_checked_channels(name, channels),
        crop=_checked_crop(name, crop),
        test_share=_checked_share(test_share),
        progress=progress,
    )

    reading = kind.read(source, packing)
    if not reading.num_files:
        raise ValueError(f"{source} has no usable {'image' if kind.dim is None else 'vector'}{_reasons(reading.set_aside)}")
    done = _Counter(reading.num_files, progress)
    if encoding == "bytes" and reading.encoded_bytes is None:
        raise ValueError(f"--encoding bytes: {name} holds arrays, not encoded images")
    keep_bytes = encoding == "bytes" or (encoding == "auto" and _too_large(reading, packing, array_limit))

    def describe() -> dict[str, Any]:
        return {
            "name": target.name,
            "source": name,
            "licence": kind.licence,
            "homepage": kind.homepage,
            "resolution": packing.resolution,
            "channels": packing.channels,
            "crop": packing.crop,
            "encoding": "bytes" if keep_bytes else "array",
            **({} if kind.dim is None else {"dim": kind.dim}),
            "resize": reading.resize,
            "split_rule": reading.split_rule,
            "set_aside": [entry._asdict() for entry in reading.set_aside],
            "notes": reading.notes,
        }

    def build(folder: Path) -> None:
        splits = {split: done.counting(chunks) for split, chunks in reading.splits.items()}
        try:
            if kind.dim is None:
                write_pack(folder, splits, describe, decoding=packing.decoding if keep_bytes else None)
            else:
                write_vectors(folder, splits, describe)
        except ValueError as error:
            raise ValueError(f"{source}: {error}{_reasons(reading.set_aside)}") from None

    make_whole(target, build, folder=True, replace=replace)
    return summary_of(target)


def list_packs() -> list[Summary]:
    """Every prepared pack, by name."""
    if not packs_dir().is_dir():
        return []
    folders = sorted(path.parent for path in packs_dir().glob(f"*/{DESCRIPTION_FILE}"))
    return [summary_of(folder) for folder in folders if not folder.name.startswith(".")]


def verify(pack: str) -> list[str]:
    """What is wrong with a prepared pack, one line each; empty when it is as written. Raises ValueError for no such pack."""
    folder = packs_dir() / pack
    if not folder.is_dir():
        raise ValueError(f"no pack {pack!r} in {packs_dir()}; {suggestion(pack, (summary.name for summary in list_packs()))}")
    return verify_pack(folder)


def summary_of(folder: Path) -> Summary:
    """The summary of the pack in a folder."""
    description = read_description(folder)
    splits = description["splits"]
    return Summary(
        name=description["name"],
        path=folder,
        source=description["source"],
        licence=description["licence"],
        resolution=description["resolution"],
        channels=description["channels"],
        crop=description["crop"],
        encoding=description.get("encoding", "array"),
        split_rule=description["split_rule"],
        num_images={split: found.get("num_images", found.get(VECTORS.counted)) for split, found in splits.items()},
        digests={split: found["digest"] for split, found in splits.items()},
        set_aside=tuple(SetAside(**entry) for entry in description["set_aside"]),
        notes=tuple(description["notes"]),
        dim=description.get("dim"),
    )


class _Counter:
    """Counts images over all splits, for a progress bar."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done = 0
        self.total = total
        self.progress = progress

    def counting(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.done += len(chunk[0])
            self.progress(self.done, self.total)
            yield chunk


def _too_large(reading: Reading, packing: Packing, array_limit: int) -> bool:
    """Whether arrays would take more than `array_limit` bytes, and encoded files less than arrays."""
    as_array = reading.num_files * packing.channels * packing.resolution**2
    return reading.encoded_bytes is not None and as_array > max(array_limit, reading.encoded_bytes)


def _reasons(set_aside: list[SetAside]) -> str:
    """The end of an error message: the first few files that were set aside."""
    if not set_aside:
        return ""
    few = "; ".join(f"{file} {reason}" for file, reason in set_aside[:5])
    return f" ({len(set_aside)} set aside: {few}{'; ...' if len(set_aside) > 5 else ''})"


def _checked_name(pack: str | None) -> str:
    if pack is None:
        raise ValueError("a folder's pack needs a name: --name my-images")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", pack):
        raise ValueError(f"--name {pack!r}: use letters, digits and hyphens, at most 64")
    return pack


def _checked_resolution(resolution: int | None, own: int) -> int:
    if resolution in (None, own):
        return own
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"--resolution {resolution}: use a power of two, from 4")
    return resolution


def _checked_crop(name: str, crop: str | None) -> str | None:
    default = SOURCES[name].crop
    if crop is None:
        return default
    if default is None:
        raise ValueError(f"{name} is not cropped; leave --crop out")
    return check_crop(crop)


def _checked_channels(name: str, channels: int | None) -> int:
    own = SOURCES[name].channels
    if channels is None or channels == own:
        return own
    if SOURCES[name].crop is None or channels not in (1, 3):
        raise ValueError(f"--channels {channels}: {name} has {own}" if SOURCES[name].crop is None else "--channels is 1 or 3")
    return channels


def _checked_share(test_share: float) -> float:
    if not 0 < test_share < 1:
        raise ValueError(f"--test-share {test_share}: use a number between 0 and 1, as 0.1")
    return test_share
