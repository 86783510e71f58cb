"""A report as a value: which records stand in which cell, what they add up to, and what has to be said about them."""

import json
import math
import re
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genae import plots, results
from genae.claims import Judgement, judge
from genae.report.order import Order, Standing, compare
from genae.spec import Column, Experiment, RowSpec, RunSpec

Record = Mapping[str, Any]
MISSING = "missing"


@dataclass(frozen=True)
class Cell:
    """One row's number in one column: ours over the seeds, and the paper's.

    values: one per seed that has one.  absent: {seed: why not} for the others ("missing", "not defined", ...).
    published, plus_minus: the paper's number and its error bar, None where it prints none.
    best: whether no mean that it compares with, as printed, is better.
    details: of the record of each value.
    """

    values: tuple[float, ...] = ()
    absent: Mapping[int, str] = field(default_factory=dict)
    published: float | None = None
    plus_minus: float | None = None
    best: bool = False
    details: tuple[Mapping[str, Any], ...] = ()

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (with n - 1); None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's; for reports in which the two are of one kind only."""
        return None if self.mean is None or self.published is None else self.mean - self.published


@dataclass(frozen=True)
class Measure:
    """One column: its headers, how its numbers are printed, and the protocol that all of them share.

    header: what ours measures, such as "fid-2k"; the paper's is the id.  of_one_autoencoder: as the column's.
    """

    id: str
    header: str
    direction: str
    decimals: int
    paper_decimals: int
    removed: bool
    of_one_autoencoder: bool
    protocol: Mapping[str, Any]
    order: Order | None = None


@dataclass(frozen=True)
class Picture:
    """A PNG of one run. data: the name of the data set itself, which at another scale is not what data_name says."""

    row: str
    data_name: str
    data: str
    seed: int
    name: str
    caption: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Trained:
    """What is known of one run from its records and its curve."""

    row: str
    data_name: str
    seed: int
    identity: str
    images_seen: int | None = None
    training_seconds: float | None = None
    record: Record = field(default_factory=dict)  # the latest, for commit, device, threads and time


@dataclass(frozen=True)
class Report:
    """All that a page says.

    same_kind: ours and the paper's are one kind of number (scale paper), and may be subtracted.
    """

    table: str
    title: str
    source: str | None
    caption: str | None
    scale: str
    command: str  # that makes it
    rows: Mapping[str, str]  # id -> label
    row_notes: Mapping[str, str]  # id -> what has to be said of the paper's row
    measures: tuple[Measure, ...]
    cells: Mapping[tuple[str, str], Cell]  # (row id, column id)
    num_seeds: int
    same_kind: bool
    has_published: bool
    notes: tuple[str, ...]
    runs: tuple[Trained, ...]
    pictures: tuple[Picture, ...]
    curves: Mapping[str, bytes]  # row id -> SVG
    claims: tuple[Judgement, ...]
    likelihoods: bytes | None = None  # SVG, of a table of log likelihoods whose runs were watched by one


def build(
    experiment: Experiment, records: Iterable[Record], figures: Path | None = None, failures: Sequence[str] = ()
) -> Report:
    """The report of an experiment, from the records collected for its table and the pictures collected in `figures`.

    failures: of runs that have no numbers, a sentence each.

    Records are matched to runs by row, data, seed and identity, so those of other settings are never shown; the notes say how
    many were left out. Raises ValueError where records of one column were measured under unlike protocols.
    """
    mine, notes = _in_force(experiment, list(records))
    cells: dict[tuple[str, str], Cell] = {}
    measures = []
    for column in experiment.columns.values():
        measured = [record for record in mine if record["column"] == column.id]
        of_column = {row.id: _cell(row, column, experiment, measured) for row in experiment.rows.values()}
        measure = _measure(column, experiment, measured, of_column)
        measures.append(measure)
        for alike in _comparable(column, experiment):
            for row, cell in _best_marked({row: of_column[row] for row in alike}, measure).items():
                cells[row, column.id] = cell
    runs, pictures, curves, more = _beside(experiment, mine, figures)
    labels = {row.id: row.label or row.id for row in experiment.rows.values()}
    of_likelihoods = any(column.metric["name"] == "log-likelihood" for column in experiment.columns.values())
    watched = {labels[row]: list(lines.values()) for row, lines in curves.items()} if of_likelihoods else {}
    return Report(
        table=experiment.table,
        title=experiment.title or experiment.source or experiment.table,
        source=experiment.source,
        caption=experiment.caption,
        scale=experiment.scale,
        command=_command(experiment),
        rows=labels,
        row_notes={row.id: row.note for row in experiment.rows.values() if row.note},
        measures=tuple(measures),
        cells=cells,
        num_seeds=len(experiment.seeds),
        same_kind=experiment.scale == "paper",
        has_published=any(cell.published is not None for cell in cells.values()),
        notes=(
            *failures,
            *_about_overrides(experiment),
            *notes,
            *_about_data(mine),
            *more,
            *_about_floors(measures, cells, labels),
        ),
        runs=runs,
        pictures=pictures,
        curves={row: plots.loss_curves(lines) for row, lines in curves.items()},
        claims=judge(experiment, mine),
        likelihoods=plots.likelihood_curves(watched),
    )


