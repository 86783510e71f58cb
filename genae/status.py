"""What runs are doing, from run directories, this machine's processes and one look at SLURM's queue.

Whoever works on a run holds its directory; what nobody holds waits in a queue, is done, has failed, or is lost. No experiment
is resolved and no torch imported, so that a thousand runs are told of at once, on a log-in node too.
"""

import contextlib
import functools
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genae import results, slurm
from genae.announced import GLANCE_SECONDS, Announced, Glance, announced
from genae.registry import suggestion
from genae.rundir import DEAD_AFTER_SECONDS, is_running

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDEST = 1000  # characters of a line where there is no terminal
LOOK_EVERY_SECONDS = 5.0  # while it is watched; each look asks SLURM once
AT_REST = ("done", "failed", "lost", "unfinished")
OTHERS = ("measuring", "starting", "queued", *AT_REST)  # a state that is none of these is a stage's name
COLOURS = {"done": "green", "failed": "red", "lost": "yellow", "unfinished": "yellow", "queued": "dim"}
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")  # in squeue's words
LAST_WORD = re.compile(r"^slurmstepd[^:]*: error: (?:\*\*\* )?(.*?)(?: \*\*\*)?$", re.MULTILINE)
LAST_WORD_WITHIN = 4096  # bytes of the end of a job's log

