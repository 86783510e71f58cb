"""What the tests of `genae status` and `genae logs` share: run directories in any state, a queue, and the command line."""

import functools
import json
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from genae import slurm, status
from genae.cli import main
from genae.rundir import RunDir, read_json, write_json
from genae.slurm import Queued

NOW = 1_700_000_000.0  # when most of what is told here happened
GONE = 2**22 + 1  # a number that no process has
FIRST, SECOND = 1000, 500  # images of the two stages

write = functools.partial(write_json, sync=False)  # thousands of files that need not survive a power cut


@dataclass
class Run:
    """A run of two stages, as far as its directories know it."""

    runs: Path
    row: str
    seed: int

    @property
    def places(self) -> list[RunDir]:
        return [RunDir(self.runs / f"vae-faces-s{self.seed}-{self.row}{stage}") for stage in (1, 2)]

    def announce(
        self,
        table: str = "paper/table1",
        columns: Sequence[str] = ("mse", "fid"),
        row: str | None = None,
        first: str | None = None,
    ) -> Self:
        """first: the folder of the first stage, where it is another run's."""
        stages = [("autoencoder", first or self.places[0].path.name, FIRST), ("density", self.places[1].path.name, SECOND)]
        entry = {"table": table, "row": row or self.row, "data_name": "faces", "seed": self.seed, "scale": "desk"}
        entry |= {"columns": list(columns)}
        entry |= {"stages": [{"name": name, "directory": folder, "total_images": total} for name, folder, total in stages]}
        self.places[1].path.mkdir(parents=True, exist_ok=True)
        write(self.places[1].rows, [*(read_json(self.places[1].rows) or []), entry])
        return self

    def train(self, first: int, second: int = 0, starts: int = 1) -> Self:
        """Checkpoints up to so many images of each stage, and what the trainer tells beside them."""
        for place, images, total in zip(self.places, (first, second), (FIRST, SECOND), strict=True):
            if images:
                place.checkpoints.mkdir(parents=True, exist_ok=True)
                (place.checkpoints / f"{images:010d}.pt").touch()
                write(place.provenance, [{"time": NOW + start, "host": "node1"} for start in range(starts)])
                told = {"images_seen": images, "total_images": total, "images_per_second": 50.0, "loss": 0.25, "time": NOW + 60}
                write(place.status, told)
        return self

    def measure(self, *columns: str) -> Self:
        self.places[1].records.write_text("".join(json.dumps({"column": column, "value": 1.0}) + "\n" for column in columns))
        return self

    def submit(
        self, kind: str = "train", job: str = "12_3", at: float = NOW, places: Sequence[int] = (0, 1), **told: Any
    ) -> Self:
        """What a launch leaves: job.json."""
        folder = str(self.runs / "logs")
        said = {"cluster": "slurm", "job": job, "host": "login", "started": None, "submitted": at, "folder": folder}
        for index in places:
            place = self.places[index]
            place.path.mkdir(parents=True, exist_ok=True)
            write(place.job, (read_json(place.job) or {}) | {kind: said | told})
        return self

    def fail(self, stage: int, at: float = NOW + 100, job: str | None = None) -> Self:
        self.places[stage].path.mkdir(parents=True, exist_ok=True)
        told = {"time": at, "reason": "Diverged: pixels became nan", "traceback": "Traceback: here\n"}
        told |= {"node": "node2", "job": job}
        write(self.places[stage].failure, told)
        return self

    def own(self, stage: int, **told: Any) -> Self:
        """An owner.json that nobody alive stands behind."""
        owner = {"host": socket.gethostname(), "pid": GONE, "started": "1", "token": "t", "node": "node1", "job": "12_3"}
        self.places[stage].path.mkdir(parents=True, exist_ok=True)
        write(self.places[stage].owner, owner | told)
        return self


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, the working directory; SLURM answers with an empty queue unless told otherwise."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "results" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "queue", dict)
    monkeypatch.setattr(slurm, "ended", lambda jobs: {})
    return tmp_path


@pytest.fixture
def run(project: Path) -> Callable[..., Run]:
    """To be called: the run of a row and a seed."""

    def make(row: str = "vae", seed: int = 0) -> Run:
        return Run(project / "results" / "runs", row, seed)

    return make


@pytest.fixture
def only(project: Path) -> Callable[[], status.RunState]:
    """To be called: the state of the only run there is."""

    def only() -> status.RunState:
        (state,) = status.read(project / "results" / "runs")
        return state

    return only


@pytest.fixture
def queued(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What squeue says from now on: job_12_3=Queued(...)."""

    def queued(**jobs: Queued | None) -> None:
        answer = {name.removeprefix("job_"): job for name, job in jobs.items()}
        monkeypatch.setattr(slurm, "queue", lambda: answer)

    return queued


@pytest.fixture
def genae(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process, in the project's folder; its exit status."""

    def genae(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["genae", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    return genae
