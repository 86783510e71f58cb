"""An experiment's runs: what is done, in flight and to do; who does it; what came of it.

`genae run` starts workers on it. A worker takes the first stage or evaluation that nobody holds, does it, and looks again,
until nothing is left that it could do; so rows with an equal first stage train it once, and what waits for a stage waits for
its run directory. Nothing here remembers anything: the state is in the run directories and in results/.
"""

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genae import results
from genae.experiment import import_modules
from genae.rundir import RunDir, Taken, is_running, read_json, write_json
from genae.spec import Column, Experiment, RunSpec

POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Folders:
    """Where a project keeps what its experiments make."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def runs(self) -> Path:
        return self.results / "runs"

    @property
    def logs(self) -> Path:
        return self.runs / "logs"

    def records(self, table: str) -> Path:
        return results.table_path(self.results, table)

    def pictures(self, table: str) -> Path:
        return self.results / table / "figures"

    def report(self, table: str) -> Path:
        return self.root / "reports" / table


@dataclass(frozen=True)
class Task:
    """The next thing to do for a run: train stage number `stage`, or measure it (None)."""

    run: RunSpec
    stage: int | None
    directory: RunDir


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why, in one line."""

    run: RunSpec
    reason: str
    log: Path


def directories(run: RunSpec, runs: Path) -> list[RunDir]:
    """The directory of each stage, in order; of a row that trains nothing, the one where it is measured."""
    identities = [stage.identity for stage in run.stages] or [run.identity]
    return [RunDir.of(runs, run.label, identity) for identity in identities]


def is_recorded(run: RunSpec, records: Iterable[Mapping[str, Any]]) -> bool:
    """Whether every column of the run has a number (or a reason for having none) in `records`, of this identity and these data.

    A cell that waited for weights counts only while they are still missing. Where the data are not on this machine, nothing
    could be trained on them either, and the records are taken at their word.
    """
    known = {record["column"]: record for record in records if record["identity"] == run.identity}
    wanted = [column for column in run.columns if not column.removed]
    if not all(column.id in known and _answers(known[column.id], column) for column in wanted):
        return False
    digest = _train_digest(run)
    return digest is None or all(record["data"]["train"] == digest for record in known.values())


def outstanding(experiment: Experiment, folders: Folders, *, retrain: bool = False) -> list[RunSpec]:
    """The runs that `genae run` would work on, in the order of the file."""
    records = results.read(folders.records(experiment.table))
    return [run for run in experiment.runs if retrain or not is_recorded(run, records)]


def next_task(run: RunSpec, runs: Path) -> Task | None:
    """What is to be done first for this run; None when its run directory holds every record."""
    from genae.trainer import is_trained

    places = directories(run, runs)
    for index, _ in enumerate(run.stages):
        if not is_trained(run, index, runs):
            return Task(run, index, places[index])
    return (
        None
        if is_recorded(run, results.read(places[-1].records)) and _pictured(run, places[-1])
        else Task(run, None, places[-1])
    )


def failure_since(run: RunSpec, runs: Path, began: float) -> Failure | None:
    """The failure of the run, or of a stage it shares with others, in a start later than `began`."""
    for place in directories(run, runs):
        failed = read_json(place.failure)
        if failed and failed["time"] >= began:
            return Failure(run, failed["reason"], place.failure)
    return None


def work(todo: Sequence[RunSpec], runs: Path, began: float, stop: Any) -> None:
    """Do what is outstanding of `todo`, beside any number of other workers. Returns when no run is left that could be helped.

    A run that fails leaves failure.json in its directory and does not keep the others from being done.
    """
    while not stop.requested:
        tasks = [task for run in todo if not failure_since(run, runs, began) and (task := next_task(run, runs))]
        if not tasks:
            return
        for task in tasks:
            try:
                with task.directory.claim():
                    now = next_task(task.run, runs)  # it may have been done between looking and claiming
                    if now and now.stage == task.stage:
                        _do(task, runs, stop)
            except Taken:
                continue
            break
        else:
            time.sleep(POLL_SECONDS)


def start_work(todo: Sequence[Mapping[str, Any]], runs: str, began: float, parent: tuple[int, str | None]) -> None:
    """A worker process: `work` on runs given as plain values, while the process that asked for it lives."""
    from genae.trainer import Stop

    specs = [RunSpec.from_dict(values) for values in todo]
    for spec in specs:
        import_modules(spec.imports, spec.root)
    with Stop().on_signals(signal.SIGTERM, signal.SIGINT, signal.SIGUSR2) as stop:
        threading.Thread(target=_stop_with, args=(parent, stop), daemon=True).start()
        work(specs, Path(runs), began, stop)


