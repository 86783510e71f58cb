"""Where a run's log is, and following it.

A job that was submitted for a run is told in its directories (job.json); a worker of `genae run`, or of a launch on one
machine, is told in provenance.json once it has trained; while it lives it is found by its process.
"""

import codecs
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genae import slurm
from genae.registry import suggestion
from genae.rundir import RunDir, is_running, process_start, read_json
from genae.status import RunState, log_of

FILES_EVERY_SECONDS = 0.5  # how often a log that is followed is looked at
JOB_EVERY_SECONDS = 5.0  # how often it is asked whether its job goes on
MOST_CANDIDATES = 10


@dataclass(frozen=True)
class Log:
    """What works or worked on a run last, and where it writes.

    worker: what it is, for a person ("job 12_3 on node1").  is_over: whether it has ended.  paths: standard output, and error.
    """

    worker: str
    paths: tuple[Path, Path]
    is_over: Callable[[], bool]


def find(states: Sequence[RunState], asked: str) -> RunState:
    """The run meant by "table/row/data/s0", "row/data/s0", a directory's name, or a part of one of these that no other has.

    Raises ValueError with the runs that it could be.
    """

    asked = asked.rstrip("/")
    wanted = Path(asked).name if Path(asked).is_dir() else asked
    ways: list[Callable[[RunState], bool]] = [
        lambda state: wanted in (state.name, f"{state.table}/{state.name}", state.directories[-1].name),
        lambda state: wanted in [path.name for path in state.directories],  # an earlier stage's, which several may share
        lambda state: wanted in f"{state.table}/{state.name}",
        lambda state: any(wanted in path.name for path in state.directories),
    ]
    found = next((found for way in ways if (found := [state for state in states if way(state)])), [])
    if len({state.directories for state in found}) == 1:
        return found[0]
    if not found:
        every = [f"{state.table}/{state.name}" for state in states]
        raise ValueError(f"there is no run {asked!r}; {suggestion(asked, every[:MOST_CANDIDATES])}{_more(every)}")
    some = [f"{state.table}/{state.name}" for state in found]
    if len(set(some)) < len(some):  # one name, several settings
        some = [state.directories[-1].name for state in found]
    raise ValueError(f"{asked!r} could be {', '.join(some[:MOST_CANDIDATES])}{_more(some)}; give more of it")


def log(state: RunState, runs: Path) -> Log:
    """The log of what works on the run, or worked on it last. Raises ValueError, saying where to look, where none is known."""
    places, logs = [RunDir(path) for path in state.directories], runs / "logs"
    owners = [owner for place in places if (owner := place.live_owner())]
    at_work = next((found for owner in owners if (found := _at_work(owner, logs))), None)
    if at_work:
        return at_work
    starts = [start for place in places for start in read_json(place.provenance) or []]
    jobs = [job for place in places for job in (read_json(place.job) or {}).values()]
    known = [_worked(start, logs) for start in starts if start.get("worker")] + [_submitted(job, state) for job in jobs]
    if known:
        return max(known, key=lambda log: max(map(_changed, log.paths)))
    last = max(logs.glob("*_log.*"), key=_changed, default=None)
    hint = f"; the one written last is {last.name}" if last else ""
    raise ValueError(f"nothing tells who worked on {state.name}; logs of workers are in {logs}{hint}")


def failure_of(state: RunState) -> Mapping[str, Any] | None:
    """What a failed run left of its failure: reason, traceback, node, job."""
    if state.state != "failed":
        return None
    kept = [failed for path in state.directories if (failed := read_json(RunDir(path).failure))]
    return max(kept, key=lambda failed: failed["time"], default=None)


def follow(log: Log, *, wait: bool) -> Iterator[str]:
    """The text of a log, each file's under its name; with `wait`, also what is added to it until its job has ended."""
    read = dict.fromkeys(log.paths, 0)
    decode = {path: codecs.getincrementaldecoder("utf-8")("replace").decode for path in log.paths}
    named = None
    asked_at, over = time.monotonic(), not wait or log.is_over()
    while True:
        for path in log.paths:
            added = _from(path, read[path])
            read[path] += len(added)
            if added:
                if named != path:
                    yield f"==> {path} <==\n"
                    named = path
                yield decode[path](added)
        if over:  # asked before the files were read: nothing comes after
            return
        time.sleep(FILES_EVERY_SECONDS)
        if time.monotonic() - asked_at >= JOB_EVERY_SECONDS:
            asked_at, over = time.monotonic(), log.is_over()


def _more(names: Sequence[str]) -> str:
    """What follows the first MOST_CANDIDATES of a list."""
    return f" and {len(names) - MOST_CANDIDATES} more, which `genae status` lists" if len(names) > MOST_CANDIDATES else ""


def _submitted(job: Mapping[str, Any], state: RunState) -> Log:
    """The log of a job that was submitted."""
    if job["cluster"] != "slurm":
        worker = f"process {job['job']} on {job['host']}"
        return Log(worker, log_of(job), lambda: not is_running(int(job["job"]), job["started"]))

    def is_over() -> bool:
        queue = slurm.queue()
        return queue is not None and job["job"] not in queue

    node = state.node if state.job == job["job"] else None
    return Log(f"job {job['job']}{f' on {node}' if node else ''}", log_of(job), is_over)


def _at_work(owner: Mapping[str, Any], logs: Path) -> Log | None:
    """The log of a worker that lives on this machine: submitit names it after the process that started and watches it."""
    if owner["host"] != socket.gethostname() or not (watcher := _parent(owner["pid"])):
        return None
    paths, started = log_of({"folder": logs, "job": str(watcher)}), process_start(watcher)
    if not paths[0].exists():
        return None
    return Log(f"process {owner['pid']} on {owner['host']}", paths, lambda: not is_running(watcher, started))


def _worked(start: Mapping[str, Any], logs: Path) -> Log:
    """The log of a worker that has ended, or is not on this machine."""
    paths = log_of({"folder": logs, "job": start["worker"]})
    return Log(f"a worker on {start['host']}", paths, lambda: True)


def _parent(pid: int) -> int | None:
    """The process that started a process of this host; None where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _from(path: Path, start: int) -> bytes:
    """What a file holds from a byte on; nothing where it is not there yet, or cannot be read now."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except OSError:
        return b""


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
