"""`genae status` and `genae logs`: what they say of run directories, each put into a state as the real thing leaves it."""

import io
import json
import os
import resource
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from genae import logs, slurm, status
from genae.cli import main
from genae.rundir import RunDir, process_start
from genae.slurm import Queued

NOW = 1_700_000_000.0  # when most of what is told here happened
GONE = 2**22 + 1  # a number that no process has
FIRST, SECOND = 1000, 500  # images of the two stages


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


@dataclass
class Run:
    """A run of two stages, as far as its directories know it."""

    runs: Path
    row: str
    seed: int

    @property
    def places(self) -> list[RunDir]:
        return [RunDir(self.runs / f"vae-faces-s{self.seed}-{self.row}{stage}") for stage in (1, 2)]

    def announce(self, table: str = "paper/table1", columns=("mse", "fid"), row: str | None = None, first: str | None = None):
        """first: the folder of the first stage, where it is another run's."""
        stages = [("autoencoder", first or self.places[0].path.name, FIRST), ("density", self.places[1].path.name, SECOND)]
        entry = {"table": table, "row": row or self.row, "data_name": "faces", "seed": self.seed, "scale": "desk"}
        entry |= {"columns": list(columns)}
        entry |= {"stages": [{"name": name, "directory": folder, "total_images": total} for name, folder, total in stages]}
        self.places[1].path.mkdir(parents=True, exist_ok=True)
        rows = json.loads(self.places[1].rows.read_text()) if self.places[1].rows.exists() else []
        write_json(self.places[1].rows, [*rows, entry])
        return self

    def train(self, first: int, second: int = 0, starts: int = 1):
        """Checkpoints up to so many images of each stage, and what the trainer tells beside them."""
        for place, images, total in zip(self.places, (first, second), (FIRST, SECOND), strict=True):
            if images:
                place.checkpoints.mkdir(parents=True, exist_ok=True)
                (place.checkpoints / f"{images:010d}.pt").touch()
                write_json(place.provenance, [{"time": NOW + start, "host": "node1"} for start in range(starts)])
                told = {"images_seen": images, "total_images": total, "images_per_second": 50.0, "loss": 0.25, "time": NOW + 60}
                write_json(place.status, told)
        return self

    def measure(self, *columns: str):
        self.places[1].records.write_text("".join(json.dumps({"column": column, "value": 1.0}) + "\n" for column in columns))
        return self

    def submit(self, kind: str = "train", job: str = "12_3", at: float = NOW, places=(0, 1), **told):
        """What a launch leaves: job.json."""
        said = {
            "cluster": "slurm",
            "job": job,
            "host": "login",
            "started": None,
            "submitted": at,
            "folder": str(self.runs / "logs"),
        }
        for index in places:
            place = self.places[index]
            place.path.mkdir(parents=True, exist_ok=True)
            others = json.loads(place.job.read_text()) if place.job.exists() else {}
            write_json(place.job, others | {kind: said | told})
        return self

    def fail(self, stage: int, at: float = NOW + 100, job: str | None = None):
        self.places[stage].path.mkdir(parents=True, exist_ok=True)
        told = {
            "time": at,
            "reason": "Diverged: pixels became nan",
            "traceback": "Traceback: here\n",
            "node": "node2",
            "job": job,
        }
        write_json(self.places[stage].failure, told)
        return self

    def own(self, stage: int, **told):
        """An owner.json that nobody alive stands behind."""
        owner = {"host": socket.gethostname(), "pid": GONE, "started": "1", "token": "t", "node": "node1", "job": "12_3"}
        self.places[stage].path.mkdir(parents=True, exist_ok=True)
        write_json(self.places[stage].owner, owner | told)
        return self


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, the working directory; SLURM answers with an empty queue unless told otherwise."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "results" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "queue", dict)
    monkeypatch.setattr(slurm, "ended", lambda jobs: {})
    return tmp_path


