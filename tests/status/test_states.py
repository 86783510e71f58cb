"""The states `genae status` puts runs into, each brought about as the real thing leaves it, and which runs there are."""

import os
import socket

import pytest

from genae import slurm, status
from genae.rundir import RunDir, process_start, write_json
from genae.slurm import Queued

NOW = 1_700_000_000.0  # when most of what is told here happened
FIRST, SECOND = 1000, 500  # images of the two stages

# States.


def test_a_run_is_done_when_every_stage_is_trained_and_every_column_recorded(run, only):
    mine = run().announce().train(FIRST, SECOND).measure("mse", "fid")
    state = only()
    assert (state.name, state.table, state.state) == ("vae/faces/s0", "paper/table1", "done")
    assert (state.images_seen, state.total_images, state.loss, state.restarts) == (1500, 1500, 0.25, 0)
    assert state.directories == tuple(place.path for place in mine.places)
    mine.measure("mse")
    assert only().state == "unfinished"
    mine.measure("mse", "fid")
    (mine.places[1].checkpoints / f"{SECOND:010d}.pt").rename(mine.places[1].checkpoints / f"{SECOND - 1:010d}.pt")
    assert only().state == "unfinished"


def test_a_run_that_is_trained_has_the_name_of_its_stage_a_pace_and_the_time_that_all_stages_still_take(run, only):
    mine = run().announce().train(FIRST, 100, starts=3)
    status_file = {"images_seen": 150, "total_images": SECOND, "images_per_second": 50.0, "loss": 0.125, "time": NOW + 60}
    write_json(mine.places[1].status, status_file)
    with mine.places[1].claim():
        state = only()
        assert (state.state, state.node, state.loss) == ("density", socket.gethostname(), 0.125)
        assert (state.images_seen, state.images_per_second) == (1150, 50.0)
        assert state.seconds_left == 7.0  # (500 - 150) images at 50 a second
        assert state.restarts == 4  # three starts of each stage
    with mine.places[0].claim():  # somebody holds what is done: not this run's business
        assert only().state == "unfinished"
    assert only().images_seen == 1100  # to go on, it begins at the checkpoint


def test_what_is_left_counts_the_stages_to_come(run, only):
    mine = run().announce().train(400)
    with mine.places[0].claim():
        state = only()
    assert (state.state, state.images_seen, state.seconds_left) == ("autoencoder", 400, (600 + 500) / 50.0)


def test_a_pace_from_before_the_present_start_is_not_told(run, only):
    mine = run().announce().train(400)
    write_json(mine.places[0].provenance, [{"time": NOW}, {"time": NOW + 3600}])  # status.json is of NOW + 60
    with mine.places[0].claim():
        state = only()
    assert (state.images_seen, state.images_per_second, state.seconds_left) == (400, None, None)


def test_a_trained_run_that_somebody_holds_is_being_measured(run, only):
    mine = run().announce().train(FIRST, SECOND).measure("mse")
    with mine.places[1].claim():
        state = only()
    assert (state.state, state.images_seen, state.seconds_left) == ("measuring", 1500, None)


def test_a_waiting_job_says_why_it_waits(run, only, queued):
    run().announce().submit()
    queued(job_12_3=Queued("PENDING", None, "Resources"))
    state = only()
    assert (state.state, state.reason, state.job, state.node) == ("queued", "Resources", "12_3", None)


def test_a_requeued_job_waits_again(run, only, queued):
    run().announce().train(400, starts=2).own(0).submit()
    queued(job_12_3=Queued("REQUEUE_HOLD", None, "job requeued in held state"))
    state = only()
    assert (state.state, state.images_seen, state.restarts) == ("queued", 400, 1)


@pytest.mark.parametrize(("word", "reason"), [("RUNNING", None), ("CONFIGURING", "CONFIGURING"), ("COMPLETING", "COMPLETING")])
def test_a_job_that_runs_but_has_not_taken_the_run_up_is_starting(run, only, queued, word, reason):
    run().announce().submit()
    queued(job_12_3=Queued(word, "node2", None))
    state = only()
    assert (state.state, state.node, state.reason) == ("starting", "node2", reason)


def test_a_job_that_is_gone_and_has_not_done_its_work_is_lost(run, only):
    run().announce().train(400).submit()
    state = only()
    assert (state.state, state.job, state.reason) == ("lost", "12_3", "its job 12_3 is not in the queue any more")


def test_of_a_lost_run_accounting_knows_how_its_job_ended(run, only, monkeypatch):
    run().announce().submit().own(0)
    monkeypatch.setattr(slurm, "ended", lambda jobs: dict.fromkeys(jobs, "OUT_OF_MEMORY"))
    assert only().reason == "SLURM ended its job 12_3: OUT_OF_MEMORY"


def test_of_a_lost_run_without_accounting_its_log_tells_what_slurm_wrote_last(project, run, only):
    run().announce().submit().own(0)
    assert only().reason == "the process that worked on it died (killed, or out of memory?)"
    (project / "results/runs/logs").mkdir()
    said = "slurmstepd-node1: error: *** JOB 5 ON node1 CANCELLED AT 2026-11-22T10:09:19 DUE TO TIME LIMIT ***"
    (project / "results/runs/logs/12_3_0_log.err").write_text("a line of the run\n" * 1000 + said + "\n")
    assert only().reason == "JOB 5 ON node1 CANCELLED AT 2026-11-22T10:09:19 DUE TO TIME LIMIT"


