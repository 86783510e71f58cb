"""What the tests on SLURM share: a cluster of two nodes, a user's project to launch on it, and its run undisturbed.

Run side by side by pytest-xdist, they share one cluster: the first to need it starts it.
"""

import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from genae import checkpoint
from genae.rundir import RunDir, read_json, write_json

spec = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).parent.parent / "slurm_cluster.py")
slurm_cluster = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = slurm_cluster
spec.loader.exec_module(slurm_cluster)

PATIENCE = 900.0  # seconds for anything to come about, on a machine where all scenarios run at once


class Project:
    """A user's project with one experiment, `table`, and what they type in it."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.folder = folder
        self.cluster = cluster
        self.niceness = 5
        self.pace = folder.with_name(f"{folder.name}.pace")
        self.broken = folder.with_name(f"{folder.name}.broken")  # the names of nodes whose disks are
        told = {"GENAE_TEST_PACE": str(self.pace), "GENAE_TEST_BROKEN": str(self.broken), "OMP_NUM_THREADS": "1"}
        self.environment = cluster.environment | told
        (folder / "experiments").mkdir(parents=True)
        (folder / "setup.cfg").touch()
        shutil.copy(Path(__file__).with_name("paced.py"), folder)

    def write(
        self,
        compute: Mapping[str, Any],
        *,
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        seeds: Sequence[int] = (0,),
        kimg: float = 0.6,
        learning_rate: float = 0.002,
        optimizer: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the experiment: growth from 4x4 to 8x8 with noise, pool and averaged weights, then a stage at 8x8.

        rows: the settings of each row's objective; by default one row, named "row".
        """
        trained = {"average": {"parts": ["decoder"], "half_life_kimg": 0.05}, "optimizer": optimizer or {"name": "adam"}}
        phase = {"batch_size": 10, "learning_rate": learning_rate, "margin": 0.5}
        growing = [phase | {"resolution": 4, "kimg": 0.1}, phase | {"resolution": 8, "fade_kimg": 0.2}]
        last = phase | {"resolution": 8, "learning_rate": learning_rate / 2}

        def row(objective: Mapping[str, Any]) -> dict[str, Any]:
            learned = trained | {"objective": {"name": "paced", "pool_size": 6, **objective}}
            return {
                "data": {"name": "fashion-mnist", "resolution": 8, "count": 150, "num_validation": 30},
                "model": {"name": "automodulator", "latent_dim": 8, "channels": [8, 8, 4]},
                "stages": {
                    "growing": learned | {"schedule": {"total_kimg": kimg, "phases": growing}},
                    "settling": learned | {"schedule": {"total_kimg": kimg / 6, "phases": [last]}},
                },
                "metrics": [{"name": "mse"}, {"name": "psnr"}],
                "figures": [{"name": "samples"}],
                "compute": {"device": "cpu", "checkpoint_seconds": 0.5, "log_kimg": 0.1, **compute},
            }

        text = {"table": "slurm/table", "imports": ["paced"], "seeds": list(seeds)}
        text |= {"rows": {name: row(objective) for name, objective in (rows or {"row": {}}).items()}}
        (self.folder / "experiments" / "table.yaml").write_text(yaml.safe_dump(text, sort_keys=False))

    def slow_from(self, images_seen: int, seconds: float = 2.0) -> None:
        """Have every step take so long from this many images of a stage on, in whatever process it is taken."""
        aside = self.pace.with_suffix(".aside")
        aside.write_text(f"{images_seen} {seconds}")
        aside.replace(self.pace)

    def slow_no_more(self) -> None:
        self.pace.unlink()

    def start(self, *arguments: str) -> subprocess.Popen:
        """A genae command of this project, not waited for; it and its jobs yield to the test for which time counts."""
        command = ["nice", "-n", str(self.niceness), sys.executable, "-m", "genae", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def genae(self, *arguments: str, expect: int = 0) -> str:
        """What a genae command prints, errors included; it must end with the status that is expected."""
        return self.said(self.start(*arguments), expect=expect)

    def said(self, process: subprocess.Popen, expect: int = 0) -> str:
        """What a command that was started has printed when it has ended, errors included."""
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == expect, f"{' '.join(process.args)} ended with {process.returncode}:\n{out}\n{err}"
        return out + err

    def launch(self, *arguments: str, expect: int = 0) -> str:
        return self.genae("launch", "table", "--cluster", "slurm", *arguments, expect=expect)

    def states(self) -> dict[str, dict[str, Any]]:
        """What `genae status --json` says of each run, by name; it exits with 1 once a run has failed."""
        process = self.start("status", "table", "--json")
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 1), err
        return {state["name"]: state for state in json.loads(out)}

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until a condition holds, and return what it gave."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self.what_there_is()}"
            time.sleep(0.2)
        return found

    def until_idle(self) -> None:
        """Wait until no job of this project is queued or runs."""
        self.until(
            lambda: not any(job["JobState"] in ("PENDING", "RUNNING", "COMPLETING") for job in self.jobs()), "no job left"
        )

    def what_there_is(self) -> str:
        """For whoever reads a failure: the queue, and the last lines of every log."""
        logs = [*self.folder.glob("results/runs/logs/**/*.err"), *self.folder.glob("results/runs/logs/**/*.out")]
        tails = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in sorted(logs)[-12:])
        return f"{self.cluster.ask('squeue')}\n{tails}"

    def jobs(self) -> list[dict[str, str]]:
        """What SLURM knows of each job submitted from this project, ended ones included, in scontrol's words."""
        lines = self.cluster.ask("scontrol", "show", "jobs", "--oneliner").splitlines()
        jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
        return [job for job in jobs if self.folder in Path(job.get("WorkDir", "/")).parents]

    def trainings(self) -> list[dict[str, str]]:
        """Of these, the ones that train: one for each submission of a run."""
        return [job for job in self.jobs() if job["JobName"] == "genae-train"]

    def stage(self, number: int) -> RunDir:
        """The directory of a stage of the run of the row "row", once it has begun."""
        mine = {"row": "row", "stage": ("growing", "settling")[number]}

        def found() -> list[RunDir]:
            places = [RunDir(path) for path in self.folder.glob("results/runs/automodulator-*/")]
            return [place for place in places if mine.items() <= (read_json(place.run) or {}).items()]

        return self.until(found, f"stage {mine['stage']} begins")[0]

    def until_seen(self, images_seen: int, *, start: int = 1) -> RunDir:
        """Wait until the first stage has seen so many images since it was started for that time (counted from 1)."""
        place = self.stage(0)

        def reached() -> bool:
            starts, status = read_json(place.provenance) or [], read_json(place.status)
            fresh = status and len(starts) == start and status["time"] > starts[-1]["time"]
            return fresh and status["images_seen"] >= images_seen

        self.until(reached, f"start {start} sees {images_seen} images")
        return place

    def until_done(self, *rows: str) -> None:
        """Wait until no job is left; these rows' runs must then be done, by default all of the experiment."""
        self.until_idle()
        states = {name: state["state"] for name, state in self.states().items() if not rows or state["row"] in rows}
        assert set(states.values()) == {"done"}, f"{states}\n{self.what_there_is()}"

    def digests(self) -> dict[str, str]:
        """The digest of the last checkpoint of each stage of the run of the row "row"."""
        return {place.path.name: checkpoint.latest(place.checkpoints).digest for place in (self.stage(0), self.stage(1))}

    def weights(self, stage: int) -> dict[str, Tensor]:
        """The model's weights and buffers in the last checkpoint of a stage of that run, in double precision."""
        state = checkpoint.latest(self.stage(stage).checkpoints).state["model"]
        return {name: value.double() for name, value in state.items()}

    def starts(self) -> dict[str, int]:
        """How often training was started in each run directory."""
        places = [RunDir(path) for path in self.folder.glob("results/runs/automodulator-*/")]
        starts = {place.path.name: len(read_json(place.provenance) or []) for place in places}
        return {name: count for name, count in starts.items() if count}


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