@pytest.fixture
def run(project):
    def make(row: str = "vae", seed: int = 0) -> Run:
        return Run(project / "results" / "runs", row, seed)

    return make


def genae(*arguments: str, monkeypatch) -> int:
    """The command line in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["genae", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def only(project: Path) -> status.RunState:
    (state,) = status.read(project / "results" / "runs")
    return state


def queued(monkeypatch, **jobs: Queued | None) -> None:
    """What squeue says: job_12_3=Queued(...)."""
    answer = {name.removeprefix("job_"): job for name, job in jobs.items()}
    monkeypatch.setattr(slurm, "queue", lambda: answer)


# States.


def test_a_run_is_done_when_every_stage_is_trained_and_every_column_recorded(project, run):
    mine = run().announce().train(FIRST, SECOND).measure("mse", "fid")
    state = only(project)
    assert (state.name, state.table, state.state) == ("vae/faces/s0", "paper/table1", "done")
    assert (state.images_seen, state.total_images, state.loss, state.restarts) == (1500, 1500, 0.25, 0)
    assert state.directories == tuple(place.path for place in mine.places)
    mine.measure("mse")
    assert only(project).state == "unfinished"
    mine.measure("mse", "fid")
    (mine.places[1].checkpoints / f"{SECOND:010d}.pt").rename(mine.places[1].checkpoints / f"{SECOND - 1:010d}.pt")
    assert only(project).state == "unfinished"


def test_a_run_that_is_trained_has_the_name_of_its_stage_a_pace_and_the_time_that_all_stages_still_take(project, run):
    mine = run().announce().train(FIRST, 100, starts=3)
    status_file = {"images_seen": 150, "total_images": SECOND, "images_per_second": 50.0, "loss": 0.125, "time": NOW + 60}
    write_json(mine.places[1].status, status_file)
    with mine.places[1].claim():
        state = only(project)
        assert (state.state, state.node, state.loss) == ("density", socket.gethostname(), 0.125)
        assert (state.images_seen, state.images_per_second) == (1150, 50.0)
        assert state.seconds_left == 7.0  # (500 - 150) images at 50 a second
        assert state.restarts == 4  # three starts of each stage
    with mine.places[0].claim():  # somebody holds what is done: not this run's business
        assert only(project).state == "unfinished"
    assert only(project).images_seen == 1100  # to go on, it begins at the checkpoint


def test_what_is_left_counts_the_stages_to_come(project, run):
    mine = run().announce().train(400)
    with mine.places[0].claim():
        state = only(project)
    assert (state.state, state.images_seen, state.seconds_left) == ("autoencoder", 400, (600 + 500) / 50.0)


def test_a_pace_from_before_the_present_start_is_not_told(project, run):
    mine = run().announce().train(400)
    write_json(mine.places[0].provenance, [{"time": NOW}, {"time": NOW + 3600}])  # status.json is of NOW + 60
    with mine.places[0].claim():
        state = only(project)
    assert (state.images_seen, state.images_per_second, state.seconds_left) == (400, None, None)


def test_a_trained_run_that_somebody_holds_is_being_measured(project, run):
    mine = run().announce().train(FIRST, SECOND).measure("mse")
    with mine.places[1].claim():
        state = only(project)
    assert (state.state, state.images_seen, state.seconds_left) == ("measuring", 1500, None)


def test_a_waiting_job_says_why_it_waits(project, run, monkeypatch):
    run().announce().submit()
    queued(monkeypatch, job_12_3=Queued("PENDING", None, "Resources"))
    state = only(project)
    assert (state.state, state.reason, state.job, state.node) == ("queued", "Resources", "12_3", None)


def test_a_requeued_job_waits_again(project, run, monkeypatch):
    run().announce().train(400, starts=2).own(0).submit()
    queued(monkeypatch, job_12_3=Queued("REQUEUE_HOLD", None, "job requeued in held state"))
    state = only(project)
    assert (state.state, state.images_seen, state.restarts) == ("queued", 400, 1)


@pytest.mark.parametrize(("word", "reason"), [("RUNNING", None), ("CONFIGURING", "CONFIGURING"), ("COMPLETING", "COMPLETING")])
def test_a_job_that_runs_but_has_not_taken_the_run_up_is_starting(project, run, monkeypatch, word, reason):
    run().announce().submit()
    queued(monkeypatch, job_12_3=Queued(word, "node2", None))
    state = only(project)
    assert (state.state, state.node, state.reason) == ("starting", "node2", reason)


def test_a_job_that_is_gone_and_has_not_done_its_work_is_lost(project, run):
    run().announce().train(400).submit()
    state = only(project)
    assert (state.state, state.job, state.reason) == ("lost", "12_3", "its job 12_3 is not in the queue any more")


def test_of_a_lost_run_accounting_knows_how_its_job_ended(project, run, monkeypatch):
    run().announce().submit().own(0)
    monkeypatch.setattr(slurm, "ended", lambda jobs: dict.fromkeys(jobs, "OUT_OF_MEMORY"))
    assert only(project).reason == "SLURM ended its job 12_3: OUT_OF_MEMORY"


def test_of_a_lost_run_without_accounting_its_log_tells_what_slurm_wrote_last(project, run):
    run().announce().submit().own(0)
    assert only(project).reason == "the process that worked on it died (killed, or out of memory?)"
    (project / "results/runs/logs").mkdir()
    said = "slurmstepd-node1: error: *** JOB 5 ON node1 CANCELLED AT 2026-11-22T10:09:19 DUE TO TIME LIMIT ***"
    (project / "results/runs/logs/12_3_0_log.err").write_text("a line of the run\n" * 1000 + said + "\n")
    assert only(project).reason == "JOB 5 ON node1 CANCELLED AT 2026-11-22T10:09:19 DUE TO TIME LIMIT"


def test_a_job_whose_dependency_failed_will_never_run(project, run, monkeypatch):
    run().announce().submit()
    queued(monkeypatch, job_12_3=Queued("PENDING", None, "DependencyNeverSatisfied"))
    state = only(project)
    assert (state.state, state.reason) == ("lost", "its job 12_3 waits for one that failed")


def test_where_squeue_does_not_answer_nothing_is_taken_for_lost(project, run, monkeypatch):
    run("vae").announce().submit()
    run("gan").announce().train(FIRST, SECOND).measure("mse", "fid").submit()
    monkeypatch.setattr(slurm, "queue", lambda: None)
    gan, vae = status.read(project / "results" / "runs")
    assert (gan.state, vae.state) == ("done", "queued")
    assert "squeue does not answer" in vae.reason


def test_squeue_is_asked_once_and_only_if_a_submitted_run_is_not_done(project, run, monkeypatch):
    asked = []
    monkeypatch.setattr(slurm, "queue", lambda: asked.append(1) or {})
    run("gan").announce().train(FIRST, SECOND).measure("mse", "fid").submit()
    run("pca").announce()
    status.read(project / "results" / "runs")
    assert asked == []
    for seed in range(3):
        run("vae", seed).announce().submit()
    assert [state.state for state in status.read(project / "results" / "runs")] == ["done", "unfinished", *["lost"] * 3]
    assert asked == [1]


def test_the_job_that_counts_is_that_of_what_is_to_be_done_next(project, run, monkeypatch):
    run().announce().train(FIRST, SECOND).submit("train", "12_0").submit("measure", "13_0", places=[1])
    queued(monkeypatch, job_13_0=Queued("PENDING", None, "Dependency"))
    assert (only(project).state, only(project).job) == ("queued", "13_0")
    queued(monkeypatch, job_12_0=Queued("RUNNING", "node1", None))
    assert only(project).state == "lost"
    run().submit("measure", "12_0", places=[1])
    assert only(project).state == "starting"


def test_what_is_trained_for_several_runs_is_told_of_each(project, run, monkeypatch):
    one, two = run("one"), run("two")
    one.announce().submit("train", "12_0")
    two.announce(first=one.places[0].path.name).submit("train", "12_1", places=[1])
    queued(monkeypatch, job_12_0=Queued("PENDING", None, "Priority"), job_12_1=Queued("PENDING", None, "Dependency"))
    assert [(state.name, state.reason) for state in status.read(one.runs)] == [
        ("one/faces/s0", "Priority"),
        ("two/faces/s0", "Priority"),
    ]
    with one.places[0].claim():
        assert [state.state for state in status.read(one.runs)] == ["autoencoder"] * 2


def test_a_run_that_was_only_begun_is_unfinished(project, run):
    run("begun").announce().train(400)
    run("killed").announce().train(400).own(0)
    begun, killed = status.read(project / "results" / "runs")
    assert (begun.state, begun.reason) == ("unfinished", None)
    assert (killed.state, killed.reason) == ("unfinished", "the process that worked on it died (killed, or out of memory?)")


def test_a_local_job_waits_while_its_process_lives_and_is_lost_afterwards(project, run):
    mine = run().announce()
    me = {"cluster": "local", "job": str(os.getpid()), "host": socket.gethostname(), "started": process_start(os.getpid())}
    mine.submit(**me)
    assert (only(project).state, only(project).reason) == ("queued", "waits for a worker")
    mine.submit(**me | {"started": "1"})  # another process has its number now
    assert only(project).state == "lost"
    assert only(project).reason == f"its process {os.getpid()} on {socket.gethostname()} is gone"


# Failures, and what supersedes them.


def test_a_failure_is_told_with_its_reason_and_node(project, run):
    run().announce().train(400).fail(0)
    state = only(project)
    assert (state.state, state.reason, state.node) == ("failed", "Diverged: pixels became nan", "node2")


def test_a_failure_gives_way_to_a_later_submission_and_to_an_owner_that_lives(project, run, monkeypatch):
    mine = run().announce().train(400).fail(0, at=NOW + 100, job="12_3").submit(at=NOW)
    assert only(project).state == "failed"
    mine.submit(job="13_3", at=NOW + 200)
    assert only(project).state == "lost"
    queued(monkeypatch, job_13_3=Queued("PENDING", None, "Priority"))
    assert only(project).state == "queued"
    mine.submit(job="12_3", at=NOW)
    with mine.places[0].claim():
        assert only(project).state == "autoencoder"
    assert only(project).state == "failed"


def test_the_clocks_of_hosts_may_differ_a_job_has_failed_if_its_failure_says_so(project, run):
    run().announce().fail(0, at=NOW - 5, job="12_3").submit(at=NOW)
    assert only(project).state == "failed"


def test_a_failed_job_that_was_put_back_into_the_queue_waits(project, run, monkeypatch):
    run().announce().fail(0, job="12_3").submit(at=NOW)
    queued(monkeypatch, job_12_3=Queued("PENDING", None, "BeginTime"))
    assert only(project).state == "queued"


def test_a_failed_stage_fails_every_run_that_needs_it(project, run):
    one, two = run("one").announce(), run("two")
    two.announce(first=one.places[0].path.name)
    one.fail(0)
    assert [state.state for state in status.read(one.runs)] == ["failed", "failed"]


def test_a_failure_to_measure_another_tables_column_leaves_a_run_done(project, run):
    mine = run().announce("paper/table1", ["mse"]).announce("paper/table2", ["mse", "fid"]).train(FIRST, SECOND).measure("mse")
    mine.fail(1)
    assert [(state.table, state.state) for state in status.read(mine.runs)] == [
        ("paper/table1", "done"),
        ("paper/table2", "failed"),
    ]
    mine.measure("mse", "fid")  # then it was the pictures
    assert {state.state for state in status.read(mine.runs)} == {"failed"}


# Which runs there are.


def test_runs_are_told_by_table_row_data_and_seed(project, run):
    for row, seed in [("vae", 10), ("vae", 2), ("adversarial", 0)]:
        run(row, seed).announce()
    run("vae", 2).announce("another/table", row="renamed")
    names = [(state.table, state.name) for state in status.read(project / "results" / "runs")]
    assert names == [
        ("another/table", "renamed/faces/s2"),
        ("paper/table1", "adversarial/faces/s0"),
        ("paper/table1", "vae/faces/s2"),
        ("paper/table1", "vae/faces/s10"),
    ]
    assert [state.name for state in status.read(project / "results" / "runs", "another/table")] == ["renamed/faces/s2"]


def test_of_a_run_that_was_changed_the_last_counts_and_what_is_in_flight(project, run):
    old, new = run("old").announce(row="vae").fail(0), run("new").announce(row="vae")
    os.utime(old.places[1].rows, (NOW, NOW))
    assert only(project).directories[1] == new.places[1].path
    with old.places[0].claim():
        assert [state.state for state in status.read(old.runs)] == ["autoencoder", "unfinished"]


def test_a_row_that_trains_nothing_is_measured_where_it_was_announced(project, run):
    place = run().places[1]
    place.path.mkdir()
    entry = {
        "table": "paper/table1",
        "row": "pca",
        "data_name": "faces",
        "seed": 0,
        "scale": "desk",
        "columns": ["mse"],
        "stages": [],
    }
    write_json(place.rows, [entry])
    assert (only(project).state, only(project).total_images) == ("unfinished", 0)
    with place.claim():
        assert only(project).state == "measuring"
    place.records.write_text('{"column": "mse"}\n')
    assert only(project).state == "done"


def test_a_row_of_pictures_alone_is_done_once_they_are_drawn(project, run):
    mine = run().announce(columns=()).train(FIRST, SECOND)
    assert only(project).state == "unfinished"
    write_json(mine.places[1].drawn, [])
    assert only(project).state == "done"


def test_directories_of_before_are_known_by_the_run_that_they_hold(project, run):
    """What study's runs left before there was a rows.json: run.json in each stage's directory."""
    schedule = {"total_kimg": 0.5, "phases": []}
    held = {"table": "paper/old", "row": "vae", "scale": "desk", "data_name": "faces", "seed": 3, "columns": [{"id": "mse"}]}
    held |= {"model": {"name": "vae"}, "data": {"name": "faces"}}
    held |= {"stages": [{"name": name, "identity": name * 20, "schedule": schedule} for name in ("one", "two")]}
    for index, name in enumerate(("one", "two")):
        place = RunDir.of(project / "results" / "runs", "vae-faces-s3", name * 20)
        place.checkpoints.mkdir(parents=True)
        write_json(place.run, {"table": "paper/old", "row": "vae", "total_images": 500, "run": held})
        (place.checkpoints / f"{500 - 100 * index:010d}.pt").touch()
    state = only(project)
    assert (state.table, state.name, state.state) == ("paper/old", "vae/faces/s3", "unfinished")
    assert (state.images_seen, state.total_images) == (900, 1000)


def test_other_folders_and_files_that_cannot_be_read_now_are_no_runs(project, run):
    (project / "results/runs/logs").mkdir()
    (project / "results/runs/snapshots/abc").mkdir(parents=True)
    mine = run().announce().train(400)
    mine.places[0].status.write_text("")
    state = only(project)
    assert (state.state, state.loss) == ("unfinished", None)


# The command.


def test_the_table_has_a_line_a_run_and_the_counts_and_a_failure_is_exit_status_1(project, run, monkeypatch, capsys):
    run("done").announce().train(FIRST, SECOND).measure("mse", "fid")
    run("slow").announce().train(400, starts=2)
    run("bad").announce().fail(0)
    with run("slow").places[0].claim():
        assert genae("status", monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "node", "images", "images/s", "time", "left", "loss", "restarts", "reason"]
    told = [" ".join(line.split()) for line in lines]
    assert told[1] == "bad/faces/s0 failed node2 0 of 1,500 0% Diverged: pixels became nan"
    assert told[2] == "done/faces/s0 done 1,500 of 1,500 100% 0.25"
    assert told[3] == f"slow/faces/s0 autoencoder {socket.gethostname()} 400 of 1,500 26% 50 0:22 0.25 1"
    assert lines[4] == "3 runs: 1 done, 1 training, 1 failed"


def test_without_a_failure_the_exit_status_is_0_and_watching_without_a_terminal_prints_once(project, run, monkeypatch, capsys):
    run().announce()
    assert genae("status", "--watch", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 unfinished"


def test_json_is_a_list_of_objects(project, run, monkeypatch, capsys):
    mine = run().announce().train(400).fail(0)
    assert genae("status", "--json", monkeypatch=monkeypatch) == 1
    (state,) = json.loads(capsys.readouterr().out)
    assert state == {
        "name": "vae/faces/s0",
        "table": "paper/table1",
        "row": "vae",
        "data_name": "faces",
        "seed": 0,
        "scale": "desk",
        "state": "failed",
        "node": "node2",
        "images_seen": 400,
        "total_images": 1500,
        "images_per_second": None,
        "seconds_left": None,
        "loss": 0.25,
        "restarts": 0,
        "reason": "Diverged: pixels became nan",
        "job": None,
        "directories": [str(place.path) for place in mine.places],
    }
    assert genae("status", "--json", "--watch", monkeypatch=monkeypatch) == 2


def test_an_experiment_is_known_by_its_table_its_file_and_its_name_without_being_resolved(project, run, monkeypatch, capsys):
    run().announce("paper/table1")
    run("gan").announce("paper/table2")
    (project / "experiments").mkdir()
    text = "table: paper/table2\nimports: [no_such_module]\nrows: {gan: {nonsense: 1}}\n"
    (project / "experiments" / "second.yaml").write_text(text)
    (project / "experiments" / "fresh.yaml").write_text("table: paper/fresh\n")
    for name in ("paper/table2", "experiments/second.yaml", "second"):
        assert genae("status", name, "--json", monkeypatch=monkeypatch) == 0
        assert [state["row"] for state in json.loads(capsys.readouterr().out)] == ["gan"]
    assert genae("status", "fresh", monkeypatch=monkeypatch) == 0
    assert "no run of it has been started yet; there are runs of paper/table1, paper/table2" in capsys.readouterr().out


def test_an_unknown_experiment_is_answered_with_the_tables_there_are(project, run, monkeypatch, capsys):
    run().announce("paper/table1")
    assert genae("status", "paper/tabel1", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "there are no runs of 'paper/tabel1'; did you mean 'paper/table1'? known: paper/table1" in said


def test_where_nothing_was_run_status_says_so(project, monkeypatch, capsys):
    assert genae("status", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "no run has been started yet\n"
    assert genae("status", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == []


def one(name: str, state: str, **told) -> status.RunState:
    same = {"table": "t", "row": "r", "data_name": "d", "seed": 0, "scale": "desk", "node": None, "images_seen": 1}
    same |= {"total_images": 2, "images_per_second": None, "seconds_left": None, "loss": None, "restarts": 0}
    return status.RunState(name=name, state=state, **same | {"reason": None, "job": None, "directories": ()} | told)


def test_watching_ends_when_nothing_is_in_flight_and_leaves_done_runs_to_the_counts_where_there_is_no_room(monkeypatch):
    def states(*words: str) -> list[status.RunState]:
        return [one(f"r{index}", word) for index, word in enumerate(words)]

    looks = [
        states("done", "queued", "done"),
        states("done", "unfinished", "done"),  # between two tasks
        states("done", "density", "done"),
        states("done", "failed", "done"),
        states("done", "failed", "done"),
    ]
    monkeypatch.setattr(status, "LOOK_EVERY_SECONDS", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=5)
    last = status.watch(lambda: looks.pop(0), console)
    assert looks == []
    assert [state.state for state in last] == ["done", "failed", "done"]
    shown = console.file.getvalue()
    assert "3 runs: 2 done, 1 training" in shown
    assert "r0" not in shown[: shown.index("1 failed")]  # what is left on the screen at the end is all


def test_on_a_narrow_terminal_a_run_has_one_line_and_the_reason_of_its_trouble_stands_whole_beneath():
    reason = "Diverged: " + "pixels became nan " * 8
    states = [one("good", "done"), one("bad", "failed", reason=reason.strip())]
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=50, color_system=None)
    status.show(states, console)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["run", "good", "bad"]
    assert lines[2].rstrip().endswith("…")
    assert " ".join(" ".join(lines[3:-1]).split()) == f"failed: t/bad: {reason.strip()}"
    assert lines[-1] == "2 runs: 1 done, 1 failed"


def test_a_duration_is_told_in_the_two_units_that_matter():
    told = [status._duration(seconds) for seconds in (None, 7, 65.4, 3600 + 125, 2 * 86400 + 3 * 3600 + 240)]
    assert told == ["", "0:07", "1:05", "1:02:05", "2d 03:04"]


def test_a_thousand_run_directories_are_told_of_within_two_seconds(project, run):
    """Half of them a run's first stage, half its second; a fifth of the runs is done, the rest in other states."""
    for seed in range(500):
        mine = run("vae", seed).announce().submit(job=f"12_{seed}", at=NOW)
        if seed % 5 == 0:
            mine.train(FIRST, SECOND, starts=3).measure("mse", "fid")
        elif seed % 5 == 1:
            mine.train(FIRST, 100).own(1, host="elsewhere")
        elif seed % 5 == 2:
            mine.train(400).fail(0)
        elif seed % 5 == 3:
            mine.train(FIRST, SECOND).own(1)
    assert len(list((project / "results/runs").iterdir())) == 1000
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "genae", "status"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1].startswith("500 runs: 100 done, "), done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2.0  # of the processor, the interpreter's start included: how long it takes depends on who else runs


