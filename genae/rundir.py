"""The one owner of every path a run writes, and of who may write there.

results/runs/<model>-<data>-s<seed>-<identity>/
    run.json            the resolved experiment, table, row and image counts
    provenance.json     code, versions, machine, one entry per start
    progress.jsonl      one line per logging interval; the same numbers whatever interrupted the run
    status.json         where training is now: for progress bars
    records.jsonl       what was measured
    checkpoints/        <images seen>.pt, the last two
    figures/            pictures
    failure.json        why the last start failed
    owner.json          the process that holds this directory
    rows.json           the rows of tables that the run serves, told before it begins (in its last stage's directory)
    job.json            the jobs that were last submitted for it
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genae.shared_files import locked, patiently, read_json, write_json

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0  # without a heartbeat, for an owner on another host; on this host the process itself is looked up


_held: dict[str, str] = {}  # the directories that this process holds (their owner.json), and the token that it holds each by


class Taken(OSError):
    """Another live process holds the run directory."""


class RunDir:
    """The directory of one stage of one run."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.run = self.path / "run.json"
        self.provenance = self.path / "provenance.json"
        self.progress = self.path / "progress.jsonl"
        self.status = self.path / "status.json"
        self.records = self.path / "records.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.codes = self.path / "codes"
        self.figures = self.path / "figures"
        self.drawn = self.path / "drawn.json"
        self.failure = self.path / "failure.json"
        self.warnings = self.path / "warnings.jsonl"
        self.owner = self.path / "owner.json"
        self.rows = self.path / "rows.json"
        self.job = self.path / "job.json"

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @classmethod
    def of(cls, runs: Path, label: str, identity: str) -> "RunDir":
        """The directory, under the folder `runs`, of the stage with this identity (sha256 hex; 12 digits go into the name)."""
        return cls(runs / f"{label}-{identity[:12]}")

    def images_kept(self) -> int:
        """Of the newest checkpoint, by its name; 0 where there is none."""
        return max((int(path.stem) for path in self.checkpoints.glob("*.pt")), default=0)

    @contextlib.contextmanager
    def claim(self, command: float | None = None) -> Iterator[None]:
        """Hold the directory: one process at a time, with a heartbeat. A dead owner loses it. Raises Taken.

        command: when the command began that this process works for; kept for `died_for`.
        """
        patiently(lambda: self.path.mkdir(parents=True, exist_ok=True), self.path)
        me = _this_process() | {"token": uuid.uuid4().hex, "command": command}
        silent = self._listened_to()
        with self._deciding():
            owner, beat = self.live_owner(), self._beat_elsewhere()
            if beat and beat != silent:  # beaten since, or by another that took it: alive, whatever its host's clock says
                owner = read_json(self.owner)
            if owner:
                raise Taken(f"{self.path.name} is being worked on by process {owner['pid']} on {owner['host']}")
            write_json(self.owner, me)
        _held[_key(self.owner)] = me["token"]
        released = threading.Event()
        beat = threading.Thread(target=self._beat, args=(released, me), daemon=True)
        beat.start()
        try:
            yield
        finally:
            released.set()
            beat.join()
            del _held[_key(self.owner)]
            with self._deciding():
                if (read_json(self.owner) or {}).get("token") == me["token"]:
                    patiently(lambda: self.owner.unlink(missing_ok=True), self.owner)

    def live_owner(self, patience: float | None = None) -> dict[str, Any] | None:
        """Who holds the directory now: {host, pid, ...}; None where nobody alive does. patience: with the file system."""
        owner = read_json(self.owner, patience)
        if not owner:
            return None
        if owner["host"] == socket.gethostname():
            return owner if is_running(owner["pid"], owner["started"]) else None
        try:
            silent = time.time() - patiently(self.owner.stat, self.owner, patience).st_mtime
        except FileNotFoundError:
            return None
        return owner if silent < DEAD_AFTER_SECONDS else None

    def died_for(self, command: float) -> dict[str, Any] | None:
        """The owner, if it worked for this command and died without letting go."""
        owner = read_json(self.owner)
        return owner if owner and owner.get("command") == command and not self.live_owner() else None

    def is_held(self) -> bool:
        """Whether this process still holds the directory that it claimed; of one that it did not, whether nobody has."""
        return (read_json(self.owner) or {}).get("token") == _held.get(_key(self.owner))

    def check_held(self) -> None:
        """Raise Taken if another process has taken the directory over, as after a long stall of a shared file system."""
        if not self.is_held():
            owner = read_json(self.owner)
            by = f"process {owner['pid']} on {owner['host']}" if owner else "another process, which is done with it"
            raise Taken(f"{self.path.name} was taken over by {by}, while this process was silent; it writes nothing more there")

    def warn(self, text: str) -> None:
        """Keep a warning for whoever started this run."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.warnings.open("a") as file:
            file.write(json.dumps({"time": time.time(), "text": text}) + "\n")

    def warnings_since(self, began: float) -> list[str]:
        """The warnings kept since `began`."""
        if not self.warnings.exists():
            return []
        kept = [json.loads(line) for line in self.warnings.read_text().splitlines()]
        return [warning["text"] for warning in kept if warning["time"] >= began]

    def _deciding(self) -> contextlib.AbstractContextManager[None]:
        """One process at a time decides who owns the directory: two that find the same dead owner must not both replace it."""
        return locked(self.path / ".claim")

    def _listened_to(self) -> tuple[str, int] | None:
        """The last beat of an owner on another host that looks dead, and has had the time of two more since; else None.

        A file system that stalled has stalled for everyone: at its return every owner looks dead, and is heard again. And an
        owner whose clock is behind always looks dead, though it beats.
        """
        beat = self._beat_elsewhere()
        if not beat or self.live_owner():
            return None
        time.sleep(2 * HEARTBEAT_SECONDS)
        return beat

    def _beat_elsewhere(self) -> tuple[str, int] | None:
        """The last beat of an owner on another host: its token, and when by its clock, in ns."""
        owner = read_json(self.owner)
        if not owner or owner["host"] == socket.gethostname():
            return None
        with contextlib.suppress(FileNotFoundError):
            return owner["token"], patiently(self.owner.stat, self.owner).st_mtime_ns
        return None

    def _beat(self, released: threading.Event, me: dict[str, Any]) -> None:
        while True:
            with contextlib.suppress(OSError):  # then it comes late; if for too long, check_held finds out
                if read_json(self.owner) != me:  # taken over: its new owner's heart beats for itself
                    return
                now = time.time()  # of this host: hosts of one cluster agree on the time, their file server may not
                os.utime(self.owner, (now, now))
            if released.wait(HEARTBEAT_SECONDS):
                return


def _key(owner: Path) -> str:
    return os.path.abspath(owner)


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid())} | this_job()


def this_job() -> dict[str, str | None]:
    """The node that this process runs on, as the cluster calls it, and the SLURM job that it is of ("12_3" in an array)."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return {"node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), "job": job}


def is_running(pid: int, started: str | None) -> bool:
    """Whether the process of this host that had this number and start time still runs."""
    return started is not None and process_start(pid) == started


def process_start(pid: int) -> str | None:
    """When a process of this host started, in the kernel's ticks: tells a process from a later one with its number.

    None where no such process runs. Where there is no /proc, "?" for any that does.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "?"
    return None if fields[0] == "Z" else fields[19]  # a zombie is dead; field 22 of the whole line is the start time
