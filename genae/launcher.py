"""A study's workers as processes of this machine, through submitit's local executor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

MINUTES_WITHOUT_LIMIT = 60 * 24 * 365


def start_local(count: int, logs: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Start `count` processes that each call `work(*arguments)`; returns submitit's jobs, whose logs are under `logs`."""
    import submitit

    executor = submitit.LocalExecutor(folder=logs / "%j")
    executor.update_parameters(timeout_min=MINUTES_WITHOUT_LIMIT, tasks_per_node=1)
    return [executor.submit(work, *arguments) for _ in range(count)]
