"""Records: one number each, with everything needed to trust it; and the pictures and curves that stand beside them.

A run appends what it measures to its own `records.jsonl`. `collect` gathers the records of a table in
`results/<table>.jsonl`, which is committed, and `collect_pictures` its pictures and loss curves in `results/<table>/figures/`,
so that a report redraws from a clone that has no run directories. docs/results.md lists the fields of a record.
"""

import contextlib
import io
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genae.shared_files import locked, patiently

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
LABELS = ("table", "row", "data_name", "scale")  # what collect adds: where in which table the number stands
CURVE = "curve.jsonl"
LIMIT_BYTES = 200_000  # of one run's collected pictures, beside a table of numbers
ALONE_LIMIT_BYTES = 4_000_000  # where the table is of pictures alone


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record as one whole line, on disk when this returns. One process writes a file at a time.

    A torn last line, left by a crash in the middle of an earlier append, is cut off first. JSON has no NaN or infinity: a
    record with such a value is kept as failed, with the value in its status; among its details they become words.
    """
    line = _line(_finite(record))
    patiently(lambda: _append(path, line), path)


def read(path: Path) -> list[Record]:
    """Every whole record of a file, in its order; none where there is no file.

    A torn last line is left out, and left alone: its writer may be at work, and cuts it off at the next append if it was not.
    Raises ValueError on a line before the last that is no record.
    """
    try:
        contents = patiently(Path(path).read_bytes, path)
    except FileNotFoundError:
        return []
    return _whole_lines(path, contents)[0]


def key(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What was measured: (identity, checkpoint, metric, protocol). Of two records with one key, the later holds."""
    return record["identity"], record["checkpoint"], record["metric"], canonical(record["protocol"])


