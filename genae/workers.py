"""A study's workers as processes of this machine, through submitit's local executor."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from genae import study
from genae.rundir import process_start
from genae.spec import RunSpec

MINUTES_WITHOUT_LIMIT = 60 * 24 * 365


def start_local(folders: study.Folders, todo: Sequence[RunSpec], jobs: int | None, began: float) -> list[Any]:
    """Worker processes for these runs, as submitit's jobs; they end when this process does.

    jobs: how many side by side; by default what the runs ask for (`compute: {jobs: N}`), else one
    a GPU, or without any as many as the processors allow.
    On a machine with GPUs each worker sees one, in turn.
    """
    import submitit

    gpus = _gpus() if any(run.compute.device != "cpu" for run in todo) else []
    asked = jobs or max((run.compute.jobs or 0 for run in todo), default=0)
    room = len(gpus) or max(1, len(os.sched_getaffinity(0)) // max(run.compute.threads for run in todo))
    values = [run.to_dict() for run in todo]
    parent = (os.getpid(), process_start(os.getpid()))

    executor = submitit.LocalExecutor(folder=folders.logs)
    executor.update_parameters(timeout_min=MINUTES_WITHOUT_LIMIT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: a Ctrl-C is this process's to pass on, as SIGTERM
    try:
        return [
            executor.submit(
                study.start_work, values, str(folders.runs), began, parent, gpus[number % len(gpus)] if gpus else None
            )
            for number in range(min(asked or room, len(todo)))
        ]
    finally:
        signal.signal(signal.SIGINT, before)


def stop_workers(jobs: Sequence[Any]) -> None:
    """Ask workers to write a checkpoint and stop, and wait until they have."""
    for job in jobs:
        if not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # submitit's local controller, which passes it on
    while not all(job.done() for job in jobs):
        time.sleep(study.POLL_SECONDS)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
