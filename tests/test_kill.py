"""Exact resume: kill a run for real, at named and at random moments, run it again, and find nothing changed.

Each experiment trains two stages on 8x8 images, with a fade-in, averaged weights and everything that its objective can carry
(one of them a density on the codes, whose best weights are kept), and is measured, drawn and collected. A run is a forked
process, so that SIGKILL is the kernel's own; it is compared with a run that nobody disturbed: checkpoint digests,
progress.jsonl, records and pictures.
"""

import json
import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import yaml

from genae import checkpoint, results, rundir, study, trainer
from genae.conformance.names import buildable
from genae.experiment import import_modules, load, project_root
from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.stop import Interrupted, Stop
from genae.training import Training

pytestmark = pytest.mark.kill

FORK = get_context("fork")
BASELINES = ["pggan", "stylegan", "glow", "vae_iaf", "evae", "deep_gsn"]
import_modules([f"baselines.{name}" for name in BASELINES], project_root(Path(__file__)))

FIRST_KIMG, FADE_KIMG, TOTAL_KIMG, SECOND_KIMG, BATCH = 0.06, 0.06, 0.2, 0.06, 10


# Settings with which an objective carries more than with its own small ones: (objective, its settings, the model's).
ALSO = {
    "automodulator with L_inv added": ("automodulator", {"invariance": "added"}, {"extra_layer": 8}),
    "automodulator with L_inv replacing": ("automodulator", {"invariance": "replacing"}, {"extra_layer": 8}),
    "incremental, then a density": ("incremental", {}, {}),
}


# The models that objectives were made for, where that is not the first that they can train.
MODEL = {"non-saturating": "stylegan", "likelihood": "glow", "incremental": "iae", "adversarial-autoencoder": "aae"}

# The same for objectives of baselines.
OF_BASELINES = {"iaf-elbo": "vae-iaf", "evae": "evae", "walkback": "deep-gsn"}
# What is killed by `make test-slow`: objectives of baselines, and those whose models are theirs.
ADDED, REPLACING = "automodulator with L_inv added", "automodulator with L_inv replacing"
SLOW = {*OF_BASELINES, "wgan-gp", "non-saturating", "likelihood", ADDED, REPLACING}
CASES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in (*OBJECTIVES.names(), *ALSO)]


def provided_by(model: str) -> frozenset[str]:
    return MODELS.build({"name": model, **MODELS[model].small}, (1, 8, 8)).provides


def model_for(objective: str) -> str:
    """The first registered model that the objective can train and that grows, so that the fade-in is real."""
    if objective in MODEL | OF_BASELINES:
        return (MODEL | OF_BASELINES)[objective]
    needs = OBJECTIVES[objective].factory.needs | {"growth"}
    for name in buildable(MODELS):
        if needs <= provided_by(name):
            return name
    raise AssertionError(f"no growing model provides {needs}")