def test_a_job_whose_dependency_failed_will_never_run(run, only, queued):
    run().announce().submit()
    queued(job_12_3=Queued("PENDING", None, "DependencyNeverSatisfied"))
    state = only()
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


def test_the_job_that_counts_is_that_of_what_is_to_be_done_next(run, only, queued):
    run().announce().train(FIRST, SECOND).submit("train", "12_0").submit("measure", "13_0", places=[1])
    queued(job_13_0=Queued("PENDING", None, "Dependency"))
    assert (only().state, only().job) == ("queued", "13_0")
    queued(job_12_0=Queued("RUNNING", "node1", None))
    assert only().state == "lost"
    run().submit("measure", "12_0", places=[1])
    assert only().state == "starting"


def test_what_is_trained_for_several_runs_is_told_of_each(run, queued):
    one, two = run("one"), run("two")
    one.announce().submit("train", "12_0")
    two.announce(first=one.places[0].path.name).submit("train", "12_1", places=[1])
    queued(job_12_0=Queued("PENDING", None, "Priority"), job_12_1=Queued("PENDING", None, "Dependency"))
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


def test_a_local_job_waits_while_its_process_lives_and_is_lost_afterwards(run, only):
    mine = run().announce()
    me = {"cluster": "local", "job": str(os.getpid()), "host": socket.gethostname(), "started": process_start(os.getpid())}
    mine.submit(**me)
    assert (only().state, only().reason) == ("queued", "waits for a worker")
    mine.submit(**me | {"started": "1"})  # another process has its number now
    assert only().state == "lost"
    assert only().reason == f"its process {os.getpid()} on {socket.gethostname()} is gone"


# Failures, and what supersedes them.


def test_a_failure_is_told_with_its_reason_and_node(run, only):
    run().announce().train(400).fail(0)
    state = only()
    assert (state.state, state.reason, state.node) == ("failed", "Diverged: pixels became nan", "node2")


def test_a_failure_gives_way_to_a_later_submission_and_to_an_owner_that_lives(run, only, queued):
    mine = run().announce().train(400).fail(0, at=NOW + 100, job="12_3").submit(at=NOW)
    assert only().state == "failed"
    mine.submit(job="13_3", at=NOW + 200)
    assert only().state == "lost"
    queued(job_13_3=Queued("PENDING", None, "Priority"))
    assert only().state == "queued"
    mine.submit(job="12_3", at=NOW)
    with mine.places[0].claim():
        assert only().state == "autoencoder"
    assert only().state == "failed"


def test_the_clocks_of_hosts_may_differ_a_job_has_failed_if_its_failure_says_so(run, only):
    run().announce().fail(0, at=NOW - 5, job="12_3").submit(at=NOW)
    assert only().state == "failed"


def test_a_failed_job_that_was_put_back_into_the_queue_waits(run, only, queued):
    run().announce().fail(0, job="12_3").submit(at=NOW)
    queued(job_12_3=Queued("PENDING", None, "BeginTime"))
    assert only().state == "queued"


def test_a_failed_stage_fails_every_run_that_needs_it(run):
    one, two = run("one").announce(), run("two")
    two.announce(first=one.places[0].path.name)
    one.fail(0)
    assert [state.state for state in status.read(one.runs)] == ["failed", "failed"]


def test_a_failure_to_measure_another_tables_column_leaves_a_run_done(run):
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


def test_of_a_run_that_was_changed_the_last_counts_and_what_is_in_flight(run, only):
    old, new = run("old").announce(row="vae").fail(0), run("new").announce(row="vae")
    os.utime(old.places[1].rows, (NOW, NOW))
    assert only().directories[1] == new.places[1].path
    with old.places[0].claim():
        assert [state.state for state in status.read(old.runs)] == ["autoencoder", "unfinished"]


def test_a_row_that_trains_nothing_is_measured_where_it_was_announced(run, only):
    place = run().places[1]
    place.path.mkdir()
    entry = {"table": "paper/table1", "row": "pca", "data_name": "faces", "seed": 0, "scale": "desk"}
    entry |= {"columns": ["mse"], "stages": []}
    write_json(place.rows, [entry])
    assert (only().state, only().total_images) == ("unfinished", 0)
    with place.claim():
        assert only().state == "measuring"
    place.records.write_text('{"column": "mse"}\n')
    assert only().state == "done"


def test_a_row_of_pictures_alone_is_done_once_they_are_drawn(run, only):
    mine = run().announce(columns=()).train(FIRST, SECOND)
    assert only().state == "unfinished"
    write_json(mine.places[1].drawn, [])
    assert only().state == "done"


def test_directories_of_before_are_known_by_the_run_that_they_hold(project, run, only):
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
    state = only()
    assert (state.table, state.name, state.state) == ("paper/old", "vae/faces/s3", "unfinished")
    assert (state.images_seen, state.total_images) == (900, 1000)


def test_other_folders_and_files_that_cannot_be_read_now_are_no_runs(project, run, only):
    (project / "results/runs/logs").mkdir()
    (project / "results/runs/snapshots/abc").mkdir(parents=True)
    mine = run().announce().train(400)
    mine.places[0].status.write_text("")
    state = only()
    assert (state.state, state.loss) == ("unfinished", None)
