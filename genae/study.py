"""An experiment's runs: what is done, in flight and to do; who does it; what came of it.

`genae run` starts workers on it. A worker takes the first stage or evaluation that nobody holds, does it, and looks again,
until nothing is left that it could do; so rows with an equal first stage train it once, and what waits for a stage waits for
its run directory. Nothing here remembers anything: the state is in the run directories and in results/.
"""

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genae import results
from genae.experiment import import_modules
from genae.rundir import RunDir, Taken, is_running, locked, read_json, this_job, write_json
from genae.spec import Column, Experiment, RunSpec, StageSpec
from genae.stop import Interrupted, Stop

if TYPE_CHECKING:
    from genae.parallel import Group

POLL_SECONDS = 0.3
DIM_TO_TRY = 4  # of codes, for a density that is built to see whether it can be


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

    def pictures_of(self, run: RunSpec) -> Path:
        """The collected pictures of one run."""
        return results.figures_path(self.results, run.table, run.row, run.data_name, run.seed)

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
    mine = [record for record in records if record["identity"] == run.identity]
    digest = _train_digest(json.dumps(run.data))
    return all(
        any(_answers(record, column) and digest in (None, record["data"]["train"]) for record in mine) for column in run.columns
    )


def is_pictured(run: RunSpec, folder: Path) -> bool:
    """Whether every picture of a run that only shows some stands in `folder`, drawn of this identity."""
    drawn = [results.texts_of(picture) for picture in folder.glob("*.png")]
    mine = {texts.get("settings") for texts in drawn if json.loads(texts.get("made_by", "{}")).get("identity") == run.identity}
    return mine >= {json.dumps(figure, sort_keys=True) for figure in run.figures}


def outstanding(experiment: Experiment, folders: Folders, *, retrain: bool = False) -> list[RunSpec]:
    """The runs that `genae run` would work on, in the order of the file."""
    records = results.read(folders.records(experiment.table))

    def is_collected(run: RunSpec) -> bool:
        return is_recorded(run, records) if run.columns else is_pictured(run, folders.pictures_of(run))

    return [run for run in experiment.runs if retrain or not is_collected(run)]


def check_densities(todo: Iterable[RunSpec]) -> None:
    """Build what trains a density on codes, which is begun only when the autoencoder is trained. Raises ValueError."""
    seen: list[tuple[Any, ...]] = []
    for run, stage in [(one, stage) for one in todo for stage in one.stages if stage.density]:
        looked_at = stage.density, stage.objective, stage.keep_best, run.data
        if looked_at not in seen:
            seen.append(looked_at)
            try:
                _check_density(run, stage)
            except ValueError as error:
                raise ValueError(f"row {run.row!r}, stage {stage.name!r}: {error}") from None


def _check_density(run: RunSpec, stage: StageSpec) -> None:
    from genae import checkpoint
    from genae.data.datasets import open_dataset
    from genae.registry import OBJECTIVES

    density = checkpoint.untrained_density(stage.density, DIM_TO_TRY, run.seed)
    lacking = OBJECTIVES.build(stage.objective).needs - density.provides
    if lacking:
        raise ValueError(
            f"objective {stage.objective['name']!r} needs {', '.join(sorted(lacking))}, which a density does not provide"
        )
    if stage.keep_best and stage.keep_best["split"] == "validation":
        open_dataset(run.data, "validation")


def announce(todo: Iterable[RunSpec], runs: Path) -> None:
    """Leave in each run's directory which rows it serves, before anything starts: what `genae status` goes by."""
    for run in todo:
        places = directories(run, runs)
        mine = {
            "table": run.table,
            "row": run.row,
            "data_name": run.data_name,
            "seed": run.seed,
            "scale": run.scale,
            "columns": [column.id for column in run.columns],
            "stages": [
                {"name": stage.name, "directory": place.path.name, "total_images": stage.schedule.total_images}
                for stage, place in zip(run.stages, places, strict=False)
            ],
        }
        places[-1].path.mkdir(parents=True, exist_ok=True)
        known = read_json(places[-1].rows) or []
        others = [row for row in known if any(row[key] != mine[key] for key in ("table", "row", "data_name", "seed"))]
        if [*others, mine] != known:
            write_json(places[-1].rows, [*others, mine])