def experiment(folder: Path, case: str, checkpoint_seconds: float = 0.02) -> Path:
    """An experiment file with one row, under `folder`.  case: an objective, or one of ALSO."""
    objective, settings, of_model = ALSO.get(case, (case, {}, {}))
    phase = {"batch_size": BATCH, "learning_rate": 0.002, "margin": 0.5}
    trained = {
        "objective": {"name": objective, **OBJECTIVES[objective].small, **settings},
        "average": {"parts": ["decoder"], "half_life_kimg": 0.05},
    }
    second = trained | {"schedule": {"total_kimg": SECOND_KIMG, "phases": [phase | {"resolution": 8, "learning_rate": 0.001}]}}
    if case.endswith("then a density"):
        second = {"density": {"name": "lde", **DENSITIES["lde"].small}, "keep_best": {"every_kimg": 0.02}}
        second |= {"schedule": {"total_kimg": SECOND_KIMG, "phases": [phase]}}
    model = model_for(objective)
    start = 4 if "growth" in provided_by(model) else 8
    growing = [phase | {"resolution": start, "kimg": FIRST_KIMG}, phase | {"resolution": 8, "fade_kimg": FADE_KIMG}]
    text = {
        "table": "kill/table",
        "rows": {
            "row": {
                "data": {"name": "fashion-mnist", "resolution": 8, "count": 150, "num_validation": 30},
                "model": {"name": model, **MODELS[model].small, **of_model},
                "stages": {
                    "first": trained | {"schedule": {"total_kimg": TOTAL_KIMG, "phases": growing}},
                    "second": second,
                },
                "metrics": [{"name": "mse"}, {"name": "psnr"}],
                "figures": [{"name": "samples" if "sample" in provided_by(model) else "reconstructions"}],
                "compute": {"checkpoint_seconds": checkpoint_seconds, "log_kimg": 0.02},
            }
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def run(path: Path, sabotage=None) -> None:
    """What a worker and `genae run` do, in this process."""
    torch.set_num_threads(1)
    if sabotage:
        sabotage()
    chosen = load(path)
    folders = study.Folders(chosen.root)
    study.work(chosen.runs, folders.runs, time.time(), Stop())
    study.collect(chosen, folders)


def start(path: Path, sabotage=None):
    process = FORK.Process(target=run, args=(path, sabotage))
    process.start()
    return process


def run_killed_then_again(path: Path, sabotage) -> None:
    """Run until the sabotage kills the process, then run undisturbed."""
    process = start(path, sabotage)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"the run was to be killed, and ended with {process.exitcode}"
    again = start(path)
    again.join(120)
    assert again.exitcode == 0


def outcome(path: Path) -> dict:
    """All that must not depend on what happened on the way: everything but clocks, and code that may be edited meanwhile."""
    chosen = load(path)
    folders = study.Folders(chosen.root)
    found = {}
    for place in study.directories(chosen.runs[0], folders.runs):
        assert not place.failure.exists(), place.failure.read_text()
        found[place.path.name] = {
            "checkpoint": checkpoint.latest(place.checkpoints).digest,
            "progress": [timeless(json.loads(line)) for line in place.progress.read_text().splitlines()],
            "records": [timeless(record) for record in results.read(place.records)],
            "pictures": {picture.name: picture.read_bytes() for picture in place.figures.glob("*.png")},
        }
    found["collected"] = [timeless(record) for record in results.read(folders.records(chosen.table))]
    assert found["collected"]
    assert len(found) == 3  # two stages
    return found


def timeless(line: dict) -> dict:
    return {key: value for key, value in line.items() if key not in ("time", "seconds", "commit", "dirty")}


@pytest.fixture(scope="module", params=CASES)
def undisturbed(request, tmp_path_factory):
    """(objective or other case, what its run comes to when nobody disturbs it)."""
    path = experiment(tmp_path_factory.mktemp("undisturbed"), request.param)
    process = start(path)
    process.join(300)
    assert process.exitcode == 0
    return request.param, outcome(path)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def before(owner, name: str, condition) -> None:
    """Replace a function with one that dies instead, once `condition(*its arguments)` holds."""
    original = getattr(owner, name)

    def sabotaged(*args, **settings):
        if condition(*args, **settings):
            die()
        return original(*args, **settings)

    setattr(owner, name, sabotaged)


def in_a_fade_in():
    def fading(self, images, phase):
        grows = "growth" in self.model.provides  # one that does not is killed at the same moment
        return (0 < phase.fade < 1 or not grows) and phase.images_seen > 1000 * FIRST_KIMG + 2 * BATCH

    before(Training, "step", fading)


def between_a_phases_end_and_its_next_step():
    before(Training, "step", lambda self, images, phase: phase.index == 1 and self.phase_index == 0)


def after_a_phase_was_entered_before_its_first_step():
    original = Training._set_up_updates

    def sabotaged(self):
        original(self)
        if self.phase_index == 1:
            die()

    Training._set_up_updates = sabotaged


def in_the_second_stage():
    before(Training, "step", lambda self, images, phase: self.stage.name == "second" and phase.images_seen >= 3 * BATCH)


def while_a_checkpoint_is_written():
    original, count = torch.save, iter(range(100))

    def sabotaged(value, file):
        if next(count) < 3:
            return original(value, file)
        start = file.tell()
        original(value, file)
        file.truncate(start + (file.tell() - start) // 2)
        file.flush()
        return die()

    checkpoint.torch.save = sabotaged


def before_a_checkpoint_is_renamed():
    count = iter(range(100))
    before(Path, "replace", lambda path, target: str(target).endswith(".pt") and next(count) >= 3)


def while_a_line_of_progress_is_written():
    original = trainer.json.dumps

    def sabotaged(line, **settings):
        text = original(line, **settings)
        if not (isinstance(line, dict) and "terms" in line and line["images_seen"] > 1000 * TOTAL_KIMG / 2):
            return text
        with next(Path.cwd().glob("results/runs/*/progress.jsonl")).open("a") as file:
            file.write(text[: len(text) // 2])
        return die()

    trainer.json.dumps = sabotaged


def during_evaluation():
    original, count = results.append, iter(range(100))

    def sabotaged(path, record):
        if next(count) == 1:  # the second record, half written
            with Path(path).open("a") as file:
                file.write(json.dumps(record)[:40])
            die()
        return original(path, record)

    results.append = sabotaged


def while_a_picture_is_drawn():
    before(Path, "replace", lambda path, target: str(target).endswith(".png"))


def during_collect():
    before(study.results, "collect", lambda path, records: True)


def while_collect_replaces_the_file():
    before(os, "replace", lambda source, target: str(target).endswith("table.jsonl"))
    before(Path, "replace", lambda source, target: str(target).endswith("table.jsonl"))


MOMENTS = [
    in_a_fade_in,
    between_a_phases_end_and_its_next_step,
    after_a_phase_was_entered_before_its_first_step,
    in_the_second_stage,
    while_a_checkpoint_is_written,
    before_a_checkpoint_is_renamed,
    while_a_line_of_progress_is_written,
    during_evaluation,
    while_a_picture_is_drawn,
    during_collect,
    while_collect_replaces_the_file,
]


# Moments at the fourth checkpoint: one is written after every step, so that there are four however fast the processor is.
AT_A_LATER_CHECKPOINT = {while_a_checkpoint_is_written, before_a_checkpoint_is_renamed}


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_run_killed_at_a_named_moment_comes_to_the_same(undisturbed, moment, tmp_path, monkeypatch):
    objective, expected = undisturbed
    path = experiment(tmp_path, objective, *([1e-9] if moment in AT_A_LATER_CHECKPOINT else []))
    monkeypatch.chdir(tmp_path)
    run_killed_then_again(path, moment)
    assert outcome(path) == expected


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 3))])
def test_a_run_killed_at_random_moments_comes_to_the_same(undisturbed, number, tmp_path):
    """Killed again and again after its first checkpoint, at moments drawn anew on every run of this test."""
    objective, expected = undisturbed
    kills = 0
    for attempt in range(20):  # one that is over before it is killed does not count
        path = experiment(tmp_path / str(attempt), objective)
        process = start(path)
        while not list(path.parent.glob("results/runs/*/checkpoints/*.pt")) and process.is_alive():
            time.sleep(0.01)
        while process.is_alive() and kills < 3:
            time.sleep(random.uniform(0.0, 0.3))
            if process.is_alive():
                process.kill()
                process.join(60)
                kills += 1
                process = start(path)
        process.join(120)
        assert process.exitcode == 0
        assert outcome(path) == expected
        if kills:
            return
    raise AssertionError("it was never killed")


def test_a_run_asked_to_stop_writes_a_checkpoint_and_goes_on_from_there(undisturbed, tmp_path):
    objective, expected = undisturbed
    path = experiment(tmp_path, objective)
    first = load(path).runs[0]
    runs = study.Folders(tmp_path).runs
    stop = Stop()

    def watch(progress):
        stop.requested = progress.images_seen >= 50

    trainer.STATUS_SECONDS, kept = 0.0, trainer.STATUS_SECONDS
    try:
        with pytest.raises(Interrupted, match="run it again to go on"):
            trainer.train(first, 0, runs, stop=stop, watch=watch)
    finally:
        trainer.STATUS_SECONDS = kept
    reached = checkpoint.latest(rundir.RunDir.of(runs, first.label, first.stages[0].identity).checkpoints)
    assert 50 <= reached.state["images_seen"] < 1000 * TOTAL_KIMG
    again = start(path)
    again.join(120)
    assert again.exitcode == 0
    assert outcome(path) == expected


def test_a_run_started_twice_is_trained_once(undisturbed, tmp_path):
    objective, expected = undisturbed
    path = experiment(tmp_path, objective)
    both = [start(path), start(path)]
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    chosen = load(path)
    for place in study.directories(chosen.runs[0], study.Folders(chosen.root).runs):
        assert len(rundir.read_json(place.provenance)) == 1  # one start
    assert outcome(path) == expected
