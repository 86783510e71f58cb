"""What `genae launch` submits to SLURM, and what it does not: each run once, so many at a time, and the code as it was."""

import json
import subprocess
from datetime import datetime

import pytest

from genae.rundir import read_json

pytestmark = pytest.mark.slurm

COMPUTE = {"evaluate_in": "same-job", "slurm_partition": "steady"}
SHORT = 0.3  # thousands of images: to the end of the fade-in
SIX = {f"pool-{size}": {"pool_size": size} for size in range(2, 8)}


def most_at_once(jobs) -> int:
    """The most of these jobs that ran at one moment, as SLURM has their starts and ends (in whole seconds)."""
    times = [(datetime.fromisoformat(job["StartTime"]), datetime.fromisoformat(job["EndTime"])) for job in jobs]
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


def records(project) -> list[dict]:
    """The records that the collecting job left, which a report is drawn from; each line must be whole."""
    return [json.loads(line) for line in (project.folder / "results" / "slurm" / "table.jsonl").read_text().splitlines()]


def report(project) -> str:
    return (project.folder / "reports" / "slurm" / "table" / "index.html").read_text()


def commit_all(folder) -> str:
    """Make a git repository of a folder; returns its one commit."""
    for command in ("init", "add .", "-c user.name=x -c user.email=x commit --message as-launched"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True, capture_output=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_six_rows_by_two_seeds_under_a_cap_of_two_are_all_done_and_in_one_report(project):
    project.write(COMPUTE | {"slurm_array_parallelism": 2}, rows=SIX, seeds=[0, 1], kimg=SHORT)
    project.launch()
    project.until_done()
    assert len(project.trainings()) == 12
    assert most_at_once(project.trainings()) == 2
    assert {job["NodeList"] for job in project.trainings()} <= {"node1", "node2"}
    assert set(project.starts().values()) == {1}
    found = records(project)
    assert sorted((one["row"], one["seed"], one["column"]) for one in found) == sorted(
        (row, seed, column) for row in SIX for seed in (0, 1) for column in ("mse", "psnr")
    )
    assert all(row in report(project) for row in SIX)


def test_a_row_that_raises_leaves_the_results_of_five_and_is_named_wherever_one_looks(project):
    rows = SIX | {"pool-4": {"pool_size": 4, "breaks": True}}
    project.write(COMPUTE, rows=rows, kimg=SHORT)
    said = project.launch("--watch", expect=1)
    assert "failed: pool-4/fashion-mnist/s0: ArithmeticError: this row was made to break" in said
    project.until_idle()
    status = project.genae("status", "table", expect=1)
    assert "this row was made to break" in status
    assert {name: state["state"] for name, state in project.states().items()} == {
        f"{row}/fashion-mnist/s0": "failed" if row == "pool-4" else "done" for row in rows
    }
    assert {one["row"] for one in records(project)} == set(rows) - {"pool-4"}
    assert "pool-4/fashion-mnist/s0 failed: ArithmeticError: this row was made to break" in report(project)
    assert "this row was made to break" in project.genae("logs", "pool-4")

    project.genae("retry", "table")  # of six only the one that failed
    project.until_idle()
    assert len(project.trainings()) == 7
    assert sorted(project.starts().values()) == [1] * 10 + [2]  # two stages of five rows; the first of the one that failed


def test_an_experiment_launched_twice_at_once_is_trained_once(project):
    project.write(COMPUTE, rows={"row": {}, "other": {"pool_size": 5}}, kimg=SHORT)
    both = [project.start("launch", "table", "--cluster", "slurm") for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("submitted 2 runs" in one for one in said) == [False, True]
    assert sorted("under way already: row/fashion-mnist/s0, other/fashion-mnist/s0" in one for one in said) == [False, True]
    project.until_done()
    assert len(project.trainings()) == 2
    assert list(project.starts().values()) == [1] * 4


def test_after_scancel_of_everything_a_launch_goes_on_with_what_is_unfinished(project, undisturbed):
    project.write(COMPUTE, rows={"done": {"pool_size": 5}, "row": {}, "waiting": {"pool_size": 4}})
    project.launch("--rows", "done")
    project.until_done("done")
    project.slow_from(150)
    project.launch("compute.slurm_array_parallelism=1")
    place = project.until_seen(150)
    project.cluster.ask("scancel", *(job["JobId"] for job in project.jobs()))
    project.until_idle()
    for path in project.folder.glob("results/**/*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    states = {state["row"]: state["state"] for state in project.states().values()}
    assert states == {"done": "done", "row": "lost", "waiting": "lost"}
    assert read_json(place.status)["images_seen"] == max(int(path.stem) for path in place.checkpoints.glob("*.pt"))

    project.slow_no_more()
    assert "submitted 2 runs" in project.launch()
    project.until_done()
    assert project.digests() == undisturbed()
    assert sorted(project.starts().values()) == [1, 1, 1, 1, 1, 2]


def test_what_sbatch_refuses_is_one_message_and_leaves_nothing_in_flight(project):
    project.write(COMPUTE)
    said = project.launch("compute.slurm_partition=nowhere", expect=2)
    assert (
        said.strip()
        == "genae: SLURM refused the jobs: sbatch: error: Batch job submission failed: Invalid partition name specified"
    )
    assert project.jobs() == []
    assert not list(project.folder.glob("results/runs/*/job.json"))
    assert [state["state"] for state in project.states().values()] == ["unfinished"]
    assert "submitted 1 run " in project.launch("compute.slurm_additional_parameters={hold: true}")
    assert [state["state"] for state in project.states().values()] == ["queued"]
    project.genae("cancel", "table")
    project.until_idle()
    assert project.starts() == {}


def test_code_that_is_edited_after_a_launch_is_not_what_its_jobs_run(project, undisturbed):
    project.write(COMPUTE | {"slurm_additional_parameters": {"hold": True}})
    commit = commit_all(project.folder)
    project.launch()
    (project.folder / "paced.py").write_text("raise SystemExit('edited')\n")
    (project.folder / "experiments" / "table.yaml").write_text("edited\n")
    for job in project.jobs():
        project.cluster.ask("scontrol", "release", job["JobId"])
    project.until_idle()
    assert project.digests() == undisturbed()
    [start] = read_json(project.stage(0).provenance)
    [snapshot] = (project.folder / "results" / "runs" / "snapshots").glob("[!.]*")
    assert (start["commit"], start["dirty"], start["snapshot"]) == (commit, None, snapshot.name)
    assert {(one["column"], one["commit"], one["dirty"]) for one in records(project)} == {
        ("mse", commit, None),
        ("psnr", commit, None),
    }


def test_a_dry_run_prints_what_sbatch_would_get_and_submits_nothing(project):
    project.write(COMPUTE | {"slurm_array_parallelism": 2, "timeout_min": 90}, rows=SIX)
    said = project.launch("--dry-run")
    for line in ("--array=0-5%2", "--partition=steady", "--time=90", "--signal=USR2@", "--job-name=genae-train"):
        assert f"#SBATCH {line}" in said
    assert project.jobs() == []
    assert not list(project.folder.glob("results/runs/*/rows.json"))


def test_two_processes_on_two_nodes_learn_what_one_does(project, tmp_path):
    """With Adam's eps at 1, so that no step magnifies a gradient that is nothing but rounding."""
    several = {"gpus": 2, "nodes": 2, "slurm_setup": ["export MASTER_ADDR=127.0.0.1"]}  # no name server knows these nodes
    short = {"kimg": 0.12, "learning_rate": 0.02, "optimizer": {"name": "adam", "eps": 1.0}}
    project.write(COMPUTE | several, **short)
    project.launch()
    alone = type(project)(tmp_path / "alone", project.cluster)
    alone.write({}, **short)
    alone.genae("run", "table")
    project.until_done()
    [job] = project.trainings()
    assert job["NodeList"] == "node[1-2]"
    for stage in (0, 1):  # twelve steps, and two; they move the weights by a hundredth of their norm
        one, two = alone.weights(stage), project.weights(stage)
        distance = sum((two[name] - one[name]).square().sum() for name in one) ** 0.5
        assert distance < 1e-5 * sum(value.square().sum() for value in one.values()) ** 0.5