# Logs.


def write_log(run: Run, job: str, out: str, err: str = "") -> None:
    folder = run.runs / "logs"
    folder.mkdir(exist_ok=True)
    (folder / f"{job}_0_log.out").write_text(out)
    (folder / f"{job}_0_log.err").write_text(err)


@pytest.mark.parametrize(
    "asked",
    [
        "paper/table1/vae/faces/s0",
        "vae/faces/s0",
        "vae/",
        "vae-faces-s0-vae2",
        "faces-s0-vae",
        "results/runs/vae-faces-s0-vae2",
    ],
)
def test_a_run_is_found_by_its_name_its_directory_or_a_part_of_either(project, run, asked):
    run("vae", 0).announce()
    run("gan", 0).announce()
    assert logs.find(status.read(project / "results" / "runs"), asked).row == "vae"


def test_an_unknown_or_ambiguous_run_is_answered_with_candidates(project, run):
    for seed in (0, 1, 10):
        run("vae", seed).announce()
    states = status.read(project / "results" / "runs")
    assert logs.find(states, "vae/faces/s1").seed == 1  # s10 begins with it, but this is its whole name
    with pytest.raises(ValueError, match=r"'vae' could be paper/table1/vae/faces/s0, .*s1, .*s10; give more of it"):
        logs.find(states, "vae")
    with pytest.raises(ValueError, match="there is no run 'gan'; known: paper/table1/vae/faces/s0, "):
        logs.find(states, "gan")


