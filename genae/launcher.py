"""An experiment's runs as jobs, through submitit: on SLURM, or on this machine.

On SLURM a launch is a few job arrays (genae.arrays). Nothing waits here: SLURM has the order, run directories have the state,
and launching again submits what is neither done nor under way. On this machine one process starts workers, as `genae run` does,
and collects when they have ended.
"""

import contextlib
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from genae import cluster as clusters
from genae import slurm, snapshot, study
from genae.announced import Announced, announced
from genae.arrays import Launch, Making, broken_nodes, in_flight, job_in_flight
from genae.experiment import Asked, find, project_root
from genae.jobs import ASK_AGAIN, MOST_IN_VAIN
from genae.registry import suggestion
from genae.rundir import RunDir, locked, read_json, write_json
from genae.spec import RunSpec
from genae.yaml_source import read

FOLDERS = ("GENAE_CACHE", "GENAE_DATA", "GENAE_WEIGHTS")
LOOK_EVERY_SECONDS = 5.0  # while `--watch` stays


def launch(
    asked: Asked,
    name: str,
    *,
    only: Callable[[RunSpec, Path], bool] | None = None,
    jobs: int | None = None,
    dry: bool = False,
) -> Launch:
    """Submit to the cluster called `name` what is neither done nor under way.

    only: of that, the runs that it holds for (such as `was_tried`).  jobs: on this machine, runs side by side.  dry: only say
    what sbatch would get.
    Raises ValueError where SLURM refuses or does not answer, where data that training needs are not here, and where the project
    holds more than 1 GiB that git neither keeps nor ignores.
    """
    cluster = clusters.find(name)
    if dry and cluster.cluster != "slurm":
        raise ValueError(
            f"--dry-run shows what sbatch would get; the cluster {name!r} has no sbatch, and `genae show` tells its runs"
        )
    experiment = asked.chosen()
    folders = study.Folders(experiment.root)
    folders.logs.mkdir(parents=True, exist_ok=True)
    for variable in FOLDERS:
        if os.environ.get(variable):  # jobs inherit it, and start in another folder
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().absolute())
    # The second of two launches finds what the first has submitted.
    with locked(folders.runs / ".launching"), _hangup_interrupts():
        queue = (slurm.queue() or {}) if dry else _queue() if cluster.cluster == "slurm" else {}
        todo = study.outstanding(experiment, folders)
        busy = [run for run in todo if is_in_flight(run, folders.runs, queue)]
        todo = [run for run in todo if run not in busy and (not only or only(run, folders.runs))]
        started = Launch(f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}", todo, busy)
        started.warnings += [
            f"{study.name_of(run)} is under way without {', '.join(more)}: launch again once it has ended"
            for run in busy
            if (more := _not_announced(run, folders.runs))
        ]
        if not dry:
            study.announce(busy, folders.runs)
        if not todo:
            return started
        check_data(todo)
        study.check_densities(todo)
        started.warnings += [f"some columns wait: {text}" for text in missing_weights(todo)]
        code = snapshot.take(experiment.root, folders.runs / "snapshots", snapshot.needed_by(experiment))
        there = replace(asked, experiment=str(code / experiment.path.relative_to(experiment.root)), scale=experiment.scale)
        making = Making(started, there, folders, cluster, code, queue, dry)
        if not dry:
            study.announce(todo, folders.runs)
            last = [study.directories(run, folders.runs)[-1] for run in todo]
            stale = {job for place in last if (job := job_in_flight(place, "measure", making.queue))}
            slurm.cancel(stale if cluster.cluster == "slurm" else ())  # they wait for training that is gone
        try:
            making.arrays(todo) if cluster.cluster == "slurm" else making.supervisor(todo, jobs)
        except BaseException:  # SLURM refused a part, or a person, or the end of their session, interrupts: no part is of use
            if not dry and cluster.cluster == "slurm":
                slurm.cancel(started.jobs)
            raise
        if not dry:
            kept = {**asdict(asked), "cluster": name, "snapshot": code.name, "time": time.time(), "jobs": started.jobs}
            (folders.runs / "launches").mkdir(exist_ok=True)
            write_json(folders.runs / "launches" / f"{started.id}.json", {"table": experiment.table, **kept})
    return started


