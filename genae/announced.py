"""Which runs there are, by what `genae run` and `genae launch` left in run directories when they took them on.

Nothing is resolved: the directories say which rows of which tables they serve (rows.json), what stages there are, and which
jobs were submitted (job.json). docs/architecture.md says who writes these files.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genae.rundir import RunDir, read_json

GLANCE_SECONDS = 0.5  # the patience with a file that cannot be read; what it says is then told at the next look


class Glance:
    """A run directory as it stands at one moment: of a file that is not listed nothing more is asked."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDir(path)
        self.names = _names(path)

    def has(self, file: Path) -> bool:
        return file.name in self.names

    def read(self, file: Path) -> Any:
        """The value of a JSON file; None where there is none, or it cannot be read now."""
        try:
            return read_json(file, GLANCE_SECONDS) if self.has(file) else None
        except OSError:
            return None

    def images_reached(self) -> int:
        """Of the last checkpoint, by its name; 0 where there is none."""
        names = _names(self.directory.checkpoints) if self.has(self.directory.checkpoints) else ()
        return max((int(name[:-3]) for name in names if name.endswith(".pt") and name[:-3].isdigit()), default=0)


@dataclass(frozen=True)
class Stage:
    """A stage of a run: what it is called, where it is trained, and for how many images."""

    name: str
    path: Path
    total_images: int


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A run as it was announced.

    columns: what is measured of it.  beside: what is measured there for other rows as well, its own included.  stages: none of
    a row that trains nothing.  last: the directory in which it is measured.  jobs: that were last submitted, one a stage (None
    where there was none) and then the one that measures.  when: it was last announced or submitted.
    """

    table: str
    row: str
    data_name: str
    seed: int
    scale: str
    columns: frozenset[str]
    beside: frozenset[str]
    stages: tuple[Stage, ...]
    last: Path
    jobs: tuple[Mapping[str, Any] | None, ...]
    when: float

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What tells it from other runs, but for earlier ones of the same name."""
        return self.table, self.row, self.data_name, self.seed, self.scale

    @property
    def name(self) -> str:
        return f"{self.row}/{self.data_name}/s{self.seed}"

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(stage.path for stage in self.stages) or (self.last,)


def announced(runs: Path) -> list[Announced]:
    """Every run that the directories in the folder `runs` tell of."""
    try:
        with os.scandir(runs) as entries:
            glances = {entry.name: Glance(Path(entry.path)) for entry in entries if entry.is_dir()}
    except FileNotFoundError:
        return []

    found, known = [], set()
    for name, glance in glances.items():
        rows = glance.read(glance.directory.rows) or []
        beside = frozenset(column for row in rows for column in row["columns"])
        for row in rows:
            stages = [Stage(stage["name"], runs / stage["directory"], stage["total_images"]) for stage in row["stages"]]
            found.append(_run(row, row["columns"], beside, stages, glance.directory.rows, glances))
            known |= {name, *(stage.path.name for stage in stages)}

    # Directories of before there was a rows.json: each holds, in run.json, the whole run that was trained there last.
    older: dict[Any, Announced] = {}
    for name in sorted(set(glances) - known):
        described = glances[name].read(glances[name].directory.run)
        if described:
            run = described["run"]
            columns = [column["id"] for column in run["columns"]]
            stages = list(_stages(run, runs))
            one = _run(run, columns, frozenset(columns), stages, glances[name].directory.run, glances)
            older[one.key, one.last] = one
    return found + list(older.values())


def _run(
    row: Mapping[str, Any],
    columns: Iterable[str],
    beside: frozenset[str],
    stages: list[Stage],
    told_in: Path,
    glances: Mapping[str, Glance],
) -> Announced:
    last = stages[-1].path if stages else told_in.parent

    def submitted(path: Path) -> Mapping[str, Any]:
        glance = glances.get(path.name)
        return (glance and glance.read(glance.directory.job)) or {}

    measure = submitted(last).get("measure") or submitted(last).get("train")  # which measures too, where no other job does
    jobs = (*(submitted(stage.path).get("train") for stage in stages), measure)
    try:
        told = told_in.stat().st_mtime
    except OSError:
        told = 0.0
    return Announced(
        table=row["table"],
        row=row["row"],
        data_name=row["data_name"],
        seed=row["seed"],
        scale=row["scale"],
        columns=frozenset(columns),
        beside=beside,
        stages=tuple(stages),
        last=last,
        jobs=jobs,
        when=max([told, *(job["submitted"] for job in jobs if job)]),
    )


def _stages(run: Mapping[str, Any], runs: Path) -> Iterator[Stage]:
    """The stages of a whole run, as run.json holds it."""
    label = f"{run['model']['name']}-{run['data']['name']}-s{run['seed']}"
    for stage in run["stages"]:
        path = RunDir.of(runs, label, stage["identity"]).path
        yield Stage(stage["name"], path, round(1000 * stage["schedule"]["total_kimg"]))


def _names(path: Path) -> frozenset[str]:
    """What a folder lists; nothing where it is not there, or cannot be read now."""
    try:
        return frozenset(os.listdir(path))
    except OSError:
        return frozenset()