Queue = Callable[[], dict[str, slurm.Queued] | None]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run is doing.

    name: "row/data/s0".  state: "done"; "failed"; the name of the stage that is being trained; "measuring"; "queued", its job
    waits; "starting", its job runs but has not taken it up, or is ending; "lost", it was submitted, but its job is gone and
    nobody works on it; "unfinished", nobody works on it and it was never submitted.
    node: where it is worked on, or failed.  images_seen, total_images: over all stages; of a run that is not being trained, up
    to its last checkpoint.  seconds_left: of training, all stages; None where the pace is not known.  loss: the sum of what was
    logged last, of the stage it is in.  restarts: starts after the first, over all stages.  reason: why it failed, waits or is
    lost, in one line.  job: "12_3" in SLURM's queue, or a process's number.  directories: one a stage, in order.
    """

    name: str
    table: str
    row: str
    data_name: str
    seed: int
    scale: str
    state: str
    node: str | None
    images_seen: int
    total_images: int
    images_per_second: float | None
    seconds_left: float | None
    loss: float | None
    restarts: int
    reason: str | None
    job: str | None
    directories: tuple[Path, ...]

    @property
    def in_flight(self) -> bool:
        """Whether somebody works on it, or will without being asked again."""
        return self.state not in AT_REST

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"directories": [str(place) for place in self.directories]}


def read(runs: Path, table: str | None = None) -> list[RunState]:
    """The state of every run in the folder `runs`, or of one table's, by table, row, data set and seed.

    Of several with one name, as when the experiment was changed, it is the one announced last, and those in flight.
    """
    queue = functools.cache(slurm.queue)  # asked once, and only if a run is not done
    found = [(run, _state(run, queue)) for run in announced(Path(runs)) if table in (None, run.table)]
    last = {run.key: run for run, _ in sorted(found, key=lambda pair: pair[0].when)}
    told = [(run, state) for run, state in found if state.in_flight or last[run.key] is run]
    ends = slurm.ended(state.job for run, state in told if state.state == "lost" and _job(run, state)["cluster"] == "slurm")
    return [_with_its_end(run, state, ends) for run, state in sorted(told, key=lambda pair: (pair[0].key, pair[0].when))]


def table_of(experiment: str, root: Path) -> str:
    """The table meant by an experiment's file, by its name under experiments/, or by a table's own name. Resolves nothing."""
    path = _file_of(experiment, root)
    if path is None:
        return experiment
    from genae import yaml_source

    return str(yaml_source.read(path).get("table", experiment))


def why_none(runs: Path, experiment: str | None, root: Path) -> str:
    """Why there is no state to tell. Raises ValueError, with the tables there are, where `experiment` is none."""
    known = sorted({run.table for run in announced(Path(runs))})
    if experiment and known and not _file_of(experiment, root):
        raise ValueError(f"there are no runs of {experiment!r}; {suggestion(experiment, known)}")
    return (
        "no run has been started yet"
        if not known
        else f"no run of it has been started yet; there are runs of {', '.join(known)}"
    )


def _file_of(experiment: str, root: Path) -> Path | None:
    named = Path(root) / "experiments" / f"{experiment.removeprefix('experiments/').removesuffix('.yaml')}.yaml"
    return next((path for path in (Path(experiment), named) if path.is_file()), None)


def log_of(job: Mapping[str, Any]) -> tuple[Path, Path]:
    """Where a submitted job writes its standard output and standard error."""
    from submitit.core.utils import JobPaths

    paths = JobPaths(folder=job["folder"], job_id=job["job"])
    return paths.stdout, paths.stderr


def _state(run: Announced, queue: Queue) -> RunState:
    """What a run is doing. Its jobs were read first, the queue is next, then all else: so what ends meanwhile is not lost."""
    if any(job and job["cluster"] == "slurm" for job in run.jobs) and not _Progress(run).is_measured:
        queue()
    now = _Progress(run)
    place, job = now.place, run.jobs[now.trained]
    failure = place.read(place.directory.failure)
    owner = None
    if place.has(place.directory.owner):
        with contextlib.suppress(OSError):
            owner = place.directory.live_owner(GLANCE_SECONDS)

    node = reason = number = None
    others_left = run.beside - now.recorded  # what is held, or fails, is then for another row that this training serves
    if now.is_measured and (others_left or not (owner or failure)):
        state = "done"
    elif owner:  # one that holds a measured run draws its pictures
        state = run.stages[now.trained].name if now.trained < len(run.stages) else "measuring"
        node, number = owner.get("node") or owner["host"], owner.get("job") or (job["job"] if job else None)
    else:
        state, node, reason, number = _while_nobody_works(job, failure, queue)
        if state in ("lost", "unfinished") and place.has(place.directory.owner):
            reason = "the process that worked on it died (killed, or out of memory?)"

    pace = now.images_per_second if owner else None
    seen, total = now.images_seen(bool(owner)), sum(stage.total_images for stage in run.stages)
    return RunState(
        name=run.name,
        table=run.table,
        row=run.row,
        data_name=run.data_name,
        seed=run.seed,
        scale=run.scale,
        state=state,
        node=node,
        images_seen=seen,
        total_images=total,
        images_per_second=pace,
        seconds_left=(total - seen) / pace if pace else None,
        loss=now.status.get("loss"),
        restarts=sum(max(0, len(starts) - 1) for starts in now.starts),
        reason=reason,
        job=number,
        directories=run.paths,
    )


class _Progress:
    """How far a run has come, by the files in its directories as they stand now."""

    def __init__(self, run: Announced) -> None:
        self.run = run
        self.glances = [Glance(path) for path in run.paths]
        reached = [glance.images_reached() for glance in self.glances]
        wanted = [stage.total_images for stage in run.stages]
        self.trained = next((k for k, total in enumerate(wanted) if reached[k] < total), len(wanted))
        self.place = self.glances[min(self.trained, len(self.glances) - 1)]  # where the next thing to do is done
        self._reached = sum(wanted[: self.trained]) + (reached[self.trained] if self.trained < len(wanted) else 0)
        self._before = sum(wanted[: self.trained])

    @functools.cached_property
    def recorded(self) -> set[str]:
        """The columns that stand in records.jsonl; none as long as there is a stage to train."""
        last = self.glances[-1]
        if self.trained < len(self.run.stages) or not last.has(last.directory.records):
            return set()
        with contextlib.suppress(OSError, ValueError):
            return {record["column"] for record in results.read(last.directory.records)}
        return set()

    @property
    def is_measured(self) -> bool:
        """Whether every stage is trained and every column recorded; of a run that only shows pictures, whether it drew them."""
        if self.trained < len(self.run.stages):
            return False
        if not self.run.columns:
            return self.glances[-1].has(self.glances[-1].directory.drawn)
        return self.run.columns <= self.recorded

    @functools.cached_property
    def starts(self) -> list[list[Mapping[str, Any]]]:
        """For each stage, its starts."""
        return [glance.read(glance.directory.provenance) or [] for glance in self.glances]

    @functools.cached_property
    def status(self) -> Mapping[str, Any]:
        """What the trainer of the present stage, or of the last, told last."""
        return self.place.read(self.place.directory.status) or {}

    @property
    def is_told(self) -> bool:
        """Whether `status` is of the present start of a stage that is not trained yet."""
        if self.trained == len(self.run.stages) or not self.status:
            return False
        starts = self.starts[self.trained]
        return self.status.get("time", 0.0) >= (starts[-1].get("time", 0.0) if starts else 0.0)

    @property
    def images_per_second(self) -> float | None:
        return self.status["images_per_second"] or None if self.is_told else None

    def images_seen(self, live: bool) -> int:
        """Over all stages: as the trainer tells while it lives, else as far as checkpoints reach."""
        return max(self._reached, self._before + self.status["images_seen"]) if live and self.is_told else self._reached


def _while_nobody_works(
    job: Mapping[str, Any] | None, failure: Mapping[str, Any] | None, queue: Queue
) -> tuple[str, str | None, str | None, str | None]:
    """(state, node, reason, job) of a run with something left to do that no living process holds."""
    asked = queue() if job and job["cluster"] == "slurm" else {}
    listed = (asked or {}).get(job["job"]) if job else None
    waits = listed is not None and listed.state in WAITING and listed.reason != slurm.NEVER
    # A failure stands unless the job came later, or waits to be started again.
    if failure and not waits and (not job or failure.get("job") == job["job"] or failure["time"] >= job["submitted"]):
        return "failed", failure.get("node"), failure["reason"], failure.get("job")
    if not job:
        return "unfinished", None, None, None
    if asked is None:
        return "queued", None, "squeue does not answer: whether its job still waits is not known", job["job"]
    if listed and listed.reason == slurm.NEVER:
        return "lost", None, f"its job {job['job']} waits for one that failed", job["job"]
    if listed:
        words = listed.reason if listed.state == "PENDING" else None if listed.state == "RUNNING" else listed.state
        return "queued" if waits else "starting", listed.node, words, job["job"]
    if job["cluster"] != "slurm":
        here = job["host"] == socket.gethostname()
        silent = time.time() - job["submitted"]
        if is_running(int(job["job"]), job["started"]) if here else silent < DEAD_AFTER_SECONDS:
            return "queued", job["host"], "waits for a worker", job["job"]
    return "lost", None, None, job["job"]


def _job(run: Announced, state: RunState) -> Mapping[str, Any]:
    """The job that a lost run was submitted as."""
    return next(job for job in run.jobs if job and job["job"] == state.job)


def _with_its_end(run: Announced, state: RunState, ends: Mapping[str, str]) -> RunState:
    """A lost run with what is known of its job's end: from accounting, else from what SLURM wrote last in its log."""
    if state.state != "lost":
        return state
    job = _job(run, state)
    if job["cluster"] != "slurm":
        return replace(state, reason=state.reason or f"its process {job['job']} on {job['host']} is gone")
    if state.job in ends:
        return replace(state, reason=f"SLURM ended its job {state.job}: {ends[state.job]}")
    said = _last_word(log_of(job)[1])
    return replace(state, reason=said or state.reason or f"its job {state.job} is not in the queue any more")


