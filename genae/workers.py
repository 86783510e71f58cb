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
    """Workers for these runs, as submitit's jobs; they end when this process does.

    jobs: how many side by side; by default what the runs ask for (`compute: {jobs: N}`), else as many as there are GPUs for,
    or without any as the processors allow.
    A worker is one process, or as many as its runs are shared out to. On a machine with GPUs each process has one of them.
    """
    import submitit

    gpus = _gpus() if any(run.compute.device != "cpu" for run in todo) else []
    by_size: dict[int, list[RunSpec]] = {}
    for run in todo:
        asked = run.compute.gpus or 1
        size = asked if run.compute.device == "cpu" else max(1, min(asked, len(gpus)))
        by_size.setdefault(size, []).append(run)
    parent = (os.getpid(), process_start(os.getpid()))

    started = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: a Ctrl-C is this process's to pass on, as SIGTERM
    try:
        for size, runs in by_size.items():
            side_by_side = jobs or max(run.compute.jobs or 0 for run in runs)
            places = len(gpus) or len(os.sched_getaffinity(0)) // max(run.compute.threads for run in runs)
            values = [run.to_dict() for run in runs]
            executor = submitit.LocalExecutor(folder=folders.logs)
            executor.update_parameters(timeout_min=MINUTES_WITHOUT_LIMIT, tasks_per_node=size)
            for number in range(min(side_by_side or max(1, places // size), len(runs))):
                mine = [gpus[(number * size + one) % len(gpus)] for one in range(size)] if gpus else None
                visible = ",".join(mine) if mine else None
                started.append(executor.submit(study.start_work, values, str(folders.runs), began, parent, visible))
    finally:
        signal.signal(signal.SIGINT, before)
    return started


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
