"""The YAML as validated values: a table's rows, scales, seeds, columns, and the identity of every run.

One YAML is one table; docs/experiments.md explains its keys. `load` reads a file, lays its parts on one another (overlays.py),
checks every setting against the constructor that it is for (settings.py) and gives the values of spec.py, or raises
ExperimentError, whose text is all that a user needs to see.
"""

import importlib
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genae import provenance
from genae.expression import check as check_expression
from genae.expression import parse
from genae.overlays import TABLE_ID, USED_KEYS, Override, Row, check_file, check_keys, mapping, override, row_of
from genae.registry import suggestion
from genae.resolve import RowColumn, columns_of, runs_of
from genae.schema import json_schema
from genae.settings import shown, text_hint
from genae.spec import Adam, Average, Claim, Column, Compute, Experiment, RowSpec, RunSpec, StageSpec
from genae.yaml_source import Block, ExperimentError, Mark, MissingKeyError, read, shown_path

__all__ = [
    "Adam",
    "Asked",
    "Average",
    "Claim",
    "Column",
    "Compute",
    "Experiment",
    "ExperimentError",
    "RowSpec",
    "RunSpec",
    "StageSpec",
    "find",
    "import_modules",
    "json_schema",
    "list_experiments",
    "load",
    "project_root",
]

CLAIM_KEYS = ("id", "text", "where", "expression")
ROOT_SIGNS = ("setup.cfg", "pyproject.toml", ".git", provenance.SNAPSHOT)


# Files.


def project_root(path: Path) -> Path:
    """The nearest folder around a file (or folder) that looks like a project's, else the one that it is in (or is)."""
    path = path.resolve()
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    return next((folder for folder in folders if any((folder / sign).exists() for sign in ROOT_SIGNS)), folders[0])


def list_experiments(root: Path) -> dict[str, Path]:
    """The files of a project's `experiments/`, by the name that `find` takes ("automodulator-2020/table2a")."""
    folder = Path(root) / "experiments"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find(name_or_path: str | Path, root: Path | None = None) -> Path:
    """The file of an experiment, by path or by name in `experiments/` of the project that the working directory is in."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = list_experiments(root or project_root(Path.cwd()))
    name = path.as_posix().removesuffix(".yaml").removeprefix("experiments/")
    if name not in known:
        raise ExperimentError(f"there is no experiment {str(name_or_path)!r}; {suggestion(name, known)}")
    return known[name]


def import_modules(names: Iterable[str], root: Path) -> None:
    """Imports third-party modules, which register their components: from a project's root, then as installed."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not error.name or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there; something that it imports is not
            folder, parents = root.joinpath(*name.split(".")[:-1]), name.split(".")[:-1]
            beside = [".".join([*parents, path.stem]) for path in folder.glob("*.py") if path.stem != "__init__"]
            nearest = f"; {suggestion(name, beside)}" if beside else ""
            raise ExperimentError(f"there is no module {name!r}, neither in {root} nor installed{nearest}") from None


def _imported(file: Block, root: Path) -> tuple[str, ...]:
    """The modules that a file names, once they are imported."""
    names = file.get("imports") or []
    if not isinstance(names, list):
        raise file.marks["imports"].error(f"must be a list of modules, not {shown(names)}")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise names.marks[index].error(f"must be the name of a module, not {shown(name)}")
        try:
            import_modules([name], root)
        except ExperimentError as error:
            raise names.marks[index].error(str(error)) from None
        except ValueError as error:  # a name registered twice
            raise names.marks[index].error(f"importing {name!r}: {error}") from None
    return tuple(names)


# The whole file.


