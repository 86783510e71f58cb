"""What a submitted job does when it is told to make room, and on a node that does not work."""

import os
import pickle
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from genae import jobs, slurm, study
from genae.experiment import load
from genae.registry import MODELS
from genae.rundir import read_json, write_json
from genae.stop import Interrupted


@pytest.fixture
def run(tmp_path):
    """One run of a small VAE, in a project of its own."""
    (tmp_path / "setup.cfg").touch()
    row = {
        "data": {"name": "fashion-mnist", "resolution": 8, "count": 20},
        "model": {"name": "vae-classic", **MODELS["vae-classic"].small},
        "stages": {
            "autoencoder": {
                "objective": {"name": "elbo"},
                "schedule": {"total_kimg": 0.02, "phases": [{"resolution": 8, "batch_size": 10, "learning_rate": 0.001}]},
            }
        },
        "metrics": [{"name": "mse"}],
        "compute": {"device": "cpu"},
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({"table": "jobs/table", "rows": {"row": row}}))
    return load(tmp_path / "table.yaml").runs[0]


@pytest.fixture
def requeued():
    """The times at which submitit would have put this job back into the queue."""
    times = []

    def requeue(_number, _frame):
        times.append(time.monotonic())
        raise SystemExit

    before = signal.signal(signal.SIGUSR2, requeue)
    yield times
    signal.signal(signal.SIGUSR2, before)


