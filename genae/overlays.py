"""How the parts of an experiment file are laid on one another to make a row.

Later wins: `shared`, the row, `scales.<scale>.shared`, `scales.<scale>.rows.<row>`, the command line. What stands under
`on: {data set: ...}` is laid right after the part that it stands in; the row of another file that `use: paper/table/row` names
lies under this one.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from genae.registry import suggestion
from genae.settings import shown
from genae.yaml_source import Block, Mark, MissingKeyError, merged, read_value, with_value

TABLE_KEYS = ("table", "title", "source", "caption", "imports", "shared", "rows", "scales", "seeds", "claims")
SCALE_KEYS = ("shared", "rows", "seeds")
ON_KEYS = ("flip", "model", "stages", "figures", "compute")
SHARED_KEYS = ("data", "on", "flip", "model", "stages", "metrics", "columns", "figures", "compute")
ROW_KEYS = (*SHARED_KEYS, "label", "note", "published", "plus_minus", "use")
USED_KEYS = ("data", "on", "flip", "model", "stages", "compute")
OVERRIDE_KEYS = tuple(key for key in SHARED_KEYS if key != "on")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
COLUMN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(/[A-Za-z0-9][A-Za-z0-9-]*)?")
TABLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def mapping(block: Block, key: str) -> Block:
    """The mapping under a key; an empty one where the key is absent or null."""
    value = block.get(key)
    if value is None:
        return Block(block.marks.get(key, block.mark))
    if not isinstance(value, Block):
        raise block.marks[key].error(f"must be a mapping, not {shown(value)}")
    return value


def check_keys(block: Block, known: Sequence[str], what: str) -> None:
    """Refuses keys that mean nothing here."""
    for key in block:
        if key in known:
            continue
        if key in ROW_KEYS and what == "an experiment file":
            belongs = "`rows: <row>:`" if key not in SHARED_KEYS else "`shared:` or in a row"
            raise block.marks[key].error(f"belongs under {belongs}, not at the top of the file")
        if key == "precision":
            raise block.marks[key].error("precision belongs under `compute:`")
        raise block.marks[key].error(f"{what} has no key {key!r}; {suggestion(key, known)}")


def check_ids(block: Block, what: str, pattern: re.Pattern = ID) -> None:
    """Refuses ids that paths and tables cannot carry."""
    for key in block:
        if key == "name":
            raise block.marks[key].error(f"{what} cannot be called 'name': that word marks a component")
        if not pattern.fullmatch(key):
            raise block.marks[key].error(f"{key!r} cannot be the id of {what}: letters, digits and hyphens only")


def check_file(file: Block) -> None:
    """Refuses keys out of place anywhere in a file, at whatever scale, and the removal of columns that are not there."""
    check_keys(file, TABLE_KEYS, "an experiment file")
    rows, scales = mapping(file, "rows"), mapping(file, "scales")
    if not rows:
        raise file.mark.error("missing: a table has at least one row", key="rows")
    check_ids(rows, "a row")
    check_ids(scales, "a scale")
    parts = [(mapping(file, "shared"), SHARED_KEYS, "`shared`"), *((mapping(rows, row), ROW_KEYS, "a row") for row in rows)]
    for scale in scales:
        overlay = mapping(scales, scale)
        check_keys(overlay, SCALE_KEYS, "a scale")
        parts.append((mapping(overlay, "shared"), SHARED_KEYS, "`shared` of a scale"))
        for row in mapping(overlay, "rows"):
            if row not in rows:
                raise overlay["rows"].marks[row].error(f"there is no row {row!r} in this table; {suggestion(row, rows)}")
            parts.append((mapping(overlay["rows"], row), SHARED_KEYS, "a row of a scale"))
    for part, known, what in parts:
        check_keys(part, known, what)
        for name in mapping(part, "on"):
            check_keys(mapping(part["on"], name), ON_KEYS, "what a row sets `on` one data set")
        check_ids(mapping(part, "stages"), "a stage")
        check_ids(mapping(part, "columns"), "a column", COLUMN_ID)
    _check_removed_columns([part for part, _, _ in parts])


def _check_removed_columns(parts: Sequence[Block]) -> None:
    listed = [metric for part in parts if isinstance(part.get("metrics"), list) for metric in part["metrics"]]
    metrics = {metric["name"] for metric in listed if isinstance(metric, Block) and isinstance(metric.get("name"), str)}
    given = {key for part in parts for key, value in mapping(part, "columns").items() if value is not None} | metrics
    for part in parts:
        for key, value in mapping(part, "columns").items():
            if value is None and key not in given and key.partition("/")[0] not in metrics:
                raise part["columns"].marks[key].error(f"there is no column {key!r} to remove; {suggestion(key, given)}")


# The command line.


@dataclass(frozen=True)
class Override:
    """One `key.path=value`. row: the only row that it is for, or None for every row that is run."""

    row: str | None
    path: tuple[str, ...]
    value: Any
    mark: Mark


def override(text: str, rows: Iterable[str]) -> Override:
    """What an argument such as `model.dim=8`, `shared.model.dim=8` or `rows.vae.model.dim=8` says; `seeds=[0, 1]` too."""
    key, equals, value = text.partition("=")
    mark = Mark("command line", 0, key.strip() if equals else "", text)
    path = tuple(part for part in re.split(r"[.\[\]]+", key.strip()) if part)
    if not equals or not path:
        raise mark.error("an override is key.path=value, such as model.dim=8")
    row, known = None, [*OVERRIDE_KEYS, "rows", "shared"]
    if path[0] == "rows":
        rows = list(rows)
        if len(path) < 3:
            raise mark.error("write rows.<row>.key.path=value")
        if path[1] not in rows:
            raise mark.error(f"there is no row {path[1]!r} in this table; {suggestion(path[1], rows)}")
        row, path, known = path[1], path[2:], list(OVERRIDE_KEYS)
    elif path[0] == "shared" and len(path) > 1:
        path, known = path[1:], list(OVERRIDE_KEYS)
    elif path == ("seeds",):
        known.append("seeds")
    if path[0] not in known or path[0] in ("rows", "shared"):
        raise mark.error(f"{path[0]!r} cannot be overridden; {suggestion(path[0], {*known, 'seeds'})}")
    return Override(row, path, read_value(value, mark), mark)


# One row.


@dataclass(frozen=True)
class Row:
    """The parts that make one row at one scale, in the order in which they are laid.

    mark: of the row.  overrides: those for this row, `seeds` left out.
    """

    id: str
    mark: Mark
    parts: tuple[Block, ...]
    overrides: tuple[Override, ...] = ()

    def data(self) -> Block:
        """The data spec, or the mapping from short names to specs."""
        holder = Block(self.mark)
        for part in self.parts:
            if "data" in part:
                _lay_data(holder, part["data"], part.marks["data"])
        holder = self._overridden(holder, ("data",))
        data = holder.get("data")
        if not data:
            raise self.mark.error("missing: what is it trained on? write data: {name: ...}", key="data", kind=MissingKeyError)
        if not isinstance(data, Block):
            raise holder.marks["data"].error(f"must be a mapping with a name, not {shown(data)}")
        if "name" not in data:
            specs = [name for name, spec in data.items() if isinstance(spec, Block)]
            for name, spec in data.items():
                if isinstance(spec, Block):
                    continue
                if not specs:
                    raise data.marks[name].error("the data set has no name; write data: {name: ...}")
                several = f"this row has several ({', '.join(specs)})"
                raise data.marks[name].error(f"{name!r} is no data set; {several}: write data.{specs[0]}.{name}")
            check_ids(data, "a data set")
        return data

    def short_names(self) -> list[str]:
        """Every short name that any of the parts gives a data set, removed or not."""
        found = [part["data"] for part in self.parts if isinstance(part.get("data"), Block) and "name" not in part["data"]]
        return list(dict.fromkeys(name for data in found for name in data))

    def names_given(self) -> list[str]:
        """The names of the single data sets that any of the parts gives, exchanged or not."""
        found = [part["data"].get("name") for part in self.parts if isinstance(part.get("data"), Block)]
        return list(dict.fromkeys(name for name in found if isinstance(name, str)))

    def body(self, short_name: str | None) -> Block:
        """Everything else of the row, on one of its data sets."""
        known = self.short_names()
        result = Block(self.mark)
        for part in self.parts:
            result = merged(result, part.only(ON_KEYS))
            for name in mapping(part, "on"):
                if name not in known:
                    hint = suggestion(name, known) if known else "`on` needs `data:` by short names"
                    raise part["on"].marks[name].error(f"there is no data set {name!r} in this row; {hint}")
                if name == short_name:
                    result = merged(result, mapping(part["on"], name))
        result = self._overridden(result, ON_KEYS)
        return Block(self.mark, result.items(), result.marks)

    def columns(self, short_names: Sequence[str] | None) -> Block:
        """Column id -> {metric, data, measure_on}, with `metrics` spelt out: one column per metric and short name."""
        result, from_metrics = Block(self.mark), set()
        for part in self.parts:
            if "metrics" in part:
                result = result.without(from_metrics)
                listed = _columns_of(part["metrics"], part.marks["metrics"], short_names)
                result, from_metrics = merged(result, listed), set(listed)
            result = merged(result, mapping(part, "columns"))
        for change in self.overrides:
            if change.path == ("metrics",):
                result = merged(result.without(from_metrics), _columns_of(change.value, change.mark, short_names))
            elif change.path[0] == "metrics":
                raise change.mark.error("give the whole list, or override a column: columns.<id>.metric.<setting>=value")
        holder = Block(self.mark, [("columns", result)], {"columns": result.mark})
        return mapping(self._overridden(holder, ("columns",)), "columns")

    def _overridden(self, block: Block, keys: Sequence[str]) -> Block:
        for change in self.overrides:
            if change.path[0] in keys:
                block = with_value(block, change.path, change.value, change.mark)
        return block


def _lay_data(holder: Block, over: Any, mark: Mark) -> None:
    base = holder.get("data")
    several = isinstance(over, Block) and over and "name" not in over and all(isinstance(v, Block) for v in over.values())
    if several and isinstance(base, Block) and "name" in base:
        base = None  # data sets by short name take the place of the one that stood here
    holder["data"], holder.marks["data"] = merged(base, over), mark


def _columns_of(metrics: Any, mark: Mark, short_names: Sequence[str] | None) -> Block:
    if not isinstance(metrics, list):
        raise mark.error(f"must be a list of metrics, [{{name: ...}}, ...], not {shown(metrics)}")
    result = Block(mark)
    for metric, place in zip(metrics, metrics.marks, strict=True):
        if not isinstance(metric, Block) or not isinstance(metric.get("name"), str):
            what = f"write {{name: {metric}}}" if isinstance(metric, str) else "write {name: ...}"
            raise place.error(f"a metric is a mapping with a name, not {shown(metric)}; {what}")
        for short_name in [None] if short_names is None else short_names:
            key = metric["name"] if short_name is None else f"{metric['name']}/{short_name}"
            if key in result:
                raise place.error(
                    f"a second column {key!r}; give each an id: columns: {{<id>: {{metric: {{name: {metric['name']}, ...}}}}}}"
                )
            result[key] = Block(place, [("metric", metric), ("data", short_name)], {"metric": place, "data": place})
            result.marks[key] = place
    return result


def row_of(
    file: Block,
    row: str,
    scale: str,
    overrides: Iterable[Override] = (),
    used: Callable[[Any, Mark], list[Block]] | None = None,
) -> Row:
    """The parts of a row at a scale. used: the parts that `use:` stands for."""
    own, overlay = mapping(file["rows"], row), mapping(mapping(file, "scales"), scale)
    under = used(own["use"], own.marks["use"]) if used and own.get("use") is not None else []
    parts = [mapping(file, "shared"), *under, own, mapping(overlay, "shared"), mapping(mapping(overlay, "rows"), row)]
    wanted = [change for change in overrides if change.row in (None, row)]
    wanted.sort(key=lambda change: change.row is not None)  # stable: what is meant for this row comes last
    return Row(row, file["rows"].marks[row], tuple(parts), tuple(wanted))
