"""From a row's parts to its columns and its runs: every component looked up, every setting checked and filled in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from genae import identity
from genae.overlays import Row, check_keys, mapping
from genae.registry import DATASETS, DENSITIES, FIGURES, METRICS, MODELS, OBJECTIVES, suggestion
from genae.schedule import Schedule
from genae.settings import check, component, shown
from genae.spec import Adam, Average, Column, Compute, KeepBest, RunSpec, StageSpec, schedule_from
from genae.yaml_source import Block, Mark, MissingKeyError, locate

OPTIMIZERS = {"adam": Adam}
STAGE_KEYS = ("objective", "schedule", "optimizer", "average", "density", "keep_best")
OF_DENSITIES = {"name": "likelihood", "unit": "nats", "levels": None}  # what a density lowers unless told
NEEDED = {
    "objective": "what does this stage lower? write objective: {name: ...}",
    "schedule": "how long does this stage train? write schedule: {total_kimg: ..., phases: [...]}",
}
COLUMN_KEYS = ("metric", "data", "measure_on")


# Columns.


@dataclass(frozen=True)
class RowColumn:
    """A column as one row has it. subject: the spec of the data set that it is measured on."""

    column: Column
    subject: dict[str, Any]
    mark: Mark


def columns_of(row: Row | None, paper: Row) -> list[RowColumn]:
    """A row's columns in the paper's order. Those that only the paper has are marked as removed, those whose metric or data
    another scale exchanged say for what they stand. row: None where it is not run.  paper: as the file itself gives it."""
    here = _columns(row) if row else {}
    try:
        there = _columns(paper)
    except MissingKeyError:  # complete only with the overlay
        there = {}
    found = []
    for key in dict.fromkeys([*there, *here]):
        if key not in here:
            found.append(replace(there[key], column=replace(there[key].column, removed=True)))
        else:
            stands_for = _in_place_of(there[key], here[key]) if key in there else None
            found.append(replace(here[key], column=replace(here[key].column, in_place_of=stands_for)))
    return found


def _in_place_of(before: RowColumn, after: RowColumn) -> str | None:
    """What of a column's metric, data and size is another at this scale, in the file's words; None where nothing is."""
    old, new = before.column.metric["name"], after.column.metric["name"]
    if before.column.direction != after.column.direction:  # the order of rows could not be compared
        better = {"min": "lower", "max": "higher"}
        said = f"{new!r} ({better[after.column.direction]} is better) cannot stand in for {old!r}"
        raise after.mark.error(f"{said} ({better[before.column.direction]} is better)")
    if old != new:
        return f"{old}, {before.subject['name']}"
    if before.subject["name"] != after.subject["name"]:
        return before.subject["name"]
    was, now = before.subject.get("resolution"), after.subject.get("resolution")
    return f"{was}x{was}" if was != now else None


def _columns(row: Row) -> dict[str, RowColumn]:
    data = row.data()
    short_names = None if "name" in data else list(data)
    columns = row.columns(short_names)
    found = {}
    for key, block in columns.items():
        mark = columns.marks[key]
        if not isinstance(block, Block):
            raise mark.error(f"a column is a mapping of {', '.join(COLUMN_KEYS)}, not {shown(block)}")
        check_keys(block, COLUMN_KEYS, "a column")
        if not _has_metric(block):
            others = [other for other in columns if _has_metric(columns[other])]
            raise mark.error(f"no part of this row gives column {key!r} a metric by name; {suggestion(key, others)}")
        metric = component(METRICS, block["metric"], block.marks["metric"])
        name = _column_data(row, key, block, mark, data, short_names)
        if name is not None and name not in (short_names or ()):
            continue  # measured on a data set that this scale leaves out
        measure_on = _measure_on(block) if block.get("measure_on") is not None else None
        subject = measure_on or component(DATASETS, data if name is None else data[name], mark)
        kind = METRICS[metric["name"]].factory
        column = Column(
            id=key,
            metric=metric,
            data=name,
            measure_on=measure_on,
            direction=getattr(kind, "direction", "min"),
            of_one_autoencoder=getattr(kind, "of_one_autoencoder", False),
        )
        found[key] = RowColumn(column, subject, block.marks["metric"])
    return found


def _has_metric(block: Any) -> bool:
    metric = block.get("metric") if isinstance(block, Block) else None
    return metric is not None and not (isinstance(metric, Block) and "name" not in metric)


def _column_data(row: Row, key: str, block: Block, mark: Mark, data: Block, short_names: Sequence[str] | None) -> str | None:
    """The short name of the data set that a column is about, at this scale or another; None where the row has but one."""
    given = block.get("data")
    if short_names is None:
        if given is None or given in [data["name"], *row.names_given()]:
            return None
        known = [data["name"], *row.short_names()]
    else:
        known = list(short_names)
    if given is None:
        raise mark.error(f"which data set is column {key!r} about? write data: {' or '.join(known)}")
    if given not in row.short_names():
        raise block.marks["data"].error(f"there is no data set {given!r} in this row; {suggestion(str(given), known)}")
    return given


def _measure_on(block: Block) -> dict[str, Any]:
    given, mark = mapping(block, "measure_on"), block.marks["measure_on"]
    spec = component(DATASETS, given.without({"split", "count"}), mark)
    split, count = given.get("split", "test"), given.get("count")
    if split not in ("train", "test"):
        raise given.marks["split"].error(f"must be train or test, not {shown(split)}")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise given.marks["count"].error(f"must be a whole number from 1, not {shown(count)}")
    return {**spec, "split": split, "count": count}


# Runs.


def runs_of(
    row: Row, columns: Sequence[Column], seeds: Sequence[int], *, table: str, scale: str, imports: Sequence[str], root: Path
) -> list[RunSpec]:
    """A row's runs: one per data set and seed."""
    data = row.data()
    if "name" in data:
        sets = {None: (data, locate(data, ("name",)))}
    else:
        sets = {name: (spec, data.marks[name]) for name, spec in data.items()}
    runs = []
    for short_name, (spec, mark) in sets.items():
        body = row.body(short_name)
        data_spec = component(DATASETS, spec, mark)
        _check_size(data_spec.get("resolution"), locate(spec, ("resolution",)), DATASETS[data_spec["name"]].sizes)
        if body.get("model") is None:
            raise row.mark.error("missing: what is trained? write model: {name: ...}", key="model", kind=MissingKeyError)
        model = component(MODELS, body["model"], body.marks["model"])
        flip = body.get("flip", True)
        if not isinstance(flip, bool):
            raise body.marks["flip"].error(f"must be true or false, not {shown(flip)}")
        compute = Compute(**check(Compute, mapping(body, "compute"), "compute", mapping(body, "compute").mark))
        stages = _stages(mapping(body, "stages"), data_spec)
        for seed in seeds:
            chain = _identities(data_spec, flip, model, stages, compute.precision, seed)
            runs.append(
                RunSpec(
                    table=table,
                    row=row.id,
                    scale=scale,
                    data_name=short_name or data_spec["name"],
                    data=data_spec,
                    flip=flip,
                    seed=seed,
                    model=model,
                    stages=tuple(
                        StageSpec(name=name, identity=link, **{**stage, "schedule": schedule_from(stage["schedule"])})
                        for (name, stage), link in zip(stages, chain[1:], strict=True)
                    ),
                    columns=tuple(c for c in columns if not c.removed and c.data in (None, short_name)),
                    figures=_figures(body),
                    compute=compute,
                    imports=tuple(imports),
                    root=root,
                    identity=chain[-1],
                )
            )
    return runs