def collect(experiment: Experiment, folders: Folders) -> list[str]:
    """Gather the records, pictures and curves of the experiment's runs into results/: what a report is drawn from.

    Returns what had to be done to pictures to keep them small, a sentence each.
    """
    gathered, notes = [], []
    for run in experiment.runs:
        places = directories(run, folders.runs)
        wanted = {column.id for column in run.columns if not column.removed}
        belongs = {"table": experiment.table, "row": run.row, "data_name": run.data_name, "scale": experiment.scale}
        mine = [record for record in results.read(places[-1].records) if record["column"] in wanted]
        gathered += [record | belongs for record in mine if record["identity"] == run.identity]
        if mine:
            destination = results.figures_path(folders.results, experiment.table, run.row, run.data_name, run.seed)
            notes += results.collect_pictures(places[-1].figures, destination, progress=[place.progress for place in places])
    results.collect(folders.records(experiment.table), gathered)
    return notes


def name_of(run: RunSpec) -> str:
    """What a person calls a run of an experiment: row, data set, seed."""
    return f"{run.row}/{run.data_name}/s{run.seed}"


def state_of(run: RunSpec, folders: Folders, began: float) -> tuple[str, Mapping[str, Any]]:
    """What a run is doing, in a word or two, and the status of the stage that it is in."""
    if failure_since(run, folders.runs, began):
        return "failed", {}
    task = next_task(run, folders.runs)
    if task is None:
        return "done", {}
    held = task.directory.live_owner() is not None
    if task.stage is None:
        return ("measuring" if held else "waiting"), {}
    return (run.stages[task.stage].name if held else "waiting"), read_json(task.directory.status) or {}


def _do(task: Task, runs: Path, stop: Any) -> None:
    from genae.evaluator import evaluate
    from genae.trainer import Interrupted, train

    task.directory.failure.unlink(missing_ok=True)
    try:
        if task.stage is None:
            evaluate(task.run, runs)
        else:
            train(task.run, task.stage, runs, stop=stop)
    except Interrupted:
        return  # the checkpoint is written; `stop` ends the worker
    except Exception as error:  # any failure of one run: told, kept, and no reason for the others to stop
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        write_json(task.directory.failure, {"time": time.time(), "reason": reason, "traceback": traceback.format_exc()})


def _answers(record: Mapping[str, Any], column: Column) -> bool:
    if record["settings"] != {"metric": column.metric, "measure_on": column.measure_on}:
        return False
    missing = record.get("missing_weights")
    if missing:
        from genae.features.weights import MissingWeights, find

        try:
            find(missing)
        except MissingWeights:
            return True
        return False
    return True


def _pictured(run: RunSpec, place: RunDir) -> bool:
    return not run.figures or read_json(place.drawn) == list(run.figures)


def _train_digest(run: RunSpec) -> str | None:
    """The digest of the run's training images; None where they are not prepared on this machine."""
    from genae.data.datasets import NotPrepared, open_dataset

    with contextlib.suppress(NotPrepared):
        return open_dataset(run.data, "train").digest
    return None


def _stop_with(parent: tuple[int, str | None], stop: Any) -> None:
    """Ask to stop once the parent process is gone: a killed command must not leave its workers behind."""
    while is_running(*parent):
        time.sleep(POLL_SECONDS)
    stop.requested = True


def stop_workers(jobs: Sequence[Any]) -> None:
    """Ask workers to write a checkpoint and stop, and wait until they have."""
    for job in jobs:
        job.cancel()
    while not all(job.done() for job in jobs):
        time.sleep(POLL_SECONDS)


def watch(todo: Sequence[RunSpec], folders: Folders, began: float, jobs: Sequence[Any], console: Any) -> None:
    """Show each run's progress, images/s and time left until the workers have ended; without a terminal, a line per change."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    layout = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[state]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    shown: dict[str, str] = {}
    with Progress(*layout, console=console, speed_estimate_period=20) as bars:
        tasks = {name_of(run): bars.add_task(name_of(run), total=run.total_images, state="waiting", rate="") for run in todo}

        def tell() -> None:
            for run in todo:
                name = name_of(run)
                state, status = state_of(run, folders, began)
                rate = (
                    f"{status['images_per_second']:,.0f} images/s"
                    if state in {stage.name for stage in run.stages} and status
                    else ""
                )
                bars.update(tasks[name], completed=images_seen(run, folders.runs, status), state=state, rate=rate)
                if not console.is_terminal and shown.get(name) != state:
                    console.print(f"{name}: {state}", markup=False)
                shown[name] = state

        while not all(job.done() for job in jobs):
            tell()
            time.sleep(POLL_SECONDS)
        tell()
    for job in jobs:
        if job.exception():  # not a run's failure, which is in its directory, but the worker's own
            raise job.exception()


def images_seen(run: RunSpec, runs: Path, status: Mapping[str, Any]) -> int:
    """Images trained on over all stages: the finished ones whole, the present one from its status."""
    from genae.trainer import is_trained

    seen = 0
    for index, stage in enumerate(run.stages):
        if not is_trained(run, index, runs):
            return seen + status.get("images_seen", 0)
        seen += stage.schedule.total_images
    return seen