def place(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Where in its table a number stands: (row, data_name, column). One run may serve several rows and columns."""
    return record.get("row", ""), record.get("data_name", ""), record["column"]


def canonical(protocol: Any) -> str:
    """JSON that is equal where protocols are: keys sorted, tuples as lists."""
    return json.dumps(protocol, sort_keys=True, ensure_ascii=False)


def current(records: Iterable[Record]) -> list[Record]:
    """The records in force, in their order: of those with one place and key, the latest (but see `latest`)."""
    return _latest(records, lambda record: (place(record), key(record)))


def latest(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """(what a table shows, what gave way to it): of each place and run (identity, seed), the number measured last.

    More than one is left by `current` where a run was trained further, or measured again under another protocol.
    """
    records = current(records)
    shown = _latest(records, lambda record: (place(record), record["identity"], record["seed"]))
    kept = {id(record) for record in shown}
    return shown, [record for record in records if id(record) not in kept]


def collect(path: Path, new_records: Iterable[Mapping[str, Any]], labels: Mapping[str, str] | None = None) -> list[Record]:
    """Merge records into a table's file, and return all that it holds then.

    labels: {table, row, data_name, scale}, for records that do not carry them yet. A record replaces an earlier one with its
    place and key. The file is sorted, so that a diff shows what is new, and replaced whole under a lock: concurrent calls
    lose nothing.
    """
    path = Path(path)
    new = [dict(labels or {}) | _finite(record) for record in new_records]
    for record in new:
        missing = [label for label in LABELS if label not in record]
        if missing:
            raise ValueError(f"a record of {record['metric']!r} for {path.name} does not say its {', '.join(missing)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        records = sorted(current(read(path) + new), key=_order)
        contents = b"".join(map(_line, records))
        if not path.exists() or path.read_bytes() != contents:
            _replace(path, contents)
    return records


def table_path(results: Path, table: str) -> Path:
    """The file of a table's records: `results/automodulator-2020/table2a.jsonl`."""
    return Path(results) / f"{table}.jsonl"


def figures_path(results: Path, table: str, row: str, data_name: str, seed: int) -> Path:
    """The folder of one run's collected pictures."""
    return Path(results) / table / "figures" / f"{row}-{data_name}-s{seed}"


def export(records: Iterable[Record]) -> "pd.DataFrame":
    """One line per record, nested fields as `protocol.num_generated`; `.to_csv(path, index=False)` is for other tools."""
    import pandas as pd

    return pd.DataFrame([dict(flat(record)) for record in records])


def collect_pictures(
    figures: Path,
    destination: Path,
    limit_bytes: int = LIMIT_BYTES,
    progress: Sequence[Path] | None = None,
    only: Collection[str] | None = None,
) -> list[str]:
    """Copy one run's PNGs, and its loss curve thinned, into `destination`; what stood there before goes.

    only: names of the PNGs, where a run has drawn others for other tables.
    progress: the progress.jsonl of each of the run's stages, in order; by default the one beside `figures`. The curve counts
    images over all of them.
    Returns what had to be done to stay within `limit_bytes`, a sentence each: the largest picture is first reduced to 256
    colours, and dropped if that is not enough.
    """
    figures, destination = Path(figures), Path(destination)
    files: dict[str, bytes] = {}
    curve: list[Record] = []
    for path in [figures.parent / "progress.jsonl"] if progress is None else progress:
        before = curve[-1]["images_seen"] if curve else 0
        curve += [line | {"images_seen": before + line["images_seen"]} for line in _progress_lines(Path(path))]
    if curve:
        files[CURVE] = b"".join(map(_line, thin(curve)))
    pictures, notes = _within(
        {
            picture.name: picture.read_bytes()
            for picture in sorted(figures.glob("*.png"))
            if only is None or picture.name in only
        },
        limit_bytes - sum(map(len, files.values())),
    )
    files |= pictures

    # A whole new folder takes the place of the old one, so that pictures of two checkpoints never mix.
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _alone(destination):
        aside = destination.with_name(f".{destination.name}.new")
        shutil.rmtree(aside, ignore_errors=True)  # what a process left that was killed here
        aside.mkdir()
        for name, contents in files.items():
            (aside / name).write_bytes(contents)
        if destination.exists():
            shutil.rmtree(destination)
        aside.replace(destination)
    return notes


def texts_of(picture: Path) -> dict[str, str]:
    """What a PNG says of itself: `checkpoint`, `caption`, and in JSON its figure's `settings` and `made_by`, as in a record."""
    from PIL import Image

    with Image.open(picture) as image:
        return dict(image.text)


def thin(lines: Sequence[Mapping[str, Any]], limit: int = 200) -> list[Record]:
    """At most `limit` lines of a progress file: loss terms averaged over equal stretches of lines that never straddle a phase.

    All else is as on the last line of a stretch. Numbers keep four significant digits.
    """
    changes = sum(_phase(one) != _phase(two) for one, two in itertools.pairwise(lines))
    stretches = max(1, limit - changes)
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    phases = -1
    for index, line in enumerate(lines):
        phases += index == 0 or _phase(lines[index - 1]) != _phase(line)
        groups.setdefault((phases if changes < limit else 0, index * stretches // len(lines)), []).append(line)
    thinned = []
    for group in groups.values():
        terms: dict[str, list[float]] = {}
        for line in group:
            for name, value in line.get("terms", {}).items():
                terms.setdefault(name, [])
                if isinstance(value, int | float) and math.isfinite(value):
                    terms[name].append(value)
        means = {name: _four_digits(sum(values) / len(values)) if values else None for name, values in terms.items()}
        thinned.append({name: _four_digits(value) for name, value in group[-1].items() if name != "terms"} | {"terms": means})
    return thinned


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    """Add a line, once more if an earlier attempt got as far as the file: of two equal records the later holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _, torn = _whole_lines(path, _contents(file))
        if torn:
            file.truncate(file.seek(0, os.SEEK_END) - torn)
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # the line is whole, only its end was lost
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _contents(file: Any) -> bytes:
    file.seek(0)
    return file.read()


def _whole_lines(path: Path, contents: bytes) -> tuple[list[Record], int]:
    """The records in a file's bytes, and how many bytes at its end are the beginning of one."""
    records = []
    *lines, tail = contents.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = _parsed(line)
            if record is None:
                raise ValueError(f"{path}, line {number}: not a record: {line[:60]!r}")
            records.append(record)
    record = _parsed(tail)  # a JSON object is complete only at its closing brace, so a part of one never passes for a whole
    if record is not None:
        return [*records, record], 0
    return records, len(tail)


def _parsed(line: bytes) -> Record | None:
    try:
        value = json.loads(line)
    except ValueError:  # also UnicodeDecodeError
        return None
    return value if isinstance(value, dict) else None


def _finite(record: Mapping[str, Any]) -> Record:
    """The record in values that JSON has."""
    record = dict(record)
    value = record.get("value")
    if value is not None and not math.isfinite(value):
        record |= {"value": None, "status": f"failed: the value is {value}"}
    for field in ("details", "protocol"):
        if field in record:
            record[field] = _worded(record[field])
    return record


def _worded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _worded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_worded(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _latest(records: Iterable[Record], group: Callable[[Record], Any]) -> list[Record]:
    """Of each group the record measured last; in the records' order.

    What could not be measured (no weights here) does not hide what was measured of the same checkpoint elsewhere.
    """
    groups: dict[Any, list[tuple[float, int, Record]]] = {}
    for index, record in enumerate(records):
        groups.setdefault(group(record), []).append((seconds_of(record), index, record))
    chosen = []
    for members in groups.values():
        members.sort(key=lambda member: member[:2])
        checkpoint = members[-1][2]["checkpoint"]
        measured = [member for member in members if member[2]["value"] is not None and member[2]["checkpoint"] == checkpoint]
        chosen.append(members[-1] if members[-1][2]["value"] is not None or not measured else measured[-1])
    return [record for _, _, record in sorted(chosen, key=lambda member: member[1])]


def seconds_of(record: Mapping[str, Any]) -> float:
    """Seconds since 1970, of a time written as that or in ISO 8601."""
    time = record.get("time", 0.0)
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else float(time or 0.0)


def _order(record: Mapping[str, Any]) -> tuple:
    """The order of a table's file: by place first, so that a new number lands beside its neighbours."""
    row, data_name, column = place(record)
    return record["scale"], row, data_name, record["seed"], column, seconds_of(record), key(record)


def _phase(line: Mapping[str, Any]) -> tuple:
    return line.get("stage"), line.get("phase")


def _four_digits(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def _progress_lines(path: Path) -> list[Record]:
    """The lines of a progress file; one that a live trainer is writing is left out."""
    if not path.exists():
        return []
    return [line for line in map(_parsed, path.read_bytes().split(b"\n")) if line is not None]


def flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of all that is nested in a mapping, a name such as `protocol.num_generated`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _within(pictures: dict[str, bytes], limit_bytes: int) -> tuple[dict[str, bytes], list[str]]:
    """The pictures that fit, the largest reduced to 256 colours and then dropped until all do; and what was done."""
    notes: list[str] = []
    reduced: set[str] = set()
    pictures = dict(pictures)
    while sum(map(len, pictures.values())) > limit_bytes:
        name = max(pictures, key=lambda name: (name not in reduced, len(pictures[name])))
        if name in reduced:  # all are, by now
            size, limit = len(pictures[name]) // 1000, limit_bytes // 1000
            notes.append(f"{name} ({size} kB) is left out: the pictures of a run may take {limit} kB")
            del pictures[name]
            continue
        reduced.add(name)
        smaller = _in_256_colours(pictures[name])
        if len(smaller) < len(pictures[name]):
            notes.append(f"{name} is reduced to 256 colours: {len(pictures[name]) // 1000} kB became {len(smaller) // 1000} kB")
            pictures[name] = smaller
    return pictures, notes


def _in_256_colours(png: bytes) -> bytes:
    from PIL import Image, PngImagePlugin

    picture = Image.open(io.BytesIO(png))
    text = PngImagePlugin.PngInfo()  # its checkpoint and caption, which a report reads
    for name, value in getattr(picture, "text", {}).items():
        text.add_itxt(name, value)
    out = io.BytesIO()
    picture.convert("RGB").quantize(256).save(out, "PNG", optimize=True, pnginfo=text)
    return out.getvalue()


def _alone(path: Path) -> contextlib.AbstractContextManager[None]:
    """One process at a time changes `path`. The lock is a file beside it, gone afterwards."""
    return locked(path.with_name(f".{path.name}.lock"))


def _replace(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all. The caller holds its lock, so what is aside is its own, or a killed process's."""
    aside = path.with_name(f".{path.name}.new")
    with aside.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