def _about_overrides(experiment: Experiment) -> list[str]:
    if not experiment.overrides:
        return []
    return [f"Not as the experiment file has it, but with {', '.join(experiment.overrides)}."]


def _in_force(experiment: Experiment, records: list[Record]) -> tuple[list[Record], list[str]]:
    """The records that the table shows, one per cell and seed, and what has to be said of the others."""
    runs = {(run.row, run.data_name, run.seed, run.identity): run for run in experiment.runs}
    mine, other_settings, not_asked_for = [], 0, set()
    for record in records:
        run = runs.get((record["row"], record["data_name"], record["seed"], record["identity"]))
        if run:
            if any(_is_of(record, column) for column in run.columns):
                mine.append(record)
            else:
                other_settings += 1
        elif record["scale"] == experiment.scale:
            if record["row"] in {run.row for run in experiment.runs}:
                other_settings += 1
            else:
                not_asked_for.add(record["row"])
    shown, superseded = results.latest(mine)

    notes = []
    if other_settings:
        some = "1 record" if other_settings == 1 else f"{other_settings} records"
        whose = "these overrides'" if experiment.overrides else "the experiment file's"
        notes.append(f"Left out: {some} of other settings than {whose}.")
    if not_asked_for:
        notes.append(f"Left out, as they were not asked for: the records of {', '.join(sorted(not_asked_for))}.")
    for record in superseded:
        place = results.place(record)
        newer = next(r for r in shown if results.place(r) == place and r["identity"] == record["identity"])
        what = "another checkpoint" if newer["checkpoint"] != record["checkpoint"] else "another protocol"
        notes.append(f"{record['row']}, seed {record['seed']}: measured again, of {what}; the latest number is shown.")
    checkpoints: dict[tuple[str, int, str], set[str]] = {}
    for record in shown:
        checkpoints.setdefault((record["row"], record["seed"], record["data_name"]), set()).add(record["checkpoint"])
    mixed = [f"{row}, seed {seed}" for (row, seed, _), several in checkpoints.items() if len(several) > 1]
    notes += [f"{who}: its columns are of different checkpoints." for who in mixed]
    return shown, list(dict.fromkeys(notes))


def _is_of(record: Record, column: Column) -> bool:
    """Whether a record is of a run's column, with the metric and the settings that it has now."""
    if record["column"] != column.id or column.removed:
        return False
    wanted = {"metric": column.metric, "measure_on": column.measure_on}
    return results.canonical(record.get("settings", wanted)) == results.canonical(wanted)


def _runs_of(column: Column, experiment: Experiment, row: str | None = None) -> list[RunSpec]:
    """The runs that put numbers into a column: of a row, one per seed."""
    runs = [run for run in experiment.runs if column.id in {own.id for own in run.columns}]
    return [run for run in runs if row in (None, run.row)]


def _cell(row: RowSpec, column: Column, experiment: Experiment, records: Sequence[Record]) -> Cell:
    known = {record["seed"]: record for record in records if record["row"] == row.id}
    values, details, absent = [], [], {}
    for run in [] if column.removed else _runs_of(column, experiment, row.id):
        record = known.get(run.seed)
        if record and record["value"] is not None:
            values.append(record["value"])
            details.append(record.get("details", {}))
        else:
            absent[run.seed] = record["status"] if record else MISSING
    published, plus_minus = row.published.get(column.id), row.plus_minus.get(column.id)
    return Cell(tuple(values), absent, published, plus_minus, details=tuple(details))