def test_logs_show_the_job_that_wrote_last_and_the_traceback_of_a_failure(project, run, monkeypatch, capsys):
    mine = run().announce().submit("train", "12_0").submit("measure", "13_0", places=[1])
    write_log(mine, "12_0", "trained\n")
    write_log(mine, "13_0", "measured\n", "a warning\n")
    for path in (mine.runs / "logs").glob("12_0*"):
        os.utime(path, (NOW, NOW))
    mine.train(FIRST, SECOND).fail(1, job="13_0")
    assert genae("logs", "vae", monkeypatch=monkeypatch) == 0
    folder = project / "results/runs/logs"
    assert capsys.readouterr().out == (
        "vae/faces/s0 (failed): job 13_0 on node2\n"
        f"==> {folder}/13_0_0_log.out <==\nmeasured\n"
        f"==> {folder}/13_0_0_log.err <==\na warning\n"
        "==> failed on node2 <==\nTraceback: here\n"
    )


def test_a_log_is_followed_until_its_job_has_ended(project, run, monkeypatch, capsys):
    monkeypatch.setattr(logs, "FILES_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(logs, "JOB_EVERY_SECONDS", 0.0)
    mine = run().announce()
    write_log(mine, "0", "")
    code = """
        import sys, time
        for number in range(3):
            print("step", number, flush=True)
            time.sleep(0.1)
    """
    out = mine.runs / "logs" / "job.out"
    with out.open("w") as file:
        job = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=file)
    out.rename(mine.runs / "logs" / f"{job.pid}_0_log.out")
    here = {"cluster": "local", "host": socket.gethostname(), "started": process_start(job.pid)}
    mine.submit(job=str(job.pid), **here)
    assert genae("logs", "vae", "-f", monkeypatch=monkeypatch) == 0
    job.wait()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")] == ["step 0", "step 1", "step 2"]


