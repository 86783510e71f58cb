"""What genae asks of SLURM's own commands: which jobs there are, to end some, and how some ended. It schedules nothing."""

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

ANSWER_SECONDS = 5.0  # how long a command may take; a busy controller takes longer, and is asked again at the next look
FIELDS = "%i|%T|%N|%r"  # id, state, nodes, reason: of these only a reason could hold a bar, and it comes last
BARS = FIELDS.count("|")
NEVER = "DependencyNeverSatisfied"  # the reason of a job that waits for one that failed
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"
}  # fmt: skip


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    state: SLURM's word ("PENDING", "RUNNING", "COMPLETING", ...).  node: where it runs; None while it waits.
    reason: why it waits, in SLURM's words ("Priority", "Dependency"); None where there is no reason.
    """

    state: str
    node: str | None
    reason: str | None


def queue() -> dict[str, Queued] | None:
    """This user's jobs that wait, run or are ending, by id ("12", in an array "12_3"), from one call of squeue.

    None where nobody knows: there is no squeue, or it fails or does not answer within ANSWER_SECONDS. An empty queue is {}.
    """
    said = _ask("squeue", "--me", "--all", "--noheader", "--array", f"--format={FIELDS}")
    if said is None:
        return None
    jobs = {}
    for line in said.splitlines():
        if line.count("|") >= BARS:  # else it names a cluster, where a user asks several
            job, state, node, reason = (field.strip() for field in line.split("|", BARS))
            if state not in ENDED:
                jobs[job] = Queued(state, node or None, None if reason in ("", "None") else reason)
    return jobs


def cancel(jobs: Iterable[str]) -> None:
    """End jobs, waiting or running; those that have ended are passed over. Raises OSError where SLURM refuses."""
    jobs = list(jobs)
    if not jobs:
        return
    try:
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError(f"there is no scancel here to end jobs with ({', '.join(jobs)}): run this where SLURM is") from None
    if done.returncode:
        raise OSError(f"scancel refused: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def ended(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs ended, by id, in SLURM's words ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"), as far as accounting tells.

    Many clusters keep no accounts: then it is {}, every time, and not a word about it. Asked once for the same jobs.
    """
    asked = tuple(sorted(set(jobs)))
    return dict(_ended(asked)) if asked else {}


@functools.lru_cache(maxsize=8)
def _ended(jobs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    said = _ask("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(jobs)}")
    found = (line.split("|") for line in (said or "").splitlines() if line.count("|") == 1)
    words = ((job, state.partition(" ")[0]) for job, state in found)  # of "CANCELLED by 1000" the first
    return tuple((job, word) for job, word in words if word in ENDED)


def _ask(command: str, *options: str) -> str | None:
    """What one of SLURM's commands prints; None where there is none, or it fails or takes too long."""
    if not shutil.which(command):
        return None
    # A user's SQUEUE_STATES or SQUEUE_PARTITION would hide jobs, and a hidden job looks like a lost one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    process = subprocess.Popen(
        [command, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,  # many sites wrap squeue in a script: what it started ends with it
    )
    try:
        said, _ = process.communicate(timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return said if process.returncode == 0 else None