def _last_word(log: Path) -> str | None:
    """What SLURM wrote last in a job's log, such as "JOB 12 ON node1 CANCELLED AT 2024-05-01T12:00:00 DUE TO TIME LIMIT"."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_WORD_WITHIN))
            said = LAST_WORD.findall(file.read().decode(errors="replace"))
    except OSError:
        return None
    return said[-1] if said else None


# What a person is shown.


def counts(states: Sequence[RunState]) -> str:
    """How many runs are in which state, in one line."""
    tally = Counter(state.state if state.state in OTHERS else "training" for state in states)
    order = ("done", "training", "measuring", "starting", "queued", "unfinished", "lost", "failed")
    told = ", ".join(f"{tally[word]} {word}" for word in order if tally[word])
    return f"{len(states)} run{'s' if len(states) != 1 else ''}: {told}"


def table(states: Sequence[RunState]) -> "Table":
    """The states, a line each, without the columns in which nobody has anything to say. Only reasons give way for room."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    several = len({state.table for state in states}) > 1
    columns: dict[str, tuple[str, Callable[[RunState], str]]] = {
        "run": ("left", lambda state: f"{state.table}/{state.name}" if several else state.name),
        "state": ("left", lambda state: state.state),
        "node": ("left", lambda state: state.node or ""),
        "images": ("right", _images),
        "images/s": ("right", lambda state: f"{state.images_per_second:,.0f}" if state.images_per_second else ""),
        "time left": ("right", lambda state: _duration(state.seconds_left)),
        "loss": ("right", lambda state: "" if state.loss is None else f"{state.loss:.4g}"),
        "restarts": ("right", lambda state: str(state.restarts or "")),
        "reason": ("left", lambda state: state.reason or ""),
    }
    shown = {name: (side, cell) for name, (side, cell) in columns.items() if any(cell(state) for state in states)}
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name, (side, _) in shown.items():
        drawn.add_column(escape(name), justify=side, no_wrap=name != "reason")
    for state in states:
        style = {"state": COLOURS.get(state.state, "" if state.state in OTHERS else "cyan")}
        cells = {name: cell(state) for name, (_, cell) in shown.items()}
        drawn.add_row(*(Text(cell, style.get(name, ""), no_wrap=True, overflow="ellipsis") for name, cell in cells.items()))
    return drawn


