"""An experiment's runs as jobs, through submitit: on SLURM, or on this machine.

On SLURM a launch is a few job arrays (genae.arrays). Nothing waits here: SLURM has the order, run directories have the state,
and launching again submits what is neither done nor under way. On this machine one process starts workers, as `genae run` does,
and collects when they have ended.
"""

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from genae import cluster as clusters
from genae import slurm, snapshot, study
from genae.arrays import Launch, Making, broken_nodes, job_in_flight
from genae.cluster import Cluster
from genae.experiment import Asked, find, project_root
from genae.jobs import MOST_IN_VAIN
from genae.rundir import locked, read_json, write_json
from genae.spec import RunSpec
from genae.yaml_source import read

LOOK_EVERY_SECONDS = 5.0  # while `--watch` stays
ASK_AGAIN = 3  # times


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
    Raises ValueError where SLURM refuses or does not answer, and where data that training needs are not here.
    """
    cluster = clusters.find(name)
    if dry and cluster.cluster != "slurm":
        raise ValueError(
            f"--dry-run shows what sbatch would get; the cluster {name!r} has no sbatch, and `genae show` tells its runs"
        )
    experiment = asked.chosen()
    folders = study.Folders(experiment.root)
    folders.logs.mkdir(parents=True, exist_ok=True)
    with locked(folders.runs / ".launching"):  # the second of two launches finds what the first has submitted
        queue = (slurm.queue() or {}) if dry else _queue(cluster)
        todo = study.outstanding(experiment, folders)
        busy = [run for run in todo if is_in_flight(run, folders.runs, queue)]
        todo = [run for run in todo if run not in busy and (not only or only(run, folders.runs))]
        started = Launch(f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}", todo, busy)
        if not todo:
            return started
        check_data(todo)
        started.warnings += [f"some columns wait: {text}" for text in missing_weights(todo)]
        code = snapshot.take(experiment.root, folders.runs / "snapshots")
        there = replace(asked, experiment=str(code / experiment.path.relative_to(experiment.root)), scale=experiment.scale)
        making = Making(started, there, folders, cluster, code, queue, dry)
        if not dry:
            study.announce(todo, folders.runs)
            last = [study.directories(run, folders.runs)[-1] for run in todo]
            stale = {job for place in last if (job := job_in_flight(place, "measure", making.queue))}
            slurm.cancel(stale if cluster.cluster == "slurm" else ())  # they wait for training that is gone
        try:
            making.arrays(todo) if cluster.cluster == "slurm" else making.supervisor(todo, jobs)
        except BaseException:  # SLURM refused a part, or somebody pressed Ctrl-C: the rest alone is of no use
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
    kept: dict[str, list[int]] = {}
    while True:
        queue = slurm.queue() if slurm_cluster else {}
        if queue is not None:
            todo = [run for run in study.outstanding(experiment, folders) if study.next_task(run, folders.runs)]
            idle = [run for run in todo if not is_in_flight(run, folders.runs, queue)]
            failed = [run for run in idle if study.failure_since(run, folders.runs, began)]
            lost = [run for run in idle if run not in failed or broken_nodes([run], folders.runs)]
            for run in lost:
                kept.setdefault(study.name_of(run), []).append(study.kept(run, folders.runs))
            lost = [run for run in lost if kept[study.name_of(run)].count(kept[study.name_of(run)][-1]) <= MOST_IN_VAIN]
            if lost:
                names = ", ".join(map(study.name_of, lost))
                try:
                    launch(asked, name, only=lambda run, _runs, again=tuple(lost): run in again, jobs=jobs)
                    tell(f"submitted again: {names}")
                except ValueError as error:  # SLURM refuses, or does not answer just now
                    tell(f"could not submit again {names}: {error}")
            elif len(idle) == len(todo):
                return
        time.sleep(LOOK_EVERY_SECONDS)


def asked_last(asked: Asked) -> tuple[Asked, str]:
    """What an experiment's last launch was asked for, but for the rows and seeds of `asked`; and the name of the cluster.

    Raises ValueError where it was never launched.
    """
    path = find(asked.experiment)
    table, root = read(path).get("table"), project_root(path)
    folder = study.Folders(root).runs / "launches"
    kept = [read_json(one) for one in sorted(folder.glob("*.json"), reverse=True)]
    last = next((one for one in kept if one["table"] == table), None)
    if not last:
        raise ValueError(f"{table} was not launched from here; `genae launch {asked.experiment}` does")
    return replace(asked, scale=last["scale"], overrides=tuple(last["overrides"])), last["cluster"]


def cancel(asked: Asked, name: str) -> list[str]:
    """Cancel the jobs, on the cluster called `name`, that work on or wait for these runs. Returns their ids."""
    experiment = asked.chosen()
    runs = study.Folders(experiment.root).runs
    queue = _queue(clusters.find(name))
    places = [place for run in experiment.runs for place in study.directories(run, runs)]
    found: dict[str, str] = {}
    for place in places:
        for kind in ("train", "measure"):
            if job := job_in_flight(place, kind, queue):
                found[job] = read_json(place.job)[kind]["cluster"]
    slurm.cancel([job for job, where in found.items() if where == "slurm"])
    for job in (job for job, where in found.items() if where == "local"):
        os.kill(int(job), signal.SIGTERM)  # to submitit's controller, which passes it on
    return sorted(found)


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
    """Whether the run, or a stage that it needs, has failed, or was submitted."""
    return any(place.failure.exists() or place.job.exists() for place in study.directories(run, runs))


def _queue(cluster: Cluster) -> Mapping[str, slurm.Queued]:
    """SLURM's queue; of a cluster that has none, {}. Raises ValueError where SLURM does not answer, asked several times."""
    if cluster.cluster != "slurm":
        return {}
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
