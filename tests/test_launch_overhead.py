"""What a launch costs beside the runs themselves, on this machine: submitting, supervising, starting workers, collecting."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from genae.rundir import read_json

NUM_RUNS = 100
TICKS = os.sysconf("SC_CLK_TCK")
TEXT = {
    "table": "overhead/table",
    "seeds": list(range(NUM_RUNS)),
    "rows": {
        "row": {
            "data": {"name": "fashion-mnist", "resolution": 4, "count": 20},
            "model": {"name": "autoencoder", "latent_dim": 2, "width": 2},
            "stages": {
                "only": {
                    "objective": {"name": "reconstruction"},
                    "schedule": {"total_kimg": 0.01, "phases": [{"resolution": 4, "batch_size": 10, "learning_rate": 0.01}]},
                }
            },
            "metrics": [{"name": "mse"}],
            "compute": {"device": "cpu"},
        }
    },
}


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and these, and so on, that live."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in descendants(int(child)))]


def processor_seconds(pid: int) -> float:
    """What a process has used so far, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.mark.slow
def test_a_hundred_trivial_runs_cost_the_launcher_less_than_a_third_of_a_second_each(tmp_path):
    (tmp_path / "setup.cfg").touch()
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(TEXT))
    command = [sys.executable, "-m", "genae", "launch", "table.yaml", "--cluster", "local", "--jobs", "2"]
    launched = subprocess.Popen(command, cwd=tmp_path)
    _, status, usage = os.wait4(launched.pid, 0)
    assert status == 0
    job, *_ = tmp_path.glob("results/runs/*/job.json")
    supervisor = int(read_json(job)["train"]["job"])

    used: dict[int, float] = {}
    workers: set[int] = set()  # what they use is the runs' own
    while alive := descendants(supervisor):
        owners = [read_json(owner) for owner in tmp_path.glob("results/runs/*/owner.json")]
        workers |= {owner["pid"] for owner in owners if owner}
        used |= {pid: processor_seconds(pid) for pid in alive}
        time.sleep(0.05)
    records = (tmp_path / "results" / "overhead" / "table.jsonl").read_text().splitlines()
    assert len(records) == NUM_RUNS
    seconds = usage.ru_utime + usage.ru_stime + sum(seconds for pid, seconds in used.items() if pid not in workers)
    print(f"{seconds / NUM_RUNS:.3f} s of processor time a run")
    assert seconds / NUM_RUNS < 0.3