def test_a_job_in_the_queue_is_followed_through_a_requeue(project, run, monkeypatch):
    """It waits, runs, is put back, runs again, and ends; where squeue once does not answer, it is not taken for over."""
    monkeypatch.setattr(logs, "FILES_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(logs, "JOB_EVERY_SECONDS", 0.0)
    mine = run().announce().submit()
    write_log(mine, "12_3", "")
    state = only(project)
    waits, works = {"12_3": Queued("PENDING", None, "Priority")}, {"12_3": Queued("RUNNING", "node1", None)}
    answers = [waits, works, None, waits, works, {}]

    def queue():
        (mine.runs / "logs" / "12_3_0_log.out").open("a").write(f"{len(answers)} answers left\n")
        return answers.pop(0)

    monkeypatch.setattr(slurm, "queue", queue)
    told = "".join(logs.follow(logs.log(state, mine.runs), wait=True))
    assert answers == []
    assert told.splitlines()[1:] == [f"{left} answers left" for left in range(6, 0, -1)]


def test_the_log_of_a_worker_at_work_is_found_by_the_process_that_watches_it(project, run):
    """submitit names the log after the watcher, which here is this process; the worker is its child."""
    mine = run().announce()
    write_log(mine, str(os.getpid()), "worker\n")
    code = f"""
        import sys
        from pathlib import Path
        from genae.rundir import RunDir
        with RunDir(Path({str(mine.places[0].path)!r})).claim():
            print("held", flush=True)
            sys.stdin.read()
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout.readline() == "held\n"
    try:
        found = logs.log(only(project), mine.runs)
        assert found.worker == f"process {worker.pid} on {socket.gethostname()}"
        assert found.paths[0].name == f"{os.getpid()}_0_log.out"
        assert not found.is_over()
    finally:
        worker.communicate()


def test_the_log_of_a_worker_that_has_ended_is_known_from_the_start_that_it_made(project, run):
    mine = run().announce().train(400)
    write_json(mine.places[0].provenance, [{"time": NOW, "host": "desk", "worker": "4711"}])
    write_log(mine, "4711", "worker\n")
    found = logs.log(only(project), mine.runs)
    assert (found.worker, found.paths[0].name, found.is_over()) == ("a worker on desk", "4711_0_log.out", True)


def test_where_nothing_tells_who_worked_on_a_run_its_log_is_to_be_looked_for(project, run, monkeypatch, capsys):
    mine = run().announce().train(400)
    write_log(mine, "4711", "worker\n")
    assert genae("logs", "vae", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "nothing tells who worked on vae/faces/s0" in said
    assert "4711_0_log" in said
