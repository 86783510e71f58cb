"""Launching: how runs become jobs, which are submitted again, and what a launch on this machine leaves behind."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from genae import arrays, launcher, slurm, study
from genae.announced import announced
from genae.arrays import units_of
from genae.experiment import Asked, load
from genae.registry import MODELS
from genae.rundir import read_json, write_json

VAE = {"name": "vae-classic", **MODELS["vae-classic"].small}
PHASES = [{"resolution": 8, "batch_size": 10, "learning_rate": 0.002}]


def vae(total_kimg: float = 0.04) -> dict:
    return {"objective": {"name": "elbo"}, "schedule": {"total_kimg": total_kimg, "phases": PHASES}}


def density(name: str) -> dict:
    return {"density": {"name": name}, "schedule": {"total_kimg": 0.02, "phases": [{"batch_size": 10, "learning_rate": 0.001}]}}


def experiment(folder: Path, rows: dict, seeds=(0,), **shared) -> Path:
    """An experiment file of a project of its own; rows: id -> what it says beside the shared data and model."""
    (folder / "experiments").mkdir(parents=True)
    (folder / "setup.cfg").touch()
    shared = {
        "data": {"name": "fashion-mnist", "resolution": 8, "count": 30},
        "model": VAE,
        "metrics": [{"name": "mse"}],
        **shared,
    }
    path = folder / "experiments" / "table.yaml"
    path.write_text(
        yaml.safe_dump({"table": "launch/table", "seeds": list(seeds), "shared": shared, "rows": rows}, sort_keys=False)
    )
    return path


@pytest.fixture
def one_autoencoder_and_its_densities(tmp_path):
    rows = {
        "alone": {"stages": {"autoencoder": vae()}},
        "gaussian": {"stages": {"autoencoder": vae(), "density": density("gaussian")}},
        "lde": {"stages": {"autoencoder": vae(), "density": density("lde")}},
        "other": {"stages": {"autoencoder": vae(0.05), "density": density("gaussian")}},
    }
    return experiment(tmp_path, rows)


def options(script: str) -> dict[str, str]:
    """The #SBATCH options of a file for sbatch."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))


def dry(path: Path, *overrides: str) -> list[dict[str, str]]:
    return [options(script) for script in launcher.launch(Asked(str(path), overrides=overrides), "slurm", dry=True).scripts]


def test_a_stage_that_runs_share_is_one_unit_and_what_goes_on_from_it_comes_after(one_autoencoder_and_its_densities):
    runs = {run.row: run for run in load(one_autoencoder_and_its_densities).runs}
    units = units_of(list(runs.values()))
    assert [[run.row for run in unit.runs] for unit in units] == [
        ["alone", "gaussian", "lde"],
        ["gaussian"],
        ["lde"],
        ["other"],
    ]
    shared, gaussian, lde, other = units
    assert gaussian.after is shared
    assert lde.after is shared
    assert shared.after is other.after is None
    assert [run.row for run in shared.finished] == ["alone"]
    assert other.last == 1  # both stages in one job: nobody else needs the first
    assert units_of([runs["gaussian"]])[0].last == 1  # nor here, where the others are not launched


def test_every_stage_of_every_run_is_trained_by_exactly_one_unit(tmp_path):
    runs = load("iae-2019/matrix").runs
    units = units_of(runs)
    trained = [place.path.name for unit in units for place in unit.directories(tmp_path)]
    assert sorted(trained) == sorted(
        {place.path.name for run in runs if run.stages for place in study.directories(run, tmp_path)}
    )
    for unit in units:
        assert unit.wave == (1 if unit.after else 0)


def test_jobs_wait_for_exactly_what_they_need(one_autoencoder_and_its_densities):
    found = [(one["job-name"], one.get("dependency")) for one in dry(one_autoencoder_and_its_densities)]
    # "alone" and "other" are alike: an array, measured task by task. The densities go on from its first task.
    assert found == [
        ("genae-train", None),
        ("genae-measure", "aftercorr:1"),
        ("genae-train", "afterok:1_0"),
        ("genae-measure", "aftercorr:3"),
        ("genae-collect", "afterany:1:2:3:4"),
    ]