def _measure(column: Column, experiment: Experiment, records: Sequence[Record], cells: Mapping[str, Cell]) -> Measure:
    valued = [record for record in records if record["value"] is not None]
    header = next((record["label"] for record in valued or records), column.metric["name"])
    if column.removed:
        header = f"{column.id} (not measured at scale {experiment.scale})"
    elif column.in_place_of:
        header = f"{header}, {_subject(column, experiment)} (in place of {column.in_place_of})"
    elif column.data:
        header = f"{header}, {column.data}"
    ours = {row: Standing(cell.mean, cell.std) for row, cell in cells.items() if cell.mean is not None}
    paper = {row: Standing(cell.published, cell.plus_minus) for row, cell in cells.items() if cell.published is not None}
    decimals = _four_digits(standing.value for standing in ours.values())
    paper_decimals = max((_places(standing.value) for standing in paper.values()), default=0)
    if experiment.scale == "paper":  # one kind of number, so printed alike: the difference is that of what is printed
        decimals = max(decimals, paper_decimals)
    return Measure(
        id=column.id,
        header=header,
        direction=column.direction,
        decimals=decimals,
        paper_decimals=paper_decimals,
        removed=column.removed,
        of_one_autoencoder=column.of_one_autoencoder,
        protocol=_one_protocol(column, valued),
        order=compare(ours, paper, column.direction),
    )


def _subject(column: Column, experiment: Experiment) -> str:
    """The data set that a column is measured on, with its size where that is what a scale has changed."""
    spec = column.measure_on or next((run.data for run in _runs_of(column, experiment)), {"name": column.data})
    sized = re.fullmatch(r"\d+x\d+", column.in_place_of)
    return f"{spec['name']} at {spec['resolution']}x{spec['resolution']}" if sized else spec["name"]


def _one_protocol(column: Column, records: Sequence[Record]) -> dict[str, Any]:
    """The protocol that all of a column's numbers share, flat. Raises ValueError with what differs, and between whom."""
    flat = [dict(results.flat(record["protocol"])) for record in records]
    differing = []
    for name in dict.fromkeys(name for protocol in flat for name in protocol):
        found: dict[str, list[str]] = {}
        for record, protocol in zip(records, flat, strict=True):
            value = results.canonical(protocol[name]) if name in protocol else "absent"
            found.setdefault(value, []).append(f"{record['row']} s{record['seed']}")
        if len(found) > 1:
            differing.append(f"  {name}: " + "; ".join(f"{value} ({', '.join(who)})" for value, who in found.items()))
    if differing:
        raise ValueError(
            "\n".join([f"column {column.id!r} has numbers of unlike protocols, which do not compare:", *differing])
        )
    return flat[0] if flat else {}


def _comparable(column: Column, experiment: Experiment) -> list[list[str]]:
    """The rows in groups whose numbers in a column compare: all of them, or those of one autoencoder."""
    if not column.of_one_autoencoder:
        return [list(experiment.rows)]
    groups: dict[str, list[str]] = {}
    for row in experiment.rows:
        first = next((run.stages[0].identity for run in _runs_of(column, experiment, row) if run.stages), row)
        groups.setdefault(first, []).append(row)
    return list(groups.values())


def _best_marked(cells: Mapping[str, Cell], measure: Measure) -> dict[str, Cell]:
    """These cells of a column with the best means marked: those that print alike are both best, a number alone is not."""
    means = {row: round(cell.mean, measure.decimals) for row, cell in cells.items() if cell.mean is not None}
    best = (min if measure.direction == "min" else max)(means.values(), default=None)
    return {row: replace(cell, best=len(means) > 1 and means.get(row) == best) for row, cell in cells.items()}


def _four_digits(values: Iterable[float]) -> int:
    """Decimals that give the largest of the values four digits, as papers print: 45.25, 206.3, 0.0834."""
    largest = max(map(abs, values), default=0.0)
    return max(0, 3 - math.floor(math.log10(largest))) if largest else 2


def _places(value: float) -> int:
    """Decimals that a published number was printed with, as far as YAML keeps them."""
    text = repr(float(value))
    return 0 if text.endswith(".0") or "e" in text else len(text.partition(".")[2])