def stay(asked: Asked, name: str, began: float, tell: Callable[[str], None], jobs: int | None = None) -> None:
    """Until every run is done or has failed: submit again what is lost, and what failed by a node's fault.

    tell: is given a line for each.  jobs: as for `launch`. A run that is lost again and again without getting on, or that SLURM
    refuses as often, is left at that.
    """
    experiment = asked.chosen()
    folders = study.Folders(experiment.root)
    slurm_cluster = clusters.find(name).cluster == "slurm"
    progress: dict[str, list[int]] = {}
    while True:
        queue = slurm.queue() if slurm_cluster else {}
        if queue is not None:
            todo = [run for run in study.outstanding(experiment, folders) if study.next_task(run, folders.runs)]
            idle = [run for run in todo if not is_in_flight(run, folders.runs, queue)]
            failed = [run for run in idle if study.failure_since(run, folders.runs, began)]
            lost = [run for run in idle if run not in failed or broken_nodes([run], folders.runs)]
            lost = [run for run in lost if not _was_cancelled(run, folders.runs)]
            for run in lost:
                progress.setdefault(study.name_of(run), []).append(study.progress(run, folders.runs))
            lost = [run for run in lost if progress[study.name_of(run)].count(progress[study.name_of(run)][-1]) <= MOST_IN_VAIN]
            if lost:
                names = ", ".join(map(study.name_of, lost))
                try:
                    launch(asked, name, only=lambda run, _runs, again=tuple(lost): run in again, jobs=jobs)
                    tell(f"submitted again: {names}")
                except ValueError as error:  # SLURM refuses, or does not answer just now
                    tell(f"could not submit again {names}: {error}")
            elif len(idle) == len(todo):
                if given_up := [run for run in idle if run not in failed]:
                    names = ", ".join(map(study.name_of, given_up))
                    tell(f"left at that: {names} (cancelled, or lost {MOST_IN_VAIN} times at the same place; see `genae logs`)")
                return
        time.sleep(LOOK_EVERY_SECONDS)


def asked_last(asked: Asked) -> tuple[Asked, str]:
    """What an experiment's last launch was asked for, but for the rows and seeds of `asked`; and the name of the cluster.

    Raises ValueError where it was never launched.
    """
    table, runs = _table_of(asked)
    kept = [read_json(one) for one in sorted((runs / "launches").glob("*.json"), reverse=True)]
    last = next((one for one in kept if one["table"] == table), None)
    if not last:
        raise ValueError(f"{table} was not launched from here; `genae launch {asked.experiment}` does")
    launched = {one.seed for one in announced(runs) if (one.table, one.scale) == (table, last["scale"])}
    seeds = asked.seeds or tuple(sorted(launched)) or None
    return replace(asked, scale=last["scale"], seeds=seeds, overrides=tuple(last["overrides"])), last["cluster"]


def cancel(asked: Asked) -> tuple[list[str], dict[str, list[str]]]:
    """Cancel the jobs that work on or wait for runs of an experiment's table, all of them or those of some rows and seeds.

    It goes by what run directories tell, whatever the experiment's file says by now. Returns the ids of the jobs; and of those
    left alone, because other runs that are under way need them too, {id: names of these}. Raises ValueError for an unknown row.
    """
    table, runs = _table_of(asked)
    every = announced(runs)
    rows = sorted({one.row for one in every if one.table == table})
    for row in asked.rows or ():
        if row not in rows:
            raise ValueError(f"no row {row!r} of {table} was launched from here; {suggestion(row, rows)}")
    submitted = [job for one in every for job in one.jobs if job]
    queue = _queue() if any(job["cluster"] == "slurm" for job in submitted) else {}

    def alive(one: Announced) -> dict[str, Mapping[str, Any]]:
        return {job["job"]: job for job in one.jobs if job and in_flight(job, queue)}

    def is_meant(one: Announced) -> bool:
        return one.table == table and (not asked.rows or one.row in asked.rows) and (not asked.seeds or one.seed in asked.seeds)

    found: dict[str, Mapping[str, Any]] = {}
    needed: dict[str, list[str]] = {}
    for one in every:
        if is_meant(one):
            found |= alive(one)
        elif one.jobs[-1] and in_flight(one.jobs[-1], queue):
            for job in alive(one):
                needed.setdefault(job, []).append(one.name)
    ended = [job for job in found if job not in needed]
    slurm.cancel([job for job in ended if found[job]["cluster"] == "slurm"])
    for job in (job for job in ended if found[job]["cluster"] == "local"):
        os.kill(int(job), signal.SIGTERM)  # to submitit's controller, which passes it on
    for path in {path for one in every if is_meant(one) for path in (*one.paths, one.last)}:
        place = RunDir(path)
        kinds = read_json(place.job) or {}
        marked = {kind: job | {"cancelled": True} for kind, job in kinds.items() if job["job"] in ended}
        if marked:
            write_json(place.job, kinds | marked)
    return sorted(ended), {job: names for job, names in needed.items() if job in found}


