"""A study's workers as processes of this machine, through submitit's local executor."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genae import study
from genae.rundir import process_start
from genae.spec import RunSpec

MINUTES_WITHOUT_LIMIT = 60 * 24 * 365


def start_local(folders: study.Folders, todo: Sequence[RunSpec], jobs: int | None, began: float) -> list[Any]:
    """Worker processes for these runs, as submitit's jobs; they end when this process does.

    jobs: how many side by side; by default what the runs ask for (`compute: {jobs: N}`), else what the processors allow.
    On a machine with GPUs each worker sees one, in turn.
    """
    import submitit

    asked = jobs or max((run.compute.jobs or 0 for run in todo), default=0)
    room = max(1, len(os.sched_getaffinity(0)) // max(run.compute.threads for run in todo))
    values = [run.to_dict() for run in todo]
    parent = (os.getpid(), process_start(os.getpid()))
    gpus = _gpus()

    workers = []
    for number in range(min(asked or room, len(todo))):
        executor = submitit.LocalExecutor(folder=folders.logs)
        executor.update_parameters(timeout_min=MINUTES_WITHOUT_LIMIT)
        if gpus:
            executor.update_parameters(gpus_per_node=1, visible_gpus=[gpus[number % len(gpus)]])
        workers.append(executor.submit(study.start_work, values, str(folders.runs), began, parent))
    return workers


def _gpus() -> list[int]:
    """The numbers of the GPUs that this process may use, without asking torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [int(number) for number in chosen.split(",") if number.strip().isdigit()]
    return list(range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))