def _images(state: RunState) -> str:
    if not state.total_images:
        return ""
    return f"{state.images_seen:,} of {state.total_images:,} {100 * state.images_seen // state.total_images:3d}%"


def _duration(seconds: float | None) -> str:
    """Minutes as "4:05", hours as "3:04:05", days as "2d 03:04"."""
    if seconds is None:
        return ""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}:{minute:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def show(states: Sequence[RunState], console: "Console") -> None:
    """Print the table and the counts; on a terminal, where a reason may have been cut, those of trouble once more and whole."""
    drawn = table(states)
    if not console.is_terminal:
        console.width = max(console.width, console.measure(drawn, options=console.options.update(width=WIDEST)).maximum)
    console.print(drawn)
    for state in states if console.is_terminal else ():
        if state.state in ("failed", "lost"):
            console.print(
                f"{state.state}: {state.table}/{state.name}: {state.reason}", markup=False, style=COLOURS[state.state]
            )
    console.print(counts(states), markup=False)


def watch(look: Callable[[], list[RunState]], console: "Console") -> list[RunState]:
    """Show the states live until nothing is in flight at two looks (between two tasks of a worker nobody holds anything).

    Returns the last. Where there are more runs than lines, those that are done are left to the counts.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    states, quiet = look(), 0
    with (
        Live(console=console, auto_refresh=False, vertical_overflow="ellipsis", transient=True) as live,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while quiet < 2:
            room = console.height - 3
            shown = states if len(states) <= room else [state for state in states if state.state != "done"]
            live.update(Group(table(shown), Text(counts(states))), refresh=True)
            time.sleep(LOOK_EVERY_SECONDS)
            states = look()
            quiet = 0 if any(state.in_flight for state in states) else quiet + 1
    show(states, console)
    return states
