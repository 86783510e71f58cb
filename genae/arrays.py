"""What submitit is asked for in a launch: job arrays for SLURM, or one process of this machine.

A stage that several runs share is a job of its own, and what goes on from it waits for it; each training job is followed by its
evaluation, and everything by one small job that collects and redraws the report.
"""

import contextlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genae import cluster as clusters
from genae import slurm, study
from genae.cluster import Cluster
from genae.experiment import Asked
from genae.jobs import Collect, Supervise, Work
from genae.rundir import RunDir, is_running, process_start, read_json, write_json
from genae.spec import RunSpec
from genae.workers import MINUTES_WITHOUT_LIMIT

MOST_IN_AN_ARRAY = 1000  # SLURM's own limit, unless it was raised
CHECKPOINTS_IN_A_SLOT = 10  # at least: a job that is cut off without warning then loses a tenth of its time
TO_COLLECT = {"nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "timeout_min": 60}
NOT_TO_COLLECT = ("gpus", "slurm_gres", "mem_gb", "evaluate_in", "slurm_array_parallelism", "slurm_max_num_timeout")
WHERE = ("slurm_partition", "slurm_account", "slurm_qos", "slurm_exclude", "slurm_setup")


@dataclass
class Launch:
    """What a launch submitted, or would have.

    submitted, in_flight: the runs that it took on, and those that were under way.  scripts: the files for sbatch, of a dry run.
    """

    id: str
    submitted: list[RunSpec]
    in_flight: list[RunSpec]
    jobs: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unit:
    """What one job trains: a run up to the end of stage number `last`.

    runs: those that have these stages; the first is trained.  after: the unit that trains the stages before, where others go on
    from those too.
    """

    runs: tuple[RunSpec, ...]
    last: int
    after: "Unit | None" = None

    @property
    def identity(self) -> str:
        return self.runs[0].stages[self.last].identity

    @property
    def finished(self) -> tuple[RunSpec, ...]:
        """The runs that end with this unit, and are measured after it."""
        return tuple(run for run in self.runs if run.identity == self.identity)

    @property
    def wave(self) -> int:
        """How many units come before it."""
        return self.after.wave + 1 if self.after else 0

    def directories(self, runs: Path) -> list[RunDir]:
        """Of the stages that this unit trains itself."""
        return study.directories(self.runs[0], runs)[self.after.last + 1 if self.after else 0 : self.last + 1]


def units_of(todo: Sequence[RunSpec]) -> list[Unit]:
    """The units that train these runs, each after the one it goes on from. A stage is in exactly one of them."""
    having: dict[str, list[RunSpec]] = {}
    for run in todo:
        for stage in run.stages:
            having.setdefault(stage.identity, []).append(run)
    units: dict[str, Unit] = {}
    for run in todo:
        before = None
        for index, stage in enumerate(run.stages):
            following = run.stages[index + 1].identity if index + 1 < len(run.stages) else None
            if following and len(having[following]) == len(having[stage.identity]):
                continue  # whoever has this stage goes on with the next
            before = units.setdefault(stage.identity, Unit(tuple(having[stage.identity]), index, before))
    return list(units.values())


@dataclass(frozen=True)
class Making:
    """A launch in the making.  there: what was asked for, of the snapshot's file.  code: the snapshot."""

    started: Launch
    there: Asked
    folders: study.Folders
    cluster: Cluster
    code: Path
    queue: Mapping[str, slurm.Queued]
    dry: bool

    def arrays(self, todo: Sequence[RunSpec]) -> None:
        """Submit all that SLURM is to do for these runs: arrays of what is alike and waits for the same, in order."""
        from genae.trainer import is_trained

        runs = self.folders.runs
        excluded = broken_nodes(todo, runs)
        shape_of = {run.identity: self._shape(run, excluded) for run in todo}
        trained_by: dict[str, str] = {}  # identity of a unit -> the job that trains it
        measured: set[str] = set()  # identities of the runs that are measured by, or after, what this launch trains

        # Training, and the evaluation that follows it job by job.
        alike: dict[str, list[Unit]] = {}
        for unit in units_of(todo):
            if is_trained(unit.runs[0], unit.last, runs):
                continue
            if busy := job_in_flight(unit.directories(runs)[-1], "train", self.queue):
                trained_by[unit.identity] = busy
                continue
            shape = shape_of[unit.runs[0].identity]
            waits_for = unit.after.identity if unit.after else ""
            alike.setdefault(json.dumps([unit.wave, waits_for, bool(unit.finished), shape], sort_keys=True), []).append(unit)
        for key in sorted(alike, key=lambda key: json.loads(key)[0]):
            _, waits_for, finished, shape = json.loads(key)
            at_once = finished and shape["evaluate_in"] == "same-job"
            after = f"afterok:{trained_by[waits_for]}" if waits_for in trained_by else None
            for units in _in_parts(alike[key]):
                work = [(unit.finished, None) if at_once else (unit.runs[:1], unit.last) for unit in units]
                jobs = self._submit("train", self._work(work, shape), shape, after)
                for unit, job in zip(units, jobs, strict=True):
                    trained_by[unit.identity] = job
                    for place in unit.directories(runs):
                        self._tell(place, job, "train")
                    if at_once:
                        self._tell(unit.directories(runs)[-1], job, "measure")
                if finished:
                    measured |= {unit.identity for unit in units}
                if finished and not at_once:
                    one_by_one = f"{'aftercorr' if len(jobs) > 1 else 'afterok'}:{jobs[0].partition('_')[0]}"
                    self._measure([unit.finished for unit in units], shape, one_by_one)

        # Evaluation of what is trained already, or by a job of an earlier launch.
        rest: dict[str, list[RunSpec]] = {}
        for run in todo:
            if run.identity not in measured:
                rest.setdefault(run.identity, []).append(run)
        waiting: dict[str, list[list[RunSpec]]] = {}
        for identity, same in rest.items():
            waiting.setdefault(json.dumps([trained_by.get(identity), shape_of[identity]], sort_keys=True), []).append(same)
        for key, groups in waiting.items():
            job, shape = json.loads(key)
            for part in _in_parts(groups):
                self._measure(part, shape, f"afterok:{job}" if job else None)

        # The report.
        first, *others = shape_of.values()
        agreed = {key: first[key] for key in WHERE if key in first and all(one.get(key) == first[key] for one in others)}
        wanted = self.cluster.asked() | agreed  # a partition or account that every row names is this job's too
        shape = {key: value for key, value in wanted.items() if key not in NOT_TO_COLLECT} | TO_COLLECT
        everything = sorted({job.partition("_")[0] for job in self.started.jobs}, key=int)
        self._submit("collect", [(Collect(), self.there, str(self.folders.root))], shape, f"afterany:{':'.join(everything)}")

    def supervisor(self, todo: Sequence[RunSpec], jobs: int | None) -> None:
        """Start what does these runs on this machine, and outlives this command."""
        import submitit

        executor = submitit.LocalExecutor(folder=self.folders.logs)
        executor.update_parameters(timeout_min=MINUTES_WITHOUT_LIMIT)
        values = [self._plain(run, self.cluster.resources(run.compute)) for run in todo]
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")  # which submitit hides from what it starts
        with _in_code(self.code), _on_its_own():
            job = executor.submit(Supervise(), values, self.there, str(self.folders.root), jobs, gpus)
        self.started.jobs.append(job.job_id)
        for run in todo:
            for place in study.directories(run, self.folders.runs):
                self._tell(place, job.job_id, "train", "measure")

    def _measure(self, groups: Sequence[Sequence[RunSpec]], shape: Mapping[str, Any], after: str | None) -> None:
        """An array that measures runs, those of one group (equal but for their rows) in one job. One process is enough."""
        shape = {**shape, "gpus": min(1, shape["gpus"]), "nodes": 1, "tasks_per_node": 1}
        shape |= {"gpus_per_node": 1} if "gpus_per_node" in shape else {}
        jobs = self._submit("measure", self._work([(group, None) for group in groups], shape), shape, after)
        for group, job in zip(groups, jobs, strict=True):
            self._tell(study.directories(group[0], self.folders.runs)[-1], job, "measure")

    def _submit(self, kind: str, work: Sequence[tuple], shape: Mapping[str, Any], after: str | None) -> list[str]:
        """Submit calls as one array (one call: as a job) and return the jobs' ids; of a dry run, keep what sbatch would get."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        given = {key: value for key, value in shape.items() if key not in ("gpus", "evaluate_in", "slurm_max_num_timeout")}
        flags = {"requeue": True, "kill-on-invalid-dep": "yes", "chdir": str(self.code)} | given.get(
            "slurm_additional_parameters", {}
        )
        path = f"export PYTHONPATH={shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}"
        threads = f"export OMP_NUM_THREADS={given['cpus_per_task']}"
        if given["nodes"] * given["tasks_per_node"] > 1:  # a process that fails alone leaves the others waiting for it
            given["slurm_srun_args"] = ["--kill-on-bad-exit=1", *given.get("slurm_srun_args", ())]
        given |= {
            "name": f"genae-{kind}",
            "slurm_additional_parameters": flags,
            "slurm_setup": [path, threads, *given.get("slurm_setup", ())],
            "slurm_dependency": after,
        }
        if self.dry:
            number = len(self.started.scripts) + 1  # in place of the ids that SLURM would give
            ids = [f"{number}_{task}" for task in range(len(work))] if len(work) > 1 else [str(number)]
            self.started.scripts.append(_script(given, len(work), self.folders.logs))
            self.started.jobs += ids
            return ids
        executor = submitit.AutoExecutor(
            folder=self.folders.logs, cluster="slurm", slurm_max_num_timeout=shape.get("slurm_max_num_timeout", clusters.SLOTS)
        )
        executor.update_parameters(**given)
        try:
            # What sbatch says is in the error.
            with contextlib.redirect_stderr(io.StringIO()), _outside_a_job(), executor.batch():
                jobs = [executor.submit(*call) for call in work]
            ids = [job.job_id for job in jobs]
        except (FailedSubmissionError, FailedJobError, subprocess.CalledProcessError) as error:
            lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Try ")]
            said = lines[-1] if lines else "sbatch ended without a word"
            raise ValueError(f"SLURM refused the jobs: {said}") from error
        self.started.jobs += ids
        return ids

    def _tell(self, place: RunDir, job: str, *kinds: str) -> None:
        """Leave in a run directory which job it was given to, at once: what a launch that dies has submitted is known."""
        if self.dry:
            return
        slurm_jobs = self.cluster.cluster == "slurm"
        said = {
            "cluster": "slurm" if slurm_jobs else "local",
            "job": job,
            "host": socket.gethostname(),
            "started": None if slurm_jobs else process_start(int(job)),
            "submitted": time.time(),
            "folder": str(self.folders.logs),
            "launch": self.started.id,
        }
        place.path.mkdir(parents=True, exist_ok=True)
        write_json(place.job, (read_json(place.job) or {}) | dict.fromkeys(kinds, said))

    def _shape(self, run: RunSpec, excluded: set[str]) -> dict[str, Any]:
        """What sbatch is asked for a run, without nodes that were broken."""
        shape = self.cluster.resources(run.compute)
        if excluded:
            shape["slurm_exclude"] = ",".join(filter(None, [shape.get("slurm_exclude"), *sorted(excluded)]))
        return json.loads(json.dumps(shape))  # as it is when it has been a key

    def _work(self, groups: Iterable[tuple[Sequence[RunSpec], int | None]], shape: Mapping[str, Any]) -> list[tuple]:
        """The calls that do (runs, stage to stop after)."""
        runs = str(self.folders.runs)
        return [(Work(), [self._plain(run, shape) for run in group], runs, upto) for group, upto in groups]

    def _plain(self, run: RunSpec, shape: Mapping[str, Any]) -> dict[str, Any]:
        """A run as a job gets it: its code is the snapshot's, and it writes a checkpoint several times in a slot."""
        often = 60.0 * shape["timeout_min"] / CHECKPOINTS_IN_A_SLOT
        compute = replace(
            run.compute,
            gpus=shape["gpus"] or None,
            nodes=shape["nodes"],
            checkpoint_seconds=min(run.compute.checkpoint_seconds, often),
        )
        return replace(run, root=self.code, compute=compute).to_dict()


def job_in_flight(directory: RunDir, kind: str, queue: Mapping[str, slurm.Queued]) -> str | None:
    """The job that was submitted to "train" or "measure" in a run directory, if it waits or works."""
    job = (read_json(directory.job) or {}).get(kind)
    return job["job"] if job and in_flight(job, queue) else None


def in_flight(job: Mapping[str, Any], queue: Mapping[str, slurm.Queued]) -> bool:
    """Whether a job, as job.json has it, waits or works."""
    if job["cluster"] == "slurm":
        queued = queue.get(job["job"])
        return queued is not None and queued.reason != slurm.NEVER
    return job["host"] == socket.gethostname() and is_running(int(job["job"]), job["started"])


def broken_nodes(todo: Iterable[RunSpec], runs: Path) -> set[str]:
    """The nodes that were at fault where these runs failed, one after another."""
    failures = [read_json(place.failure) for run in todo for place in study.directories(run, runs)]
    return {node for failure in failures if failure for node in failure.get("broken_nodes", ())}


def _script(given: Mapping[str, Any], count: int, logs: Path) -> str:
    """The file that sbatch would get for these parameters, whether or not there is a SLURM here."""
    from submitit.slurm.slurm import SlurmExecutor, _convert_mem, _make_sbatch_string

    names = SlurmExecutor._equivalence_dict()
    parameters = {names.get(key, key.removeprefix("slurm_")): value for key, value in given.items()}
    if "mem" in parameters:
        parameters["mem"] = _convert_mem(parameters["mem"])
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    return _make_sbatch_string(command, logs, map_count=count if count > 1 else None, **parameters)


def _in_parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """In parts that an array can hold."""
    for start in range(0, len(items), MOST_IN_AN_ARRAY):
        yield items[start : start + MOST_IN_AN_ARRAY]


@contextlib.contextmanager
def _outside_a_job() -> Iterator[None]:
    """sbatch that is called in a job (salloc) does not pass on what that job was given; SLURM_CONF is the site's, and stays."""
    of_a_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    names = [name for name in os.environ if name.startswith(of_a_job) and name != "SLURM_CONF"]
    hidden = {name: os.environ.pop(name) for name in names} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def _in_code(code: Path) -> Iterator[None]:
    """What is started meanwhile imports from the folder `code` first."""
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), kept]))
    try:
        with contextlib.chdir(code):
            yield
    finally:
        os.environ.pop("PYTHONPATH")
        if kept is not None:
            os.environ["PYTHONPATH"] = kept


@contextlib.contextmanager
def _on_its_own() -> Iterator[None]:
    """What is started meanwhile outlives the terminal, and keeps no pipe open that somebody reads to its end."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}  # inherited
    sys.stdout.flush()
    kept = [os.dup(stream) for stream in (0, 1, 2)]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        yield
    finally:
        for stream, original in enumerate(kept):
            os.dup2(original, stream)
            os.close(original)
        os.close(nothing)
        for number, handler in before.items():
            signal.signal(number, handler)
