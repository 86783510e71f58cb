"""What is done, what is to do, and who does it. The components are small ones registered by a module of the test's own."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from genae import checkpoint, evaluator, results, rundir, study, trainer
from genae.experiment import load
from genae.stop import Stop
from genae.trainer import Diverged

MODULE = '''
"""Objectives that go wrong in known ways, and ones that do not."""

import os
import signal
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from genae.objectives.objective import Objective
from genae.registry import OBJECTIVES


@OBJECTIVES.add("plain")
@dataclass(kw_only=True)
class Plain(Objective):
    """Squared error."""

    def terms(self, model, images, phase, generator):
        return {"pixels": F.mse_loss(model.decode(model.encode(images)), images)}


@OBJECTIVES.add("nan")
@dataclass(kw_only=True)
class NotANumber(Plain):
    """Squared error, and after 100 images the logarithm of a negative number."""

    def terms(self, model, images, phase, generator):
        bad = torch.tensor(-1.0).log() if phase.images_seen >= 100 else 0.0
        return super().terms(model, images, phase, generator) | {"bad": model.decode(model.encode(images)).mean() * bad}


@OBJECTIVES.add("collapse")
@dataclass(kw_only=True)
class Collapse(Objective):
    """Wants every image black, whatever the code."""

    def terms(self, model, images, phase, generator):
        codes = 100 * model.prior(len(images), generator)
        return {"black": sum(part.square().sum() for part in model.parameters()) + model.decode(codes).mean()}


@OBJECTIVES.add("die")
@dataclass(kw_only=True)
class Dies(Objective):
    """Is killed at its first step, as by a machine out of memory."""

    def terms(self, model, images, phase, generator):
        os.kill(os.getpid(), signal.SIGKILL)


@OBJECTIVES.add("raise")
@dataclass(kw_only=True)
class Raises(Objective):
    """Fails at its first step."""

    def terms(self, model, images, phase, generator):
        raise RuntimeError("the disk is made of cheese")
'''


def row(objective: str, *, total_kimg: float = 0.2, learning_rate: float = 0.001, stages: tuple[str, ...] = ("first",)) -> dict:
    phase = {"resolution": 8, "batch_size": 10, "learning_rate": learning_rate}
    stage = {"objective": {"name": objective}, "schedule": {"total_kimg": total_kimg, "phases": [phase]}}
    return {"stages": {name: stage for name in stages}}


@pytest.fixture
def project(tmp_path):
    """A project folder with the module above; call it with rows to write an experiment file."""
    (tmp_path / "going_wrong.py").write_text(MODULE)

    def write(rows: dict, name: str = "table") -> Path:
        text = {
            "table": f"study/{name}",
            "imports": ["going_wrong"],
            "shared": {
                "data": {"name": "fashion-mnist", "resolution": 8, "count": 60},
                "model": {"name": "autoencoder"},
                "metrics": [{"name": "mse"}],
                "compute": {"log_kimg": 0.05, "checkpoint_seconds": 1000.0},
            },
            "rows": rows,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(text, sort_keys=False))
        return path

    return write


def work(experiment, **options) -> study.Folders:
    folders = study.Folders(experiment.root)
    began = time.time()
    study.work(study.outstanding(experiment, folders, **options), folders.runs, began, Stop())
    study.collect(experiment, folders)
    return folders


def test_a_row_that_raises_does_not_sink_the_others(project):
    experiment = load(project({"broken": row("raise"), "good": row("plain")}))
    began = time.time()
    folders = work(experiment)
    broken, good = experiment.runs
    failure = study.failure_since(broken, folders.runs, began)
    assert failure.reason == "RuntimeError: the disk is made of cheese"
    assert "Traceback" in failure.log.read_text()
    assert study.failure_since(good, folders.runs, began) is None
    assert [record["row"] for record in results.read(folders.records("study/table"))] == ["good"]


def test_a_failed_row_is_tried_again_by_the_next_command(project):
    experiment = load(project({"broken": row("raise")}))
    folders = work(experiment)
    assert study.failure_since(experiment.runs[0], folders.runs, time.time()) is None
    assert study.next_task(experiment.runs[0], folders.runs).stage == 0


def test_a_loss_that_is_no_number_stops_the_run_at_the_next_logged_line(project):
    experiment = load(project({"row": row("nan")}))  # logs every 50 images; the first NaN is in the step from 100 to 110
    with pytest.raises(Diverged, match="by 150 images, all/pixels, all/bad became nan; no checkpoint was written before"):
        trainer.train(experiment.runs[0], 0, study.Folders(experiment.root).runs)


def test_weights_that_are_no_numbers_never_reach_a_checkpoint(project):
    experiment = load(project({"row": row("nan")}), overrides=["compute.checkpoint_seconds=0.000001"])  # after every step
    run, runs = experiment.runs[0], study.Folders(experiment.root).runs
    with pytest.raises(Diverged, match=r"by 110 images, model.* NaN .*; the last good checkpoint is 0000000100.pt"):
        trainer.train(run, 0, runs)
    kept = checkpoint.latest(study.directories(run, runs)[0].checkpoints)
    assert kept.state["images_seen"] == 100
    assert all(value.isfinite().all() for value in kept.state["model"].values())


def test_samples_that_no_longer_differ_stop_the_run(project):
    experiment = load(project({"row": row("collapse", total_kimg=3, learning_rate=0.05)}))
    with pytest.raises(Diverged, match=r"the model collapsed: its samples differ by .*; no checkpoint was written before"):
        trainer.train(experiment.runs[0], 0, study.Folders(experiment.root).runs)


def test_rows_with_an_equal_first_stage_train_it_once(project):
    rows = {"short": row("plain"), "long": row("plain", stages=("first", "second"))}
    experiment = load(project(rows))
    folders = work(experiment)
    short, long = experiment.runs
    assert study.directories(short, folders.runs)[0].path == study.directories(long, folders.runs)[0].path
    assert len(rundir.read_json(study.directories(short, folders.runs)[0].provenance)) == 1
    assert len(results.read(folders.records("study/table"))) == 2


def test_a_second_stage_starts_from_the_first_ones_weights(project):
    experiment = load(project({"row": row("plain", stages=("first", "second"))}))
    run, runs = experiment.runs[0], study.Folders(experiment.root).runs
    trainer.train(run, 0, runs)
    first = checkpoint.latest(study.directories(run, runs)[0].checkpoints).state
    second = trainer._model(run, 1, runs, trainer.open_dataset(run.data, "train")).state_dict()
    assert checkpoint.digest(second) == checkpoint.digest(first["model"])


def test_what_is_recorded_is_not_trained_again_even_without_its_run_directory(project):
    experiment = load(project({"row": row("plain")}))
    folders = work(experiment)
    shutil.rmtree(folders.runs)
    assert study.outstanding(experiment, folders) == []
    assert study.outstanding(experiment, folders, retrain=True) == list(experiment.runs)


def test_a_new_column_is_measured_without_training(project):
    path = project({"row": row("plain")})
    folders = work(load(path))
    text = yaml.safe_load(path.read_text())
    text["shared"]["metrics"].append({"name": "psnr"})
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    experiment = load(path)
    (run,) = study.outstanding(experiment, folders)
    assert study.next_task(run, folders.runs).stage is None
    work(experiment)
    assert {record["column"] for record in results.read(folders.records("study/table"))} == {"mse", "psnr"}
    assert study.outstanding(experiment, folders) == []


def test_records_of_other_data_do_not_count(project):
    experiment = load(project({"row": row("plain")}))
    folders = work(experiment)
    records = results.read(folders.records("study/table"))
    assert study.is_recorded(experiment.runs[0], records)
    for record in records:
        record["data"]["train"] = "other"
    assert not study.is_recorded(experiment.runs[0], records)


def test_a_cell_waits_for_weights_as_long_as_they_are_missing(project, monkeypatch, tmp_path):
    monkeypatch.setenv("GENAE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    path = project({"row": row("plain")})
    text = yaml.safe_load(path.read_text())
    text["shared"]["metrics"] = [{"name": "fid"}]
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    experiment = load(path)
    folders = work(experiment)
    (record,) = results.read(folders.records("study/table"))
    assert record["status"] == "needs weights: genae weights fetch inception-2015"
    assert record["value"] is None
    assert study.outstanding(experiment, folders) == []
    monkeypatch.setattr("genae.features.weights.find", lambda name: tmp_path)
    assert study.outstanding(experiment, folders) == list(experiment.runs)


def test_a_resume_on_other_data_stops(project, monkeypatch):
    experiment = load(project({"row": row("plain")}))
    run, runs = experiment.runs[0], study.Folders(experiment.root).runs
    trainer.train(run, 0, runs)
    original = trainer.open_dataset
    monkeypatch.setattr(trainer, "open_dataset", lambda spec, split: original(spec, "test"))
    with pytest.raises(ValueError, match="was trained on other data: its checkpoint names"):
        trainer.train(run, 0, runs)


def test_a_resume_with_another_thread_count_is_refused(project):
    path = project({"row": row("plain")})
    runs = study.Folders(path.parent).runs
    trainer.train(load(path).runs[0], 0, runs)
    with pytest.raises(ValueError, match=r"was begun with 1 threads .* give compute.threads=1"):
        trainer.train(load(path, overrides=["compute.threads=2"]).runs[0], 0, runs)
    told = load(path, overrides=["compute.threads=2", "compute.threads_may_change=true"]).runs[0]
    place = trainer.train(told, 0, runs)
    torch.set_num_threads(1)
    assert len(place.warnings_since(0)) == 1


def test_an_untrained_row_is_measured_as_it_is(project):
    experiment = load(project({"row": {}}))
    folders = work(experiment)
    (record,) = results.read(folders.records("study/table"))
    assert record["images_seen"] == 0
    assert record["value"] > 0


def test_measuring_a_run_that_is_not_trained_says_who_trains_it(project):
    experiment = load(project({"row": row("plain")}))
    with pytest.raises(ValueError, match="is not trained to its end; `genae run` trains it"):
        evaluator.evaluate(experiment.runs[0], study.Folders(experiment.root).runs)


def test_seeds_change_the_weights_and_not_the_evaluations_draws(project):
    experiment = load(project({"row": row("plain")}), seeds=[0, 1])
    folders = work(experiment)
    one, two = results.read(folders.records("study/table"))
    assert one["checkpoint"] != two["checkpoint"]
    assert one["protocol"] == two["protocol"]


def test_the_same_seed_gives_the_same_weights_in_another_folder(project, tmp_path):
    path = project({"row": row("plain")})
    first = work(load(path))
    shutil.move(first.runs, tmp_path / "elsewhere")
    first.records("study/table").unlink()
    second = work(load(path))
    kept = checkpoint.latest(next((tmp_path / "elsewhere").glob("*/checkpoints")))
    assert kept.digest == checkpoint.latest(next(second.runs.glob("*/checkpoints"))).digest


def write(path: Path, change) -> Path:
    """The experiment file with `change` made to what is in it."""
    text = yaml.safe_load(path.read_text())
    change(text)
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def test_settings_may_go_back_and_forth_between_commands(project):
    path = project({"row": row("plain")})
    values = []
    for count in (20, 10, 20):
        write(path, lambda text, count=count: text["shared"].update(metrics=[{"name": "mse", "num_images": count}]))
        experiment = load(path)
        folders = work(experiment)
        assert study.outstanding(experiment, folders) == []
        values.append({record["value"] for record in results.read(folders.records("study/table"))})
    assert len(values[1]) == 2  # both are kept
    assert values[2] == values[1]


def test_rows_of_one_identity_with_different_pictures_get_both(project):
    rows = {
        "one": row("plain") | {"figures": [{"name": "samples"}]},
        "two": row("plain") | {"figures": [{"name": "samples", "rows": 2}]},
    }
    experiment = load(project(rows))
    folders = work(experiment)
    (place,) = {study.directories(run, folders.runs)[0].path for run in experiment.runs}
    assert len(list((place / "figures").glob("samples*.png"))) == 2
    assert all(study.next_task(run, folders.runs) is None for run in experiment.runs)


def test_a_renamed_row_keeps_its_numbers(project):
    path = project({"one": row("plain")})
    folders = work(load(path))
    shutil.rmtree(folders.runs)
    write(path, lambda text: text.update(rows={"renamed": text["rows"]["one"]}))
    experiment = load(path)
    assert study.outstanding(experiment, folders) == []
    study.collect(experiment, folders)
    assert "renamed" in {record["row"] for record in results.read(folders.records("study/table"))}


def test_an_old_model_is_not_recorded_as_trained_on_new_data(project, monkeypatch):
    experiment = load(project({"row": row("plain")}))
    run, runs = experiment.runs[0], study.Folders(experiment.root).runs
    trainer.train(run, 0, runs)
    original = evaluator.open_dataset
    monkeypatch.setattr(evaluator, "open_dataset", lambda spec, split: original(spec, "test"))
    with pytest.raises(ValueError, match="was trained on other data"):
        evaluator.evaluate(run, runs)


def test_a_checkpoint_of_another_model_is_named_and_neither_trained_on_nor_measured(project):
    path = project({"row": row("plain")})
    mine, runs = load(path).runs[0], study.Folders(path.parent).runs
    trainer.train(mine, 0, runs)
    other = load(write(path, lambda text: text["shared"]["model"].update(latent_dim=3))).runs[0]
    (theirs,) = trainer.train(other, 0, runs).checkpoints.glob("*.pt")
    (own,) = rundir.RunDir.of(runs, mine.label, mine.identity).checkpoints.glob("*.pt")
    shutil.copy(theirs, own)
    before = theirs.read_bytes()
    for use in (lambda: trainer.train(mine, 0, runs), lambda: evaluator.evaluate(mine, runs)):
        with pytest.raises(ValueError, match=f"{own} is a checkpoint of another run: it holds model 'autoencoder' of identity"):
            use()
    assert own.read_bytes() == theirs.read_bytes() == before
    own.unlink()
    trainer.train(mine, 0, runs)  # as it says: moved away, and trained anew
    assert evaluator.evaluate(mine, runs)[0]["value"] is not None


def test_a_worker_that_is_killed_by_its_run_does_not_sink_the_others(project):
    path = project({"dying": row("die"), "good": row("plain")})
    done = subprocess.run(
        [sys.executable, "-m", "genae", "run", path.name, "--jobs", "2"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "failed: dying/fashion-mnist/s0: the process that worked on it died" in done.stderr
    assert "Traceback" not in done.stderr
    (record,) = results.read(path.parent / "results/study/table.jsonl")
    assert record["row"] == "good"


def test_a_metric_that_comes_to_no_number_is_a_failure(project, monkeypatch):
    experiment = load(project({"row": row("plain")}))
    monkeypatch.setattr("genae.metrics.reconstruction.ReconstructionMetric.measure", lambda *_: {"mse": float("nan")})
    began = time.time()
    folders = work(experiment)
    assert "column 'mse' came to {'mse': nan}" in study.failure_since(experiment.runs[0], folders.runs, began).reason
    assert results.read(folders.records("study/table")) == []


def test_a_learning_rate_for_nothing_is_refused_before_the_first_step(project):
    path = project({"row": row("plain")})

    def misspell(text):
        schedule = text["rows"]["row"]["stages"]["first"]["schedule"]
        later = schedule["phases"][0] | {"learning_rate": {"encodr": 0.001, "decoder": 0.001}}
        schedule["phases"] = [schedule["phases"][0] | {"kimg": 0.1}, later]

    run = load(write(path, misspell)).runs[0]
    with pytest.raises(ValueError, match=r"phases\[1\].*'encodr'; did you mean 'encoder'"):
        trainer.train(run, 0, study.Folders(path.parent).runs)