def _about_floors(measures: Sequence[Measure], cells: Mapping[tuple[str, str], Cell], labels: Mapping[str, str]) -> list[str]:
    """A sentence for each column whose records have the detail `floor`: what it is, and which rows are not better."""
    said = []
    for measure in measures:
        floors = {}
        for row, label in labels.items():
            found = [details["floor"] for details in cells[row, measure.id].details if "floor" in details]
            if found:
                floors[row] = label, statistics.fmean(found)
        if not floors:
            continue
        sign = 1 if measure.direction == "max" else -1
        short = [label for row, (label, floor) in floors.items() if sign * cells[row, measure.id].mean <= sign * floor]
        numbers = sorted({f"{floor:.{measure.decimals}f}" for _, floor in floors.values()}, key=float)
        what = f"{measure.header}: the floor is {' to '.join([numbers[0], *numbers[1:][-1:]])}"
        said.append(f"{what}; not better than theirs: {', '.join(short)}." if short else f"{what}; every row is better.")
    return said


def _about_data(records: Sequence[Record]) -> list[str]:
    """A sentence for each data set of which records saw different versions."""
    digests: dict[str, set[str]] = {}
    for record in records:
        digests.setdefault(record["data_name"], set()).add(results.canonical(record.get("data")))
    return [f"The rows did not all see the same version of {name}." for name, seen in digests.items() if len(seen) > 1]


def _beside(
    experiment: Experiment, records: Sequence[Record], figures: Path | None
) -> tuple[tuple[Trained, ...], tuple[Picture, ...], dict[str, dict[str, list[Record]]], list[str]]:
    """What stands beside the numbers: (runs, pictures of the first seed of each row and data set, curves by row, notes).

    A row's curves are lines of progress by the label of their run, as plots.loss_curves takes them.
    """
    several_data = len({run.data_name for run in experiment.runs}) > 1
    runs: list[Trained] = []
    pictures: list[Picture] = []
    curves: dict[str, dict[str, list[Record]]] = {}
    stale = 0
    for run in experiment.runs:
        of = (run.row, run.data_name, run.seed)
        mine = [record for record in records if (record["row"], record["data_name"], record["seed"]) == of]
        latest = max(mine, key=results.seconds_of, default={})
        drawn, curve = [], []
        if figures and (mine or not run.columns):
            folder = Path(figures) / f"{run.row}-{run.data_name}-s{run.seed}"
            found = list(_pictures(run, folder))
            if not run.columns:  # its pictures alone say what was drawn, and of what
                latest = next((made_by for made_by, _ in found if made_by.get("identity") == run.identity), {})
            drawn = [picture for made_by, picture in found if made_by.get("checkpoint") in (None, latest.get("checkpoint"))]
            stale += len(found) - len(drawn)
            if drawn or not found:  # a curve stands and falls with the pictures collected with it
                curve = results.read(folder / results.CURVE)
        if not any((picture.row, picture.data_name) == (run.row, run.data_name) for picture in pictures):
            pictures += drawn
        if any(line.get("terms") for line in curve):
            label = f"{run.data_name}, seed {run.seed}" if several_data else f"seed {run.seed}"
            curves.setdefault(run.row, {})[label] = curve
        seconds = curve[-1].get("seconds") if curve else None
        runs.append(Trained(*of, run.identity, latest.get("images_seen"), seconds, latest))
    some = "1 picture" if stale == 1 else f"{stale} pictures"
    notes = [f"Left out: {some} of another checkpoint than the numbers'."] if stale else []
    return tuple(runs), tuple(pictures), curves, notes


def _pictures(run: RunSpec, folder: Path) -> Iterator[tuple[Record, Picture]]:
    """(what it says of the checkpoint it shows, picture) for each collected picture of a run, in the order of its figures."""
    from PIL import Image

    order = [json.dumps(figure, sort_keys=True) for figure in run.figures]
    names = [figure["name"] for figure in run.figures]
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            text, (width, height) = dict(image.text), image.size
        settings, of = text.get("settings"), {key: text[key] for key in ("checkpoint",) if key in text}
        place = order.index(settings) if settings in order else names.index(path.stem) if path.stem in names else len(order)
        picture = Picture(
            row=run.row,
            data_name=run.data_name,
            data=run.data["name"],
            seed=run.seed,
            name=path.stem,
            caption=text.get("caption", ""),
            png=path.read_bytes(),
            width=width,
            height=height,
        )
        found.append((place, json.loads(text.get("made_by", "{}")) | of, picture))
    for _, made_by, picture in sorted(found, key=lambda one: one[0]):  # stable: by name where the experiment does not say
        yield made_by, picture


def _command(experiment: Experiment) -> str:
    path = experiment.path
    if path.is_absolute() and path.is_relative_to(experiment.root):
        path = path.relative_to(experiment.root)
    return " ".join(["genae run", *map(shlex.quote, [path.as_posix(), *experiment.overrides]), f"--scale {experiment.scale}"])