def me(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def a_step_of_20_seconds() -> None:
    """In whose middle the job is told to make room."""
    began = time.monotonic()
    with jobs.room_to_be_made(lambda: True):
        me(signal.SIGUSR2)
        while time.monotonic() < began + 20:
            pass


def test_a_job_told_to_make_room_finishes_what_it_is_at_and_is_then_requeued(requeued):
    finished = []

    def work() -> None:
        with jobs.room_to_be_made(lambda: True) as stop:
            me(signal.SIGUSR2)
            assert stop.requested
            finished.append(time.monotonic())

    with pytest.raises(SystemExit):
        work()
    assert len(requeued) == 1
    assert finished[0] < requeued[0]


def test_a_job_that_is_done_when_told_to_make_room_does_not_come_back(requeued):
    with jobs.room_to_be_made(list):
        me(signal.SIGUSR2)
    assert not requeued


@pytest.mark.parametrize(("state", "returns"), [("RUNNING", True), ("COMPLETING", False), (None, False)])
def test_a_job_told_by_sigterm_alone_comes_back_if_it_was_preempted_and_not_if_it_was_cancelled(
    requeued, monkeypatch, state, returns
):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    answers = iter([None, None, {"12": slurm.Queued(state, "node1", None)} if state else {}])  # a busy controller
    monkeypatch.setattr(slurm, "queue", lambda: next(answers))

    def work() -> None:
        with jobs.room_to_be_made(lambda: True) as stop:
            me(signal.SIGTERM)
            assert stop.requested

    with pytest.raises(SystemExit if returns else Interrupted):  # what waits for the job's success does not begin
        work()
    assert len(requeued) == returns


def test_a_requeue_that_slurm_refuses_in_the_middle_of_a_step_is_not_the_runs_failure(monkeypatch):
    def refuse(*_arguments) -> None:
        raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "12"])

    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.1)
    before = signal.signal(signal.SIGUSR2, refuse)
    try:
        with pytest.raises(SystemExit, match="did not take the job back"):
            a_step_of_20_seconds()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_step_that_takes_too_long_is_given_up_for_the_requeue(requeued, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(SystemExit):
        a_step_of_20_seconds()
    assert requeued[0] - began < 10


def again(work: jobs.Work, *arguments) -> jobs.Work:
    """The object that SLURM starts when submitit has put the job back into the queue."""
    return pickle.loads(pickle.dumps(work.checkpoint(*arguments))).function


def test_a_job_whose_starts_keep_nothing_fails_rather_than_come_back_for_ever(run, monkeypatch):
    monkeypatch.setattr(study, "work", lambda *_arguments: None)  # a slot that is over before the first checkpoint
    runs = study.Folders(run.root).runs
    runs.mkdir(parents=True)
    work = jobs.Work()
    for _ in range(jobs.MOST_IN_VAIN):
        work([run.to_dict()], str(runs), None)
        work = again(work, [run.to_dict()], str(runs), None)
    with pytest.raises(jobs.RunFailed, match="timeout_min"):
        work([run.to_dict()], str(runs), None)
    (place,) = study.directories(run, runs)
    assert "5 starts of this job in a row ended before anything was kept" in read_json(place.failure)["reason"]
    jobs.Work()([run.to_dict()], str(runs), None)  # submitted anew, it may try again


def test_a_job_that_gets_on_comes_back_as_often_as_it_needs(run, monkeypatch):
    (place,) = study.directories(run, study.Folders(run.root).runs)
    place.checkpoints.mkdir(parents=True)
    images = iter(range(10, 10_000, 10))

    def slot(*_arguments) -> None:
        count = next(images)
        if count % 30 == 0:  # two slots of three are lost
            (place.checkpoints / f"{count:010d}.pt").touch()

    monkeypatch.setattr(study, "work", slot)
    work = jobs.Work()
    for _ in range(10 * jobs.MOST_IN_VAIN):
        work([run.to_dict()], str(place.path.parent), None)
        work = again(work, [run.to_dict()], str(place.path.parent), None)


def test_every_checkpoint_record_and_picture_counts_as_getting_on(run):
    runs = study.Folders(run.root).runs
    (place,) = study.directories(run, runs)
    place.checkpoints.mkdir(parents=True)
    seen = [study.progress(run, runs)]
    for name in ("0000000010.pt", "0000000020.pt"):
        (place.checkpoints / name).touch()
        seen.append(study.progress(run, runs))
    place.records.write_text('{"column": "mse", "value": 1.0}\n')
    seen.append(study.progress(run, runs))
    write_json(place.drawn, [{"name": "samples"}])
    seen.append(study.progress(run, runs))
    assert seen == sorted(set(seen))


def test_a_node_without_the_gpu_that_was_asked_for_is_broken_and_the_run_says_which_node(run, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "node7")

    def fail(*_sizes, **_settings):
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")

    monkeypatch.setattr(torch, "ones", fail)
    on_gpu = replace(run, compute=replace(run.compute, device="auto", gpus=1))
    runs = study.Folders(run.root).runs
    runs.mkdir(parents=True)
    with pytest.raises(jobs.BrokenNode, match="node7 has no GPU that works: CUDA error"):
        jobs.Work()([on_gpu.to_dict()], str(runs), 0)
    (place,) = study.directories(run, runs)
    failure = read_json(place.failure)
    assert failure["broken_nodes"] == ["node7"]
    assert failure["node"] == "node7"
    monkeypatch.setenv("SLURMD_NODENAME", "node8")
    with pytest.raises(jobs.BrokenNode, match="node8"):
        jobs.Work()([on_gpu.to_dict()], str(runs), 0)
    assert read_json(place.failure)["broken_nodes"] == ["node7", "node8"]  # neither is tried again


def test_a_node_whose_disk_takes_no_file_is_broken(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    with pytest.raises(jobs.BrokenNode, match=r"cannot write to .*gone"):
        jobs.check_node([run], tmp_path)


def test_a_job_does_its_work_up_to_the_stage_asked_for_and_then_all_of_it(run):
    runs = study.Folders(run.root).runs
    runs.mkdir(parents=True)
    jobs.Work()([run.to_dict()], str(runs), 0)
    (place,) = study.directories(run, runs)
    assert [Path(file).stem for file in place.checkpoints.glob("*.pt")] == ["0000000020"]
    assert not place.records.exists()
    jobs.Work()([run.to_dict()], str(runs), None)
    assert place.records.exists()


def test_a_job_whose_run_fails_fails_itself_so_that_what_waits_for_it_is_not_begun(run):
    runs = study.Folders(run.root).runs
    runs.mkdir(parents=True)
    (place,) = study.directories(run, runs)
    place.path.mkdir()
    place.checkpoints.write_text("a file where the folder should be")
    with pytest.raises(jobs.RunFailed, match="row/fashion-mnist/s0: "):
        jobs.Work()([run.to_dict()], str(runs), 0)