def next_task(run: RunSpec, runs: Path, upto: int | None = None) -> Task | None:
    """What is to be done first for this run; None when its run directory holds every record and picture.

    upto: the number of the stage whose end is enough, where nothing is to be measured.
    """
    from genae.evaluator import is_drawn
    from genae.trainer import is_trained

    places = directories(run, runs)
    for index, _ in enumerate(run.stages):
        if not is_trained(run, index, runs):
            return Task(run, index, places[index])
        if index == upto:
            return None
    if is_recorded(run, results.read(places[-1].records)) and is_drawn(run, places[-1]):
        return None
    return Task(run, None, places[-1])


def failure_since(run: RunSpec, runs: Path, began: float) -> Failure | None:
    """The failure of the run, or of a stage it shares with others, for the command that began then."""
    for place in directories(run, runs):
        failed = read_json(place.failure)
        if failed and failed["time"] >= began:
            return Failure(run, failed["reason"], place.failure)
        if place.died_for(began):
            return Failure(run, "the process that worked on it died (killed, or out of memory?)", place.owner)
    return None


def work(
    todo: Sequence[RunSpec], runs: Path, began: float, stop: Stop, upto: int | None = None, group: "Group | None" = None
) -> None:
    """Do what is outstanding of `todo`, beside any number of other workers. Returns when no run is left that could be helped.

    upto: the number of the stage to stop after; by default every stage is trained, and the run measured and drawn.
    group: the processes that train each run together (parallel.join), each of which calls this. Process 0 does all that is said
    here; the others help it train whatever it takes on, until it leaves the group.
    A run that fails leaves failure.json in its directory and does not keep the others from being done.
    """
    if group and not group.leads:
        _assist(group)
        return
    while not stop.requested:
        tasks = [task for run in todo if not failure_since(run, runs, began) and (task := next_task(run, runs, upto))]
        if not tasks:
            return
        for task in tasks:
            try:
                with task.directory.claim(began):
                    _do(task, runs, stop, group)
            except Taken:
                continue
            break
        else:
            time.sleep(POLL_SECONDS)


def start_work(
    todo: Sequence[Mapping[str, Any]], runs: str, began: float, parent: tuple[int, str | None], gpus: str | None
) -> None:
    """A worker process, or one of several that share each run: `work` on runs given as plain values, while its parent lives.

    gpus: what CUDA_VISIBLE_DEVICES is to be. A worker heeds SIGTERM and SIGUSR2; SIGINT is for whoever sits at the terminal.
    """
    with Stop().on_signals(signal.SIGTERM, signal.SIGUSR2) as stop:  # first: submitit ignores SIGTERM while we import
        threading.Thread(target=_stop_with, args=(parent, stop), daemon=True).start()
        if gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus  # before torch is imported
        from genae.parallel import join

        specs = [RunSpec.from_dict(values) for values in todo]
        for spec in specs:
            import_modules(spec.imports, spec.root)
        with join() as group:
            work(specs, Path(runs), began, stop, group=group)


def collect(experiment: Experiment, folders: Folders) -> list[str]:
    """Gather the records, pictures and curves of the experiment's runs into results/: what a report is drawn from.

    A run whose records stand there under another row's name (renamed, or equal to it) gets them under its own.
    Returns what had to be done to pictures to keep them small, a sentence each.
    """
    from genae.evaluator import picture_of

    folders.runs.mkdir(parents=True, exist_ok=True)
    with locked(folders.runs / ".collecting"):  # what another command gathers meanwhile must not be lost
        gathered, notes = [], []
        collected = results.read(folders.records(experiment.table))
        for run in experiment.runs:
            places = directories(run, folders.runs)
            belongs = {"table": experiment.table, "row": run.row, "data_name": run.data_name, "scale": experiment.scale}
            measured = results.read(places[-1].records)
            for record in [*collected, *measured]:
                if record["identity"] == run.identity and any(_answers(record, column) for column in run.columns):
                    gathered.append(record | belongs)
            if measured if run.columns else places[-1].figures.is_dir():
                notes += results.collect_pictures(
                    places[-1].figures,
                    folders.pictures_of(run),
                    limit_bytes=results.LIMIT_BYTES if run.columns else results.ALONE_LIMIT_BYTES,
                    progress=[place.progress for place in places],
                    only={picture_of(figure) for figure in run.figures},
                )
        if gathered:
            results.collect(folders.records(experiment.table), gathered)
        return notes


def warnings_since(run: RunSpec, runs: Path, began: float) -> list[str]:
    """What a person should know of the run's stages though nothing failed."""
    return [text for place in directories(run, runs) for text in place.warnings_since(began)]


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
    return (run.stages[task.stage].name, read_json(task.directory.status) or {}) if held else ("waiting", {})