def _cluster(folder: Path, **settings: Any) -> Iterator[Any]:
    lacking = slurm_cluster.why_not()
    if lacking and os.environ.get("CI"):
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with slurm_cluster.shared(slurm_cluster.Cluster(folder, **settings)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(shared_folder: Path) -> Iterator[Any]:
    """A SLURM of two nodes, whose jobs are nobody's but these tests'."""
    yield from _cluster(shared_folder / "slurm")


@pytest.fixture
def cluster_to_break(shared_folder: Path) -> Iterator[Any]:
    """Another, for a test that kills its nodes."""
    yield from _cluster(shared_folder / "slurm-to-break")


@pytest.fixture
def cluster_without_warning(shared_folder: Path) -> Iterator[Any]:
    """Another, whose jobs hear of their preemption by SIGTERM alone."""
    yield from _cluster(shared_folder / "slurm-without-warning", tells=False)


@pytest.fixture
def cluster_of_the_tutorial(shared_folder: Path) -> Iterator[Any]:
    """Another, for the tutorial to start and to stop."""
    yield from _cluster(shared_folder / "slurm-tutorial")


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A user's project; by default on `cluster`, or on the one that the test names with `indirect`."""
    return Project(tmp_path / "project", request.getfixturevalue(getattr(request, "param", "cluster")))


@pytest.fixture(scope="session")
def undisturbed(shared_folder: Path, cluster: Any) -> Callable[[], dict[str, str]]:
    """To be called: the digests that the run of the row "row" ends with when nothing happens to it; trained once for all."""

    def digests() -> dict[str, str]:
        with (shared_folder / "undisturbed.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = shared_folder / "undisturbed.json"
            if not kept.exists():
                project = Project(shared_folder / "undisturbed", cluster)
                project.niceness = 0  # others wait for it
                project.write({})
                project.genae("run", "table")
                write_json(kept, project.digests())
            return read_json(kept)

    return digests
