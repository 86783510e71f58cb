"""What a submitted job does: train, measure, or collect and redraw the report.

A job is told to make room by SIGUSR2 (preemption, or its time is nearly up): it finishes the step, writes a checkpoint, and
leaves it to submitit to put it back into the queue, where it goes on exactly. SIGTERM is the same where SLURM still has the job
for running (a preemption with a time of grace); where not, it was cancelled, and does not return.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.helpers import Checkpointable

from genae import report, slurm, study, workers
from genae.experiment import Asked, import_modules
from genae.rundir import this_job
from genae.shared_files import patiently
from genae.spec import RunSpec
from genae.stop import Interrupted, Stop

PATIENCE_SECONDS = 30.0  # with a step or a metric, after SIGUSR2; what it cost is then done again
ASK_AGAIN = 3  # times, each of a few seconds
MOST_IN_VAIN = 5  # starts of a job, or submissions of a run, one after another, from which nothing is kept


class RunFailed(RuntimeError):
    """What the job was for was not done; the run directories say more."""


class BrokenNode(RuntimeError):
    """The machine, and not the run, is at fault."""


class Work(Checkpointable):
    """Bring runs to the end of a stage, or, without one, have them measured too.

    submitit puts this very object back into the queue, so that it knows how its earlier starts went.
    """

    def __init__(self) -> None:
        self.progress = -1
        self.in_vain = 0

    def __call__(self, todo: Sequence[Mapping[str, Any]], runs: str, upto: int | None) -> None:
        """todo: RunSpecs as plain values.  upto: the number of the stage.  Raises RunFailed."""
        from genae.parallel import join

        specs, folder, began = [RunSpec.from_dict(values) for values in todo], Path(runs), time.time()
        for spec in specs:
            import_modules(spec.imports, spec.root)

        def left() -> list[study.Task]:
            return [task for spec in specs if (task := study.next_task(spec, folder, upto))]

        with room_to_be_made(left) as stop:
            try:
                check_node(specs, folder)
                self.check_progress(sum(study.progress(spec, folder) for spec in specs))
            except (BrokenNode, RunFailed) as error:
                for task in left():
                    study.keep_failure(task.directory, error, broken_node=isinstance(error, BrokenNode))
                raise
            with join() as group:
                study.work(specs, folder, began, stop, upto, group)
        failures = [failure for spec in specs if (failure := study.failure_since(spec, folder, began))]
        if failures:
            raise RunFailed("; ".join(f"{study.name_of(failure.run)}: {failure.reason}" for failure in failures))

    def check_progress(self, progress: int) -> None:
        """Raise RunFailed where MOST_IN_VAIN starts before this one came no farther: the next would not either."""
        self.in_vain = 0 if progress > self.progress else self.in_vain + 1
        self.progress = max(progress, self.progress)
        if self.in_vain == MOST_IN_VAIN:
            raise RunFailed(
                f"{MOST_IN_VAIN} starts of this job in a row ended before anything was kept; give it more time (timeout_min)"
            )


class Collect(Checkpointable):
    """Gather what an experiment's runs have come to, and redraw its report, whatever failed."""

    def __call__(self, asked: Asked, root: str) -> None:
        """asked: of the experiment's file in the code's snapshot.  root: of the project that the results belong to."""
        there = asked.shown()
        experiment = replace(there, root=Path(root), path=Path(root) / there.path.relative_to(there.root))
        for note in study.collect(experiment, study.Folders(experiment.root)):
            print(note)
        report.redraw(experiment)


class Supervise:
    """What `genae launch` leaves running on this machine: workers for the runs, and when they have ended, a `Collect`."""

    def __call__(
        self, todo: Sequence[Mapping[str, Any]], asked: Asked, root: str, jobs: int | None, gpus: str | None = None
    ) -> None:
        """jobs: how many workers; as workers.start_local takes it.  gpus: CUDA_VISIBLE_DEVICES of whoever launched.

        SIGTERM stops the workers where they can go on from.
        """
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        folders, specs = study.Folders(Path(root)), [RunSpec.from_dict(values) for values in todo]
        with Stop().on_signals(signal.SIGTERM) as stop:
            started = workers.start_local(folders, specs, jobs, time.time())
            while not stop.requested and not all(job.done() for job in started):
                time.sleep(study.POLL_SECONDS)
            workers.stop_workers(started)
        Collect()(asked, root)


def check_node(todo: Sequence[RunSpec], runs: Path) -> None:
    """Raise BrokenNode where the GPU that was asked for does not compute, or a disk that is needed does not take a file.

    Raises RunFailed where the runs' own folder is full: it is so on every node.
    """
    here = this_job()["node"]
    for folder in (runs, Path(tempfile.gettempdir())):

        def write(folder: Path = folder) -> None:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"genae")
                file.flush()
                os.fsync(file.fileno())

        try:
            patiently(write, folder)
        except OSError as error:
            if folder == runs and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RunFailed(f"nothing more can be written to {folder}: {error}") from error
            raise BrokenNode(f"node {here} cannot write to {folder}: {error}") from error
    if any(run.compute.device != "cpu" and (run.compute.gpus or run.compute.device != "auto") for run in todo):
        import torch

        try:
            if torch.cuda.device_count():  # each process its own, of those that all of a node may see
                torch.cuda.set_device(int(os.environ.get("SLURM_LOCALID", 0)) % torch.cuda.device_count())
            ones = torch.ones(64, 64, device="cuda")
            if float((ones @ ones).sum()) != 64.0**3:
                raise BrokenNode(f"the GPU of node {here} computes wrongly")
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
            if isinstance(error, BrokenNode):
                raise
            raise BrokenNode(f"node {here} has no GPU that works: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def room_to_be_made(left: Callable[[], Any]) -> Iterator[Stop]:
    """A Stop for the work of a job. Where a signal asked, submitit requeues once the work has stopped, or patience ends.

    left: whether there is anything to come back for. Raises Interrupted where there is and the job was cancelled: whatever
    waits for its success must not begin.
    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = stop.requested = True
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)

    def lose_patience(_number: int, frame: FrameType | None) -> None:
        try:
            requeue(signal.SIGUSR2, frame)  # which ends this process
        except subprocess.CalledProcessError as error:  # not the fault of the run in the middle of whose step we are
            sys.exit(f"SLURM did not take the job back into the queue: {error}")

    with Stop().on_signals(signal.SIGTERM) as stop:
        requeue = signal.signal(signal.SIGUSR2, ask)  # submitit's own answer to it
        before = signal.signal(signal.SIGALRM, lose_patience)
        try:
            yield stop
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            signal.signal(signal.SIGUSR2, requeue)
    if not (stop.requested and left()):
        return
    if asked or _is_running():
        requeue(signal.SIGUSR2, None)
    else:
        raise Interrupted("it was cancelled; what it has done is kept")


def _is_running() -> bool:
    """Whether SLURM has this job for running. Of a preempted one it does until the time of grace is over.

    A controller that does not answer is asked again: taken for a cancelled one, a preempted job would not come back.
    """
    answers = (slurm.queue() for _ in range(ASK_AGAIN))
    queue = next((queue for queue in answers if queue is not None), {})
    job = queue.get(this_job()["job"] or "")
    return job is not None and job.state == "RUNNING"