def _assist(group: "Group") -> None:
    """Help process 0 train stage after stage, of whichever runs it says, until it leaves."""
    from genae.trainer import assist

    with group.task():
        while True:
            said = group.hear()
            with group.task():
                assist(said["run"], said["stage"], group)


def _do(task: Task, runs: Path, stop: Stop, group: "Group | None") -> None:
    """Do a task that this process holds, unless it was done between looking and claiming; keep why it failed.

    Raises what broke a group: nothing is left that could train.
    """
    from genae.evaluator import evaluate
    from genae.parallel import ALONE
    from genae.trainer import train

    group = group or ALONE
    now = next_task(task.run, runs)
    if not now or now.stage != task.stage:
        return
    task.directory.failure.unlink(missing_ok=True)
    try:
        if task.stage is None:
            evaluate(task.run, runs, stop=stop)
        else:
            with group.task({"run": task.run.to_dict(), "stage": task.stage}):
                train(task.run, task.stage, runs, stop=stop, group=group)
        then = next_task(task.run, runs)
        if then and then.stage == task.stage:
            raise RuntimeError("its work left it where it was; this is a fault of genae's")
    except Interrupted:
        return  # what is done is kept; `stop` ends the worker
    except Exception as error:  # any failure of one run: told, kept, and no reason for the others to stop
        if task.directory.is_held():
            keep_failure(task.directory, error)
        else:  # another process has taken it over: nothing more is written there
            print(f"genae: {error}", file=sys.stderr, flush=True)
        if group.broken:
            raise


def keep_failure(directory: RunDir, error: Exception, *, broken_node: bool = False) -> None:
    """Keep why work in a run directory failed. broken_node: the machine is at fault, as others may have been before it."""
    directory.path.mkdir(parents=True, exist_ok=True)
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    text = "".join(traceback.format_exception(error))
    job = this_job()
    broken = [*(read_json(directory.failure) or {}).get("broken_nodes", ()), job["node"]] if broken_node else []
    write_json(directory.failure, {"time": time.time(), "reason": reason, "traceback": text, "broken_nodes": broken} | job)


def _answers(record: Mapping[str, Any], column: Column) -> bool:
    """Whether a record is of this column as it is set now; one that waits for weights is while they are missing."""
    asked = {"metric": column.metric, "measure_on": column.measure_on}
    if record["column"] != column.id or record["settings"] != asked:
        return False
    missing = record.get("missing_weights")
    if not missing:
        return True
    from genae.features.weights import MissingWeights, find

    try:
        find(missing)
    except MissingWeights:
        return True
    return False


@functools.lru_cache
def _train_digest(data: str) -> str | None:
    """The digest of the training images of a data spec (as JSON); None where they are not prepared on this machine."""
    from genae.data.datasets import NotPrepared, open_dataset

    with contextlib.suppress(NotPrepared):
        return open_dataset(json.loads(data), "train").digest
    return None


def _stop_with(parent: tuple[int, str | None], stop: Any) -> None:
    """Ask to stop once the parent process is gone: a killed command must not leave its workers behind."""
    while is_running(*parent):
        time.sleep(POLL_SECONDS)
    stop.requested = True


def watch(todo: Sequence[RunSpec], folders: Folders, began: float, jobs: Sequence[Any], console: Any) -> None:
    """Show each run's progress, images/s and time left until the workers have ended; without a terminal, a line per change.

    A worker's own death sinks nothing: what it worked on has failed (failure_since), and what it did not is unfinished.
    """
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
                rate = f"{status['images_per_second']:,.0f} images/s" if status else ""
                bars.update(tasks[name], completed=images_seen(run, folders.runs, status), state=state, rate=rate)
                if not console.is_terminal and shown.get(name) != state:
                    console.print(f"{name}: {state}", markup=False)
                shown[name] = state

        while not all(job.done() for job in jobs):
            tell()
            time.sleep(POLL_SECONDS)
        tell()


def progress(run: RunSpec, runs: Path) -> int:
    """How much of a run its directories hold: a number that every checkpoint, record and picture makes larger."""
    places = directories(run, runs)
    measured = len(results.read(places[-1].records)) + len(read_json(places[-1].drawn) or [])
    return measured + sum(place.images_kept() for place in places)


def images_seen(run: RunSpec, runs: Path, status: Mapping[str, Any]) -> int:
    """Images trained on over all stages: the finished ones whole, the present one from its status."""
    from genae.trainer import is_trained

    seen = 0
    for index, stage in enumerate(run.stages):
        if not is_trained(run, index, runs):
            return seen + status.get("images_seen", 0)
        seen += stage.schedule.total_images
    return seen
