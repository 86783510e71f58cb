"""`genae logs`: which run is meant, which job wrote last for it, and following it to its end."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from genae import logs, slurm, status
from genae.rundir import process_start, write_json
from genae.slurm import Queued

NOW = 1_700_000_000.0  # when most of what is told here happened
FIRST, SECOND = 1000, 500  # images of the two stages


def write_log(runs: Path, job: str, out: str, err: str = "") -> None:
    folder = runs / "logs"
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


def test_logs_show_the_job_that_wrote_last_and_the_traceback_of_a_failure(project, run, genae, capsys):
    mine = run().announce().submit("train", "12_0").submit("measure", "13_0", places=[1])
    write_log(mine.runs, "12_0", "trained\n")
    write_log(mine.runs, "13_0", "measured\n", "a warning\n")
    for path in (mine.runs / "logs").glob("12_0*"):
        os.utime(path, (NOW, NOW))
    mine.train(FIRST, SECOND).fail(1, job="13_0")
    assert genae("logs", "vae") == 0
    folder = project / "results/runs/logs"
    assert capsys.readouterr().out == (
        "vae/faces/s0 (failed): job 13_0 on node2\n"
        f"==> {folder}/13_0_0_log.out <==\nmeasured\n"
        f"==> {folder}/13_0_0_log.err <==\na warning\n"
        "==> failed on node2 <==\nTraceback: here\n"
    )


def test_a_log_is_followed_until_its_job_has_ended(run, genae, monkeypatch, capsys):
    monkeypatch.setattr(logs, "FILES_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(logs, "JOB_EVERY_SECONDS", 0.0)
    mine = run().announce()
    write_log(mine.runs, "0", "")
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
    assert genae("logs", "vae", "-f") == 0
    job.wait()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")] == ["step 0", "step 1", "step 2"]


def test_a_job_in_the_queue_is_followed_through_a_requeue(run, only, monkeypatch):
    """It waits, runs, is put back, runs again, and ends; where squeue once does not answer, it is not taken for over."""
    monkeypatch.setattr(logs, "FILES_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(logs, "JOB_EVERY_SECONDS", 0.0)
    mine = run().announce().submit()
    write_log(mine.runs, "12_3", "")
    state = only()
    waits, works = {"12_3": Queued("PENDING", None, "Priority")}, {"12_3": Queued("RUNNING", "node1", None)}
    answers = [waits, works, None, waits, works, {}]

    def queue():
        (mine.runs / "logs" / "12_3_0_log.out").open("a").write(f"{len(answers)} answers left\n")
        return answers.pop(0)

    monkeypatch.setattr(slurm, "queue", queue)
    told = "".join(logs.follow(logs.log(state, mine.runs), wait=True))
    assert answers == []
    assert told.splitlines()[1:] == [f"{left} answers left" for left in range(6, 0, -1)]


def test_the_log_of_a_worker_at_work_is_found_by_the_process_that_watches_it(run, only):
    """submitit names the log after the watcher, which here is this process; the worker is its child."""
    mine = run().announce()
    write_log(mine.runs, str(os.getpid()), "worker\n")
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
        found = logs.log(only(), mine.runs)
        assert found.worker == f"process {worker.pid} on {socket.gethostname()}"
        assert found.paths[0].name == f"{os.getpid()}_0_log.out"
        assert not found.is_over()
    finally:
        worker.communicate()


def test_the_log_of_a_worker_that_has_ended_is_known_from_the_start_that_it_made(run, only):
    mine = run().announce().train(400)
    write_json(mine.places[0].provenance, [{"time": NOW, "host": "desk", "worker": "4711"}])
    write_log(mine.runs, "4711", "worker\n")
    found = logs.log(only(), mine.runs)
    assert (found.worker, found.paths[0].name, found.is_over()) == ("a worker on desk", "4711_0_log.out", True)


def test_where_nothing_tells_who_worked_on_a_run_its_log_is_to_be_looked_for(run, genae, capsys):
    mine = run().announce().train(400)
    write_log(mine.runs, "4711", "worker\n")
    assert genae("logs", "vae") == 2
    said = capsys.readouterr().err
    assert "nothing tells who worked on vae/faces/s0" in said
    assert "4711_0_log" in said