def test_rows_of_unlike_resources_get_arrays_of_their_own_and_the_cap_is_the_arrays(tmp_path):
    rows = {
        "small": {"stages": {"autoencoder": vae()}},
        "wide": {"stages": {"autoencoder": vae(0.05)}, "compute": {"mem_gb": 40, "timeout_min": 30}},
    }
    path = experiment(tmp_path, rows, seeds=(0, 1, 2), compute={"slurm_array_parallelism": 2, "evaluate_in": "same-job"})
    small, wide, collect = dry(path)
    assert small["array"] == wide["array"] == "0-2%2"
    assert (wide["mem"], wide["time"]) == ("40GB", "30")
    assert "mem" not in small
    assert collect["dependency"] == "afterany:1:2"


def test_a_dry_run_leaves_nothing_but_the_snapshot(one_autoencoder_and_its_densities):
    dry(one_autoencoder_and_its_densities)
    runs = one_autoencoder_and_its_densities.parents[1] / "results" / "runs"
    assert {path.name for path in runs.iterdir()} <= {"snapshots", "logs", ".launching"}


def test_jobs_find_a_cache_that_was_named_from_where_one_stood(one_autoencoder_and_its_densities, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENAE_CACHE", "here")
    dry(one_autoencoder_and_its_densities)
    assert os.environ["GENAE_CACHE"] == str(tmp_path / "here")


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_dry_run_of_what_has_no_sbatch_is_refused_and_starts_nothing(one_autoencoder_and_its_densities, cluster):
    path = one_autoencoder_and_its_densities
    with pytest.raises(ValueError, match="has no sbatch"):
        launcher.launch(Asked(str(path)), cluster, dry=True)
    assert not (path.parents[1] / "results").exists()


@pytest.fixture
def submitted(one_autoencoder_and_its_densities):
    """(run, runs, queue): a run as a launch leaves it, with a job to train each stage and one to measure it, all queued."""
    run = next(run for run in load(one_autoencoder_and_its_densities).runs if run.row == "gaussian")
    runs = study.Folders(run.root).runs
    for number, place in enumerate(study.directories(run, runs)):
        place.path.mkdir(parents=True)
        write_json(
            place.job, {"train": {"cluster": "slurm", "job": f"7_{number}"}, "measure": {"cluster": "slurm", "job": "8"}}
        )
    return run, runs, {job: slurm.Queued("PENDING", None, None) for job in ("7_0", "7_1", "8")}


def test_a_run_is_under_way_while_everything_that_it_needs_is(submitted):
    run, runs, queue = submitted
    assert launcher.is_in_flight(run, runs, queue)
    for job in queue:
        assert not launcher.is_in_flight(run, runs, {other: state for other, state in queue.items() if other != job})


def test_a_job_whose_turn_will_never_come_is_not_under_way(submitted):
    run, runs, queue = submitted
    assert not launcher.is_in_flight(run, runs, queue | {"8": slurm.Queued("PENDING", None, slurm.NEVER)})


def test_a_broken_node_is_left_out_when_its_runs_are_submitted_again(submitted, monkeypatch):
    run, runs, _ = submitted
    place = study.directories(run, runs)[0]
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    study.keep_failure(place, RuntimeError("no GPU"), broken_node=True)
    monkeypatch.setattr(slurm, "queue", dict)
    found = dry(run.root / "experiments" / "table.yaml", "compute.slurm_exclude=node1")
    assert {one.get("exclude") for one in found if one["job-name"] == "genae-train"} == {"node1", "node1,node7"} - {"node1"}


@pytest.fixture
def watching(submitted, monkeypatch):
    """stay(cluster): what `--watch` submits again until it gives up, and what it says; the queue is empty, so all is lost."""
    run, _, _ = submitted
    monkeypatch.setattr(launcher, "LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "queue", dict)

    def stay(submit) -> tuple[list[str], list[str]]:
        again, said = [], []

        def launched(asked, name, *, only, jobs):
            again.append(name)
            assert only(run, None)
            assert jobs == 3
            submit(len(again))

        monkeypatch.setattr(launcher, "launch", launched)
        asked = Asked(str(run.root / "experiments" / "table.yaml"), rows=("gaussian",))
        launcher.stay(asked, "slurm", time.time(), said.append, jobs=3)
        return again, said

    return stay


def test_a_run_that_is_lost_is_submitted_again_until_that_is_in_vain(submitted, watching):
    run, runs, _ = submitted
    folder = study.directories(run, runs)[0].checkpoints
    folder.mkdir()
    reached = [10, 20, *[20] * 4, 30, *[30] * 5]  # images, after each submission; the fifth in vain is the last
    again, said = watching(lambda count: (folder / f"{reached[count - 1]:010d}.pt").touch())
    assert again == ["slurm"] * 12
    assert said[:-1] == ["submitted again: gaussian/fashion-mnist/s0"] * 12
    assert said[-1].startswith("left at that: gaussian/fashion-mnist/s0 (cancelled, or lost 5 times")


def test_a_watch_outlasts_a_queue_that_refuses_for_a_moment(watching):
    def refused(count: int) -> None:
        if count < 3:
            raise ValueError("sbatch: error: QOSMaxSubmitJobPerUserLimit")

    again, said = watching(refused)
    assert len(again) == launcher.MOST_IN_VAIN
    assert [line.partition(" gaussian")[0] for line in said[:3]] == [
        "could not submit again",
        "could not submit again",
        "submitted again:",
    ]
    assert "QOSMaxSubmitJobPerUserLimit" in said[0]


@pytest.mark.parametrize("broken_node", [True, False])
def test_a_failure_is_submitted_again_only_where_the_node_was_at_fault(submitted, watching, broken_node):
    run, runs, _ = submitted
    place = study.directories(run, runs)[0]
    study.keep_failure(place, RuntimeError("no GPU"), broken_node=broken_node)
    kept = read_json(place.failure)
    write_json(place.failure, kept | {"node": "node7", "time": kept["time"] + 3600})  # since the watch began
    assert len(watching(lambda count: None)[0]) == (launcher.MOST_IN_VAIN if broken_node else 0)


@pytest.fixture
def two_submitted(one_autoencoder_and_its_densities, monkeypatch):
    """(path, what scancel is told): rows gaussian and lde as a launch leaves them, with job 1 for the stage they share."""
    path = one_autoencoder_and_its_densities
    runs = [run for run in load(path).runs if run.row in ("gaussian", "lde")]
    folder = study.Folders(path.parents[1]).runs
    study.announce(runs, folder)
    (folder / "launches").mkdir()
    kept = {"table": "launch/table", "cluster": "slurm", "scale": "paper", "overrides": [], "seeds": None, "rows": None}
    write_json(folder / "launches" / "1.json", kept)
    told = {"cluster": "slurm", "host": "login", "started": None, "submitted": 1.0, "folder": ""}
    for number, run in enumerate(runs, start=2):
        shared, own = study.directories(run, folder)
        shared.path.mkdir(exist_ok=True)
        write_json(shared.job, {"train": told | {"job": "1"}})
        write_json(own.job, {"train": told | {"job": str(number)}, "measure": told | {"job": f"{number}0"}})
    monkeypatch.setattr(slurm, "queue", lambda: dict.fromkeys(["1", "2", "20", "3", "30"], slurm.Queued("PENDING", None, None)))
    cancelled = []
    monkeypatch.setattr(slurm, "cancel", cancelled.extend)
    return path, cancelled


def test_cancelling_a_row_leaves_the_jobs_that_other_runs_need(two_submitted):
    path, cancelled = two_submitted
    ended, needed = launcher.cancel(Asked(str(path), rows=("gaussian",)))
    assert sorted(cancelled) == ended == ["2", "20"]
    assert needed == {"1": ["lde/fashion-mnist/s0"]}


def test_cancelling_goes_by_what_was_submitted_and_not_by_what_the_file_says_now(two_submitted):
    path, cancelled = two_submitted
    path.write_text(path.read_text().replace("gaussian:", "renamed:").replace("seeds:\n- 0", "seeds:\n- 7"))
    ended, needed = launcher.cancel(Asked(str(path)))
    assert sorted(cancelled) == ended == ["1", "2", "20", "3", "30"]
    assert needed == {}
    assert launcher.cancel(Asked(str(path), seeds=(7,))) == ([], {})
    with pytest.raises(ValueError, match=r"no row 'renamed' of launch/table was launched from here.*gaussian"):
        launcher.cancel(Asked(str(path), rows=("renamed",)))


def test_a_watch_leaves_what_was_cancelled(two_submitted, monkeypatch):
    path, _ = two_submitted
    launcher.cancel(Asked(str(path)))
    monkeypatch.setattr(slurm, "queue", dict)
    monkeypatch.setattr(launcher, "launch", lambda *_given, **_more: pytest.fail("it was submitted again"))
    said = []
    launcher.stay(Asked(str(path), rows=("gaussian", "lde")), "slurm", time.time(), said.append)
    assert said[0].startswith("left at that: gaussian/fashion-mnist/s0, lde/fashion-mnist/s0")


def test_retry_takes_the_seeds_that_were_launched_and_leaves_runs_that_never_were(two_submitted):
    path, _ = two_submitted
    path.write_text(path.read_text().replace("seeds:\n- 0", "seeds:\n- 7"))
    asked, cluster = launcher.asked_last(Asked(str(path)))
    assert (asked.seeds, cluster) == ((0,), "slurm")
    folder = study.Folders(path.parents[1]).runs
    tried = [run.row for run in load(path, seeds=asked.seeds).runs if launcher.was_tried(run, folder)]
    assert tried == ["gaussian", "lde"]  # and not "alone", although its only stage is theirs


def test_a_run_under_way_for_another_table_is_said_to_lack_what_only_this_one_measures(two_submitted):
    path, _ = two_submitted
    other = path.with_name("other.yaml")
    text = path.read_text().replace("launch/table", "launch/other")
    other.write_text(text.replace("- name: mse", "- name: mse\n  - name: l1"))
    started = launcher.launch(Asked(str(other), rows=("gaussian",)), "slurm")
    assert [run.row for run in started.in_flight] == ["gaussian"]
    assert started.warnings == ["gaussian/fashion-mnist/s0 is under way without l1: launch again once it has ended"]
    assert {one.table for one in announced(study.Folders(path.parents[1]).runs)} == {"launch/table", "launch/other"}


def test_what_a_job_was_given_is_not_passed_on_to_the_jobs_launched_in_it(monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "400")
    with arrays._outside_a_job():
        assert os.environ["SLURM_MEM_PER_CPU"] == "400"  # a default of the user's, or the site's
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        with arrays._outside_a_job():
            assert {name for name in os.environ if name.startswith("SLURM")} == {"SLURM_CONF"}
    assert os.environ["SLURM_MEM_PER_CPU"] == "400"


def test_processes_of_one_run_end_together(tmp_path):
    rows = {"row": {"stages": {"autoencoder": vae()}, "compute": {"gpus": 2, "device": "cpu"}}}
    path = experiment(tmp_path, rows)
    train, *_ = launcher.launch(Asked(str(path)), "slurm", dry=True).scripts
    assert "--kill-on-bad-exit=1" in train


def test_an_edit_after_the_launch_does_not_reach_the_snapshot(tmp_path):
    from genae import provenance, snapshot

    root = tmp_path / "project"
    (root / "baselines").mkdir(parents=True)
    (root / "baselines" / "mine.py").write_text("VERSION = 1\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "-C", root, "add", "."], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", root, *author, "commit", "-qm", "one"], check=True)
    (root / "baselines" / "mine.py").write_text("VERSION = 2\n")  # not committed, and launched as it is
    (root / "results").mkdir()
    (root / "results" / "large.bin").write_bytes(b"0" * 100)
    first = snapshot.take(root, tmp_path / "snapshots")
    told = provenance.code(root)
    (root / "baselines" / "mine.py").write_text("VERSION = 3\n")
    assert (first / "baselines" / "mine.py").read_text() == "VERSION = 2\n"
    assert provenance.code(first) == told | {"snapshot": first.name}
    assert told["dirty"]
    assert not (first / "results").exists()
    second = snapshot.take(root, tmp_path / "snapshots")
    assert second != first
    assert snapshot.take(root, tmp_path / "snapshots") == second  # nothing changed: shared


def test_data_that_are_not_here_stop_a_launch_before_anything_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    path = experiment(
        tmp_path / "project", {"row": {"stages": {"autoencoder": vae()}, "data": {"name": "celeba-hq", "resolution": 8}}}
    )
    with pytest.raises(ValueError, match="genae data prepare celeba-hq"):
        launcher.launch(Asked(str(path)), "local")
    assert not list(path.parents[1].glob("results/runs/*/job.json"))


def genae(path: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "genae", arguments[0], str(path), *arguments[1:]]
    return subprocess.run(command, cwd=path.parents[1], capture_output=True, text=True, check=False)


def wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_local_launch_returns_at_once_and_trains_measures_and_reports(tmp_path):
    diverging = vae()
    diverging["schedule"] = {"total_kimg": 0.04, "phases": [PHASES[0] | {"learning_rate": 1.0e30}]}
    rows = {"good": {"stages": {"autoencoder": vae()}}, "bad": {"stages": {"autoencoder": diverging}}}
    path = experiment(tmp_path, rows)
    first = genae(path, "launch", "--cluster", "local")
    assert first.returncode == 0, first.stderr
    assert "submitted 2 runs to local" in first.stdout
    report = tmp_path / "reports" / "launch" / "table" / "index.md"
    wait_for(report.exists)
    text = report.read_text()
    assert "bad/fashion-mnist/s0 failed" in text
    assert len((tmp_path / "results" / "launch" / "table.jsonl").read_text().splitlines()) == 1
    stayed = genae(path, "launch", "--cluster", "local", "--watch")
    assert stayed.returncode == 1
    assert "submitted 1 run to local" in stayed.stdout  # the one that failed
    assert "failed: bad/fashion-mnist/s0" in stayed.stderr


@pytest.mark.slow
def test_a_cancelled_local_launch_keeps_what_it_has_done_and_is_gone_on_with(tmp_path):
    path = experiment(tmp_path, {"long": {"stages": {"autoencoder": vae(200.0)}}}, compute={"checkpoint_seconds": 0.1})
    assert genae(path, "launch", "--cluster", "local").returncode == 0
    wait_for(lambda: list(tmp_path.glob("results/runs/*/checkpoints/*.pt")))
    again = genae(path, "launch", "--cluster", "local")
    assert again.stdout.startswith("under way already: long/fashion-mnist/s0")
    assert "submitted" not in again.stdout
    cancelled = genae(path, "cancel")
    assert cancelled.stdout.startswith("cancelled 1 job"), cancelled.stdout + cancelled.stderr
    job = int(re.search(r"\d+$", cancelled.stdout.strip())[0])
    wait_for(lambda: not os.path.exists(f"/proc/{job}"))
    (place,) = tmp_path.glob("results/runs/vae*")
    reached = max(int(file.stem) for file in (place / "checkpoints").glob("*.pt"))
    assert reached < 200_000
    assert genae(path, "cancel").stdout.startswith("nothing was under way")
    assert "submitted 1 run to local" in genae(path, "retry").stdout
    wait_for(lambda: max(int(file.stem) for file in (place / "checkpoints").glob("*.pt")) > reached)
    assert len(read_json(place / "provenance.json")) == 2  # it went on
    genae(path, "cancel")


def test_retry_and_cancel_say_where_nothing_was_launched(tmp_path):
    path = experiment(tmp_path, {"row": {"stages": {"autoencoder": vae()}}})
    for command in ("retry", "cancel"):
        done = genae(path, command)
        assert done.returncode == 2
        assert done.stderr.startswith("genae: launch/table was not launched from here")