def load(
    path: str | Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Experiment:
    """The experiment of a file (or of a name that `find` knows) at one scale.

    scale: desk where the file has it, else paper, which is the file itself.  overrides: `key.path=value`; one that names no row
    is for every row that is run.  rows: those to run; all stay in the table.  seeds: in place of the file's.
    """
    path = find(path).resolve()
    root, file = project_root(path), read(path)
    check_file(file)
    table = _text(file, "table", required="which table is this? write table: paper/table")
    if not TABLE_ID.fullmatch(table):
        raise file.marks["table"].error(f"{table!r} cannot name a table: write paper/table, without spaces")
    contents = _Table(root, table, file, [*_imported(file, root)])

    scales = ["paper", *(name for name in mapping(file, "scales") if name != "paper")]
    scale = scale or ("desk" if "desk" in scales else "paper")
    if scale not in scales:
        raise ExperimentError(f"{shown_path(path)}: it has no scale {scale!r}; {suggestion(scale, scales)}")
    for row in rows or ():
        if row not in file["rows"]:
            raise ExperimentError(f"{shown_path(path)}: it has no row {row!r}; {suggestion(row, file['rows'])}")
    changes = [override(text, file["rows"]) for text in overrides]
    chosen = [row for row in file["rows"] if rows is None or row in rows]
    if seeds is not None and (not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        raise ExperimentError(f"seeds are different whole numbers from 0, not {list(seeds)}")
    seeds = _seeds(file, scale, changes) if seeds is None else tuple(seeds)

    elsewhere: set[str] = set()  # the columns of its other scales
    incomplete = False
    for other in scales:  # a file is right at every scale or not at all; only what is missing may be missing elsewhere
        if other != scale:
            try:
                found, _ = contents.resolved(other, (0,), (), file["rows"])
            except MissingKeyError:
                incomplete = True
                continue
            elsewhere |= found.keys()
    columns, runs = contents.resolved(scale, seeds, [change for change in changes if change.path != ("seeds",)], chosen)
    return Experiment(
        path=path,
        root=root,
        table=table,
        title=_text(file, "title"),
        source=_text(file, "source"),
        caption=_text(file, "caption"),
        scale=scale,
        imports=tuple(contents.imports),
        rows={row: _row_spec(file["rows"], row, columns, _selected_on_test(row, runs)) for row in file["rows"]},
        columns=columns,
        seeds=seeds,
        claims=_claims(file, None if incomplete else {*columns, *elsewhere}),
        runs=runs,
        overrides=tuple(overrides),
    )


@dataclass(frozen=True)
class Asked:
    """What a command was asked to work on: an experiment, and what of it, as `load` takes them."""

    experiment: str
    scale: str | None = None
    rows: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = ()

    def chosen(self) -> Experiment:
        """The experiment with the runs that were asked for."""
        return load(self.experiment, scale=self.scale, overrides=self.overrides, rows=self.rows, seeds=self.seeds)

    def shown(self) -> Experiment:
        """The same with the runs of every row, those not asked for as the file has them: what a report is drawn of."""
        chosen = self.chosen()
        if self.rows is None:
            return chosen
        others = load(self.experiment, scale=self.scale, seeds=self.seeds)
        return replace(chosen, runs=(*chosen.runs, *(run for run in others.runs if run.row not in self.rows)))


def _text(block: Block, key: str, required: str = "") -> str | None:
    """The text under a key. required: what to say where it is missing."""
    value = block.get(key)
    if value is None and required:
        raise block.mark.error(f"missing: {required}", key=key, kind=MissingKeyError)
    if value is not None and not isinstance(value, str):
        raise block.marks[key].error(f"must be text, not {shown(value)}; put it in quotes")
    return value


def _seeds(file: Block, scale: str, changes: Iterable[Override]) -> tuple[int, ...]:
    """From the command line, else the scale, else the file, else [0]."""
    holder = mapping(mapping(file, "scales"), scale)
    holder = holder if holder.get("seeds") is not None else file
    seeds, mark = holder.get("seeds"), holder.marks.get("seeds", holder.mark)
    for change in changes:
        if change.path == ("seeds",):
            seeds, mark = change.value, change.mark
    if seeds is None:
        return (0,)
    if not isinstance(seeds, list) or not seeds:
        raise mark.error(f"must be a list of whole numbers such as [0, 1, 2], not {shown(seeds)}")
    for index, seed in enumerate(seeds):
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise seeds.marks[index].error(f"a seed is a whole number from 0, not {shown(seed)}{text_hint(seed)}")
        if seed in seeds[:index]:
            raise seeds.marks[index].error(f"the seed {seed} is given twice")
    return tuple(seeds)


def _claims(file: Block, columns: Collection[str] | None) -> tuple[Claim, ...]:
    """columns: those of all scales; None where one is incomplete, so that not all are known."""
    claims = file.get("claims") or []
    if not isinstance(claims, list):
        raise file.marks["claims"].error(f"must be a list of claims, not {shown(claims)}")
    found: dict[str, Claim] = {}
    for claim, mark in zip(claims, claims.marks if claims else [], strict=True):
        if not isinstance(claim, Block):
            raise mark.error(f"a claim is a mapping of {', '.join(CLAIM_KEYS)}, not {shown(claim)}")
        check_keys(claim, CLAIM_KEYS, "a claim")
        values = {key: _text(claim, key, required=f"a claim gives {', '.join(CLAIM_KEYS)}") for key in CLAIM_KEYS}
        if values["id"] in found:
            raise claim.marks["id"].error(f"a second claim {values['id']!r}")
        try:
            check_expression(parse(values["expression"]), file["rows"], columns)
        except ValueError as error:
            raise claim.marks["expression"].error(str(error)) from None
        found[values["id"]] = Claim(**values)
    return tuple(found.values())


def _selected_on_test(row: str, runs: Iterable[RunSpec]) -> bool:
    """Whether a row's weights are chosen by the split that it is measured on."""
    kept = [stage.keep_best for run in runs if run.row == row for stage in run.stages if stage.keep_best]
    return any(settings["split"] == "test" for settings in kept)


def _row_spec(rows: Block, row: str, columns: Iterable[str], selected_on_test: bool) -> RowSpec:
    own = mapping(rows, row)
    numbers: dict[str, dict[str, float]] = {}
    for key in ("published", "plus_minus"):
        given = mapping(own, key)
        for column, value in given.items():
            if column not in columns:
                raise given.marks[column].error(f"there is no column {column!r}; {suggestion(column, columns)}")
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise given.marks[column].error(f"must be a number, not {shown(value)}{text_hint(value)}")
        numbers[key] = {column: float(value) for column, value in given.items() if value is not None}
    notes = [_text(own, "note"), "its weights were chosen on the test split" if selected_on_test else None]
    note = "; ".join(filter(None, notes)) or None
    return RowSpec(id=row, label=_text(own, "label") or row, note=note, **numbers)


# Rows to runs.


@dataclass(frozen=True)
class _Table:
    """An experiment file that has been read. imports: grows by those of the files that its rows use."""

    root: Path
    table: str
    file: Block
    imports: list[str]

    def resolved(
        self, scale: str, seeds: Sequence[int], changes: Sequence[Override], chosen: Collection[str]
    ) -> tuple[dict[str, Column], tuple[RunSpec, ...]]:
        """The table's columns, and the runs of the chosen rows."""
        columns: dict[str, RowColumn] = {}
        runs: list[RunSpec] = []
        of_the_table = [change for change in changes if change.path[0] in ("columns", "metrics")]  # whichever rows are run
        for row_id in self.file["rows"]:
            row = self.row(row_id, scale, changes if row_id in chosen else of_the_table)
            is_run = self.is_run(row, scale)
            own = columns_of(row if is_run else None, self.row(row_id, "paper"))
            for found in own:
                known = columns.setdefault(found.column.id, found)
                if _unlike(known.column, found.column):
                    raise found.mark.error(
                        f"another row measures column {found.column.id!r} otherwise ({known.mark.file}:{known.mark.line}); "
                        "give one of them an id of its own under `columns:`"
                    )
                if known.column.removed and not found.column.removed:
                    columns[found.column.id] = found
            if is_run and row_id in chosen:
                where = {"table": self.table, "scale": scale, "imports": self.imports, "root": self.root}
                runs += runs_of(row, [found.column for found in own], seeds, **where)
        return {key: found.column for key, found in columns.items()}, tuple(runs)

    def row(self, row_id: str, scale: str, changes: Iterable[Override] = ()) -> Row:
        """The parts of a row at a scale."""
        return row_of(self.file, row_id, scale, changes, lambda use, mark: self.used(use, mark, scale, ()))

    def is_run(self, row: Row, scale: str) -> bool:
        """Whether a row is more than published numbers, and not removed at this scale."""
        overlay = mapping(mapping(mapping(self.file, "scales"), scale), "rows")
        own = mapping(self.file["rows"], row.id)
        only_numbers = (
            "published" in own and not {"data", "stages"} & own.keys() and not any("model" in part for part in row.parts)
        )
        return not only_numbers and not (row.id in overlay and overlay[row.id] is None)

    def used(self, use: Any, mark: Mark, scale: str, above: tuple[str, ...]) -> list[Block]:
        """The parts of the row of another file that `use: paper/table/row` names."""
        if not isinstance(use, str) or "/" not in use:
            raise mark.error(f"must name a row of another file, paper/table/row, not {shown(use)}")
        if use in above:
            raise mark.error(f"the rows use one another in a circle: {' -> '.join([*above, use])}")
        table, _, row_id = use.rpartition("/")
        known = list_experiments(self.root)
        if table not in known:
            raise mark.error(f"there is no experiment {table!r} to use a row of; {suggestion(table, known)}")
        file = read(known[table])
        check_file(file)
        if row_id not in file["rows"]:
            raise mark.error(f"{shown_path(known[table])} has no row {row_id!r}; {suggestion(row_id, file['rows'])}")
        self.imports.extend(name for name in _imported(file, self.root) if name not in self.imports)
        row = row_of(file, row_id, scale, (), lambda inner, place: self.used(inner, place, scale, (*above, use)))
        return [part.only(USED_KEYS) for part in row.parts]


def _unlike(one: Column, other: Column) -> bool:
    """Whether two rows' columns of one id measure different things."""
    if one.removed or other.removed:
        return False
    return (one.metric, one.data, one.measure_on) != (other.metric, other.data, other.measure_on)