def is_in_flight(run: RunSpec, runs: Path, queue: Mapping[str, slurm.Queued]) -> bool:
    """Whether somebody holds the run's last directory, or a job waits or works for all that is still to be done."""
    from genae.trainer import is_trained

    places = study.directories(run, runs)
    if places[-1].live_owner():
        return True
    to_train = [place for index, place in enumerate(places[: len(run.stages)]) if not is_trained(run, index, runs)]
    jobs = [job_in_flight(places[-1], "measure", queue), *(job_in_flight(place, "train", queue) for place in to_train)]
    return None not in jobs


def was_tried(run: RunSpec, runs: Path) -> bool:
    """Whether the run was taken on, and it or a stage that it needs has failed or was submitted."""
    places = study.directories(run, runs)
    mine = any((row["table"], row["row"]) == (run.table, run.row) for row in read_json(places[-1].rows) or [])
    return mine and any(place.failure.exists() or place.job.exists() for place in places)


def _was_cancelled(run: RunSpec, runs: Path) -> bool:
    """Whether a job that had the run, or a part of it, was ended by `cancel`."""
    return any(job.get("cancelled") for place in study.directories(run, runs) for job in (read_json(place.job) or {}).values())


def _not_announced(run: RunSpec, runs: Path) -> list[str]:
    """Columns of a run that its directory does not know of: its jobs were submitted without."""
    known = {column for row in read_json(study.directories(run, runs)[-1].rows) or [] for column in row["columns"]}
    return [column.id for column in run.columns if column.id not in known]


def _table_of(asked: Asked) -> tuple[str, Path]:
    """The table of an experiment, and its project's folder of runs; the file's rows are not resolved."""
    path = find(asked.experiment)
    return read(path).get("table"), study.Folders(project_root(path)).runs


@contextlib.contextmanager
def _hangup_interrupts() -> Iterator[None]:
    """A terminal that is gone, and SIGTERM, are as a Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _queue() -> Mapping[str, slurm.Queued]:
    """SLURM's queue. Raises ValueError where it does not answer, asked several times."""
    for _ in range(ASK_AGAIN):
        queue = slurm.queue()
        if queue is not None:
            return queue
        time.sleep(LOOK_EVERY_SECONDS)
    raise ValueError("SLURM does not answer (squeue), so it cannot be told what is under way already; try again later")


def check_data(todo: Iterable[RunSpec]) -> None:
    """Open what these runs read, here, where there may be a network: a job would stop without. Raises ValueError."""
    from genae.data.datasets import open_dataset

    seen: list[tuple[Mapping[str, Any], str]] = []
    for run in todo:
        elsewhere = [column.measure_on for column in run.columns if column.measure_on]
        others = [({k: v for k, v in on.items() if k not in ("split", "count")}, on.get("split", "test")) for on in elsewhere]
        for spec, split in [(run.data, "train"), (run.data, "test"), *others]:
            if (spec, split) not in seen:
                open_dataset(spec, split)
                seen.append((spec, split))


def missing_weights(todo: Iterable[RunSpec]) -> list[str]:
    """What is not here of the published weights that columns of these runs need, with the commands that fetch it."""
    from genae.features.weights import MissingWeights, find
    from genae.registry import METRICS

    metrics = {json.dumps(column.metric, sort_keys=True) for run in todo for column in run.columns}
    missing = set()
    for spec in metrics:
        used = getattr(METRICS.build(json.loads(spec)), "weights", dict)()
        if used.get("sha256", "") is None:
            try:
                find(used["weights"])
            except MissingWeights as error:
                missing.add(str(error))
    return sorted(missing)