def _figures(body: Block) -> tuple[dict[str, Any], ...]:
    figures = body.get("figures") or []
    if not isinstance(figures, list):
        raise body.marks["figures"].error(f"must be a list of figures, [{{name: ...}}, ...], not {shown(figures)}")
    return tuple(component(FIGURES, figure, locate(figures, (index,))) for index, figure in enumerate(figures))


def _stages(stages: Block, data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The resolved settings of every stage, by STAGE_KEYS."""
    found = [(name, _stage(stages, name, data)) for name in stages]
    for (name, stage), (following, _) in pairwise(found):
        if stage["density"] is not None:
            raise stages.marks[following].error(f"no stage can follow {name!r}, which trains a density on the codes")
    return found


def _stage(stages: Block, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    block, mark = mapping(stages, name), stages.marks[name]
    check_keys(block, STAGE_KEYS, "a stage")
    density = block.get("density")
    if density is not None:
        density = component(DENSITIES, density, block.marks["density"])
    default = density and Block(mark, OF_DENSITIES.items(), dict.fromkeys(OF_DENSITIES, mark))
    given = {key: block.get(key) for key in NEEDED}
    given["objective"] = default if given["objective"] is None else given["objective"]
    for key, what in NEEDED.items():
        if given[key] is None:
            raise mark.error(f"missing: {what}", key=key, kind=MissingKeyError)
    objective = component(OBJECTIVES, given["objective"], block.marks.get("objective", mark))
    schedule = check(Schedule, block["schedule"], "a schedule", block.marks["schedule"])
    if density is None:
        schedule = _at_own_resolution(schedule, data)
    _check_phases(block["schedule"], schedule, data, on_codes=density is not None)
    average, keep_best = block.get("average"), block.get("keep_best")
    if average is not None:
        average = check(Average, average, "an average", block.marks["average"])
    if keep_best is not None:
        keep_best = check(KeepBest, keep_best, "keep_best", block.marks["keep_best"])
        if density is None:
            raise block.marks["keep_best"].error("keeps the best weights of a density; this stage trains none")
        if average is not None:
            raise block.marks["keep_best"].error("cannot be had together with average: which weights would be the best?")
    return {
        "objective": objective,
        "schedule": schedule,
        "optimizer": _optimizer(block),
        "average": average,
        "density": density,
        "keep_best": keep_best,
    }


def _at_own_resolution(schedule: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule whose phases at no stated resolution are at the data's own."""
    own = data.get("resolution")
    phases = [phase | {"resolution": own} if phase["resolution"] is None else phase for phase in schedule["phases"]]
    return {**schedule, "phases": phases}


def _optimizer(block: Block) -> dict[str, Any]:
    given = mapping(block, "optimizer")
    name = given.get("name", "adam")
    if name not in list(OPTIMIZERS):
        raise given.marks["name"].error(f"there is no optimizer {name!r}; {suggestion(str(name), OPTIMIZERS)}")
    return {"name": name, **check(OPTIMIZERS[name], given.without({"name"}), f"optimizer {name!r}", given.mark)}


def _check_phases(block: Block, schedule: Mapping[str, Any], data: Mapping[str, Any], *, on_codes: bool) -> None:
    """What neither a schedule nor a data set can see alone."""
    largest = data.get("resolution")
    for index, phase in enumerate(schedule["phases"]):
        mark = locate(block, ("phases", index, "resolution"))
        if on_codes and phase["resolution"] is not None:
            raise mark.error("a density is trained on codes, which have no resolution; take it away")
        if phase["resolution"] is None and not on_codes:
            raise mark.error("missing: at which resolution? the data set has none of its own", kind=MissingKeyError)
        _check_size(phase["resolution"], mark, () if largest is None else (largest,))
        if isinstance(largest, int) and (phase["resolution"] or 0) > largest:
            raise mark.error(f"a phase at {phase['resolution']}x{phase['resolution']}, but the data is {largest}x{largest}")
        rates = phase["learning_rate"]
        for name, rate in rates.items() if isinstance(rates, dict) else [(None, rates)]:
            if rate < 0:
                place = locate(block, ("phases", index, "learning_rate", *([name] if name else [])))
                raise place.error(f"must not be negative, not {rate}")


def _check_size(resolution: Any, mark: Mark, others: Collection[int]) -> None:
    """Raise where a resolution is neither a power of two nor among the `others` that the data set has."""
    if isinstance(resolution, int) and resolution not in others and (resolution < 1 or resolution & (resolution - 1)):
        above, below = 1 << max(resolution, 1).bit_length(), 1 << max(resolution, 1).bit_length() - 1
        raise mark.error(f"a resolution is a power of two, such as {below} or {above}, not {resolution}")


def _identities(
    data: Mapping[str, Any],
    flip: bool,
    model: Mapping[str, Any],
    stages: Sequence[tuple[str, Mapping[str, Any]]],
    precision: str,
    seed: int,
) -> list[str]:
    """The identity without any stage, then that of each stage."""
    data = identity.component(DATASETS[data["name"]], data)
    model = identity.component(MODELS[model["name"]], model)
    links = [identity.of({"data": data, "model": model, "seed": seed})]
    before = None
    for name, values in stages:
        stage = identity.stage(values)
        objective = identity.component(OBJECTIVES[stage["objective"]["name"]], stage["objective"])
        parts = {"data": data, "flip": flip, "model": model, "precision": precision, "seed": seed}
        if "density" in stage:
            stage["density"] = identity.component(DENSITIES[stage["density"]["name"]], stage["density"])
        before = identity.of({"before": before, **parts, "stage": name, **stage, "objective": objective})
        links.append(before)
    return links
