"""What `genae plan` says, against arithmetic by hand and against what training really takes."""

import io
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from genae import plan, step_cost, study
from genae.checkpoint import KEEP, latest, untrained_model
from genae.data import sizes
from genae.experiment import load
from genae.plan_table import show
from genae.registry import OBJECTIVES
from genae.stop import Stop
from genae.trainer import train
from genae.training import Training

TINY = {
    "table": "tiny/table",
    "seeds": [0, 1],
    "shared": {
        "data": {"name": "fashion-mnist", "resolution": 8, "count": 100},
        "model": {"name": "autoencoder", "latent_dim": 4, "width": 4},
        "stages": {
            "autoencoder": {
                "objective": {"name": "reconstruction"},
                "schedule": {"total_kimg": 0.2, "phases": [{"resolution": 8, "batch_size": 10, "learning_rate": 0.002}]},
            },
            "density": {
                "density": {"name": "gaussian"},
                "schedule": {"total_kimg": 0.1, "phases": [{"batch_size": 50, "learning_rate": 0.002}]},
            },
        },
        "metrics": [{"name": "mse"}],
    },
    "rows": {
        "wide": {"model": {"width": 6}},
        "plain": {},
        "lde": {"stages": {"density": {"density": {"name": "lde", "mixtures": 2, "width": 2}}}},
    },
}


def growing_table(name: str, objective: str, model: dict) -> dict:
    phases = [{"resolution": 8, "kimg": 20, "batch_size": 32, "learning_rate": 0.001}]
    phases += [{"resolution": 16, "batch_size": 16, "learning_rate": 0.001}]
    stage = {"objective": {"name": objective}, "schedule": {"total_kimg": 60, "phases": phases}}
    stage["average"] = {"parts": ["decoder"], "decay_per_step": 0.999}
    shared = {"data": {"name": "celeba-hq", "resolution": 16}, "metrics": [{"name": "mse"}]}
    shared |= {"model": {"name": name, "latent_dim": 16, **model}, "stages": {"autoencoder": stage}}
    return {"table": "tiny/growing", "shared": shared, "rows": {name: {}}}


SHAPE = (3, 16, 16)


def write(root: Path, contents: dict) -> Path:
    (root / "setup.cfg").touch()
    (root / "experiments").mkdir(exist_ok=True)
    path = root / "experiments" / f"{contents['table'].partition('/')[2]}.yaml"
    path.write_text(yaml.safe_dump(contents, sort_keys=False))
    return path


@pytest.fixture
def tiny(tmp_path):
    return load(write(tmp_path, TINY))


@pytest.fixture
def growing(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_DATA", str(tmp_path / "no packs"))
    return load(write(tmp_path, growing_table("vae-adain", "elbo", {"channels": [16, 16, 16]})))


@pytest.fixture(scope="module")
def automodulator(tmp_path_factory):
    """A run whose objective draws layers, mixes codes and has two updates; and what its steps cost."""
    root = tmp_path_factory.mktemp("automodulator")
    (run,) = load(write(root, growing_table("automodulator", "automodulator", {"channels": [16, 16, 16]}))).runs
    return run, step_cost.count_stage(run, 0, SHAPE)


def rows_of(made: plan.Plan) -> dict[str, plan.RowPlan]:
    return {row.row: row for row in made.rows}


# FLOPs.


def test_the_flops_of_affine_maps_and_convolutions_are_those_of_their_definition():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 8 * 8, 7), nn.Linear(7, 2))
    with step_cost.Tally(FakeTensorMode()) as tally:
        network(torch.randn(4, 3, 8, 8)).sum().backward()
    # A product of [n, k] and [k, m] takes 2 n k m; backward, one such for the weights, and one for the input if it has a
    # gradient, which images have not.
    assert tally.conv_flops == 2 * (2 * 4 * (8 * 8) * 5 * (3 * 3 * 3))
    assert tally.matmul_flops == 3 * (2 * 4 * 320 * 7) + 3 * (2 * 4 * 7 * 2)


def test_flops_counted_on_shapes_are_those_counted_while_computing(automodulator):
    run, cost = automodulator
    torch.manual_seed(0)
    training = Training(untrained_model(run.model, SHAPE, 0), OBJECTIVES.build(run.stages[0].objective), run.stages[0], seed=0)
    for step, end in zip(cost.steps, (20_000, 60_000), strict=True):
        phase = run.stages[0].schedule.at(end - 1)
        training.images_seen = end - 1
        with FlopCounterMode(display=False) as counter:
            training.step(torch.rand(phase.batch_size, 3, phase.resolution, phase.resolution), phase)
        assert (step.resolution, step.batch_size) == (phase.resolution, phase.batch_size)
        assert step.flops == pytest.approx(counter.get_total_flops(), rel=0.02)  # which layer is drawn anew


# Time.


def test_time_is_the_sum_over_phases_of_their_images_at_their_own_pace():
    starts, total, per_image = (0, 2000, 5000), 6000, (0.001, 0.01, 0.1)
    assert plan.seconds_from(0, starts, total, per_image) == pytest.approx(2 + 30 + 100)
    assert plan.seconds_from(2500, starts, total, per_image) == pytest.approx(25 + 100)
    assert plan.seconds_from(6000, starts, total, per_image) == 0


def test_what_is_too_slow_to_time_goes_by_its_flops(growing):
    (run,) = growing.runs
    cost = step_cost.count_stage(run, 0, SHAPE)
    timing = step_cost.time_stage(run, 0, SHAPE, cost, seconds=1e-9)
    assert timing.timed == 1
    assert timing.seconds[0] > 0
    assert timing.seconds[1] / timing.seconds[0] == pytest.approx(cost.steps[1].flops / cost.steps[0].flops)
    assert step_cost.time_stage(run, 0, SHAPE, cost, seconds=10).timed == 2

    made = plan.make(growing, study.Folders(growing.root), seconds=1e-9)
    assert made.notes == ("measured to 8x8, by FLOPs beyond: vae-adain",)


def test_an_estimate_is_flops_over_the_share_of_the_peak_but_no_quicker_than_its_operations(growing):
    (run,) = growing.runs
    speed = plan._Speed([run], "h100", None, 0.25, 1.0)
    step = step_cost.StepCost(16, 8, conv_flops=3e15, matmul_flops=1e15, operations=100, fixed_bytes=0, peak_bytes=0)
    # PyTorch's own defaults: convolutions in TF32, matrix products in float32.
    assert speed._estimate(step, run, 0) == pytest.approx((3000 / 494.7 + 1000 / 66.9) / 0.25)
    half = replace(run, compute=replace(run.compute, precision="bfloat16"))
    assert speed._estimate(step, half, 0) == pytest.approx(4000 / 989.4 / 0.25)
    assert speed._estimate(replace(step, conv_flops=0, matmul_flops=0), run, 0) == pytest.approx(100 * 5e-6)


def test_several_gpus_share_the_arithmetic_of_a_step_and_each_issues_all_operations(growing):
    (run,) = growing.runs
    several = replace(run, compute=replace(run.compute, gpus=8))
    speed = plan._Speed([several], "h100", None, 0.25, 1.0)
    step = step_cost.StepCost(16, 8, conv_flops=3e15, matmul_flops=1e15, operations=100, fixed_bytes=0, peak_bytes=0)
    assert speed._estimate(step, several, 0) == pytest.approx((3000 / 494.7 + 1000 / 66.9) / 0.25 / 8)
    assert speed._estimate(replace(step, conv_flops=0, matmul_flops=0), several, 0) == pytest.approx(100 * 5e-6)

    # As small as these networks are, they wait for their operations: eight GPUs are no faster, and cost eight times as much.
    alone, shared = (
        plan.make(replace(growing, runs=(one,)), study.Folders(growing.root), gpu="h100").rows[0].whole
        for one in (run, several)
    )
    assert shared.seconds == pytest.approx(alone.seconds)
    assert shared.gpu_seconds == pytest.approx(8 * alone.gpu_seconds)


def test_a_given_pace_is_that_of_every_run_on_all_its_gpus(growing):
    several = replace(growing, runs=tuple(replace(run, compute=replace(run.compute, gpus=4)) for run in growing.runs))
    (row,) = plan.make(several, study.Folders(growing.root), images_per_second=100).rows
    assert row.whole.seconds == 600
    assert row.whole.gpu_seconds == 4 * 600
    assert row.stages[0].source == "given"


# Memory and disk.


def test_the_memory_of_a_step_is_near_the_real_peak_of_its_tensors(automodulator):
    run, cost = automodulator
    told = cost.steps[-1].peak_bytes
    training = Training(untrained_model(run.model, SHAPE, 0), OBJECTIVES.build(run.stages[0].objective), run.stages[0], seed=0)
    phase = run.stages[0].schedule.at(59_999)
    images = torch.rand(16, *SHAPE)
    training.step(images, phase)  # Adam's moments are there from now on
    state = training.state_dict()
    standing = step_cost.nbytes({key: state[key] for key in ("model", "average", "optimizers")}) + images.nbytes
    with torch.profiler.profile(profile_memory=True) as profiled:
        training.step(images, phase)
    allocated = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(accumulate(event.nbytes() for event in sorted(allocated, key=lambda event: event.start_ns())))
    assert peak > 4 * standing
    assert standing + peak == pytest.approx(told, rel=0.25)


def test_activations_are_shared_among_gpus_and_the_model_is_not():
    step = step_cost.StepCost(16, 8, 0, 0, 0, fixed_bytes=1000, peak_bytes=9000)
    assert [plan.memory(step, gpus) for gpus in (1, 2, 4)] == [9000, 5000, 3000]


def test_a_checkpoint_has_the_size_that_was_told(tiny):
    run = next(run for run in tiny.runs if run.row == "lde")
    runs = study.Folders(tiny.root).runs
    for index in (0, 1):
        told = step_cost.count_stage(run, index, (1, 8, 8)).state_bytes
        place = study.directories(run, runs)[index]
        with place.claim():
            train(run, index, runs)
        state = latest(place.checkpoints).state
        assert step_cost.nbytes(state) == pytest.approx(told, rel=0.02)  # Adam's counts of steps, the logged terms


# What is counted.


def test_a_stage_that_rows_share_is_counted_once_and_said_so(tiny):
    made = plan.make(tiny, study.Folders(tiny.root), images_per_second=10)
    rows = rows_of(made)
    assert [stage.remaining for stage in rows["plain"].stages] == [400, 200]  # two seeds
    assert [stage.remaining for stage in rows["lde"].stages] == [0, 200]
    assert [stage.images for stage in rows["lde"].stages] == [200, 100]  # of a run all the same
    assert rows["lde"].stages[0].disk_bytes == 0
    assert rows["lde"].stages[0].shared_with == "plain"
    assert any("lde: autoencoder is that of plain" in note for note in made.notes)
    assert made.totals["images"] == 600 + 600 + 200
    assert made.totals["gpu_hours"] == pytest.approx(1400 / 10 / 3600)
    per_seed = [step_cost.count_stage(tiny.runs[0], index, (1, 8, 8)).state_bytes for index in (0, 1)]
    assert rows["wide"].whole.disk_bytes == 2 * (KEEP + 1) * sum(per_seed)


def test_what_is_done_is_not_counted(tiny):
    folders = study.Folders(tiny.root)
    done, begun = (next(run for run in tiny.runs if (run.row, run.seed) == which) for which in (("wide", 0), ("plain", 1)))
    study.work([done], folders.runs, time.time(), Stop())
    place = study.directories(begun, folders.runs)[0]
    with place.claim():
        train(begun, 0, folders.runs)
    rows = rows_of(plan.make(tiny, folders, images_per_second=10))
    assert (rows["wide"].runs, rows["wide"].outstanding) == (2, 1)
    assert [stage.remaining for stage in rows["wide"].stages] == [200, 100]
    assert [stage.remaining for stage in rows["plain"].stages] == [200, 200]

    # of the stage that is begun, what follows its last checkpoint
    (checkpoint,) = place.checkpoints.glob("*200.pt")
    for other in place.checkpoints.glob("*.pt"):
        if other != checkpoint:
            other.unlink()
    checkpoint.rename(place.checkpoints / f"{150:010d}.pt")
    rows = rows_of(plan.make(tiny, folders, images_per_second=10))
    assert [stage.remaining for stage in rows["plain"].stages] == [250, 200]
    assert rows["plain"].stages[0].gpu_seconds == pytest.approx(25)


def test_a_row_that_trains_nothing_costs_nothing(tmp_path):
    shared = dict(TINY["shared"])
    trained = {key: shared.pop(key) for key in ("model", "stages")}
    path = write(
        tmp_path, TINY | {"shared": shared, "seeds": [0], "rows": {"plain": trained, "codes": {"model": {"name": "identity"}}}}
    )
    made = rows_of(plan.make(load(path), study.Folders(tmp_path), images_per_second=10))
    assert made["codes"].stages == ()
    assert made["codes"].whole.gpu_seconds == 0
    assert made["plain"].whole.gpu_seconds == 30


def test_a_row_that_cannot_be_told_says_why_and_the_others_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(tmp_path / "none"))
    perceptual = {"stages": {"autoencoder": {"objective": {"name": "incremental", "perceptual_weight": 0.1}}}}
    path = write(tmp_path, TINY | {"seeds": [0], "rows": {"perceptual": perceptual, "plain": {}}})
    made = plan.make(load(path), study.Folders(tmp_path), gpu="a100")
    rows = rows_of(made)
    assert "vgg19" in rows["perceptual"].whole.problem
    assert rows["perceptual"].whole.gpu_seconds is None
    assert rows["plain"].whole.gpu_seconds > 0
    assert any(note.startswith("perceptual, autoencoder: MissingWeights") for note in made.notes)


def test_planning_leaves_nothing_behind(growing):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads, before = torch.get_num_threads(), sorted(growing.root.rglob("*"))
    plan.make(growing, study.Folders(growing.root), seconds=0.01)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert sorted(growing.root.rglob("*")) == before


def test_the_data_are_estimated_where_they_are_not(growing):
    made = plan.make(growing, study.Folders(growing.root), images_per_second=10)
    size, how = made.data["celeba-hq"]
    assert size == 30_000 * 3 * 16 * 16
    assert how.startswith("estimate: 30,000")
    assert made.totals["data_bytes"] == size


def size_of(name: str, resolution: int) -> tuple[int | None, str]:
    ((_, size, how),) = sizes.sizes_of({"name": name, "resolution": resolution})
    return size, how


def test_data_too_large_as_arrays_take_what_their_encoded_bytes_take(tmp_path, monkeypatch):
    """An image of 256x256 takes 196,608 bytes: three million bedrooms 596 GB, of which `genae data prepare` keeps the JPEGs."""
    monkeypatch.setenv("GENAE_DATA", str(tmp_path))
    size, how = size_of("lsun-bedrooms", 256)
    assert size == 43e9
    assert how == "estimate: 3,033,342 of 3x256x256, as published, kept as the source's encoded bytes"
    assert size_of("lsun-bedrooms", 128)[0] == 3_033_342 * 3 * 128 * 128  # 149 GB: an array
    assert [size_of("lsun-cars", resolution)[0] for resolution in (256, 128)] == [173e9, 173e9]
    assert size_of("lsun-cars", 64)[0] == 5_520_756 * 3 * 64 * 64
    size, how = size_of("ffhq", 1024)  # 220 GB as an array; what a copy's files take depends on the copy
    assert size is None
    assert "encoded bytes, if they take less than the 220 GB of an array" in how


def test_a_pack_that_is_too_small_is_not_taken_for_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_DATA", str(tmp_path))
    for name in ("celeba-hq", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text('{"resolution": 64}')
    assert size_of("celeba-hq", 64) == (18, "prepared here")  # of dataset.json
    size, how = size_of("celeba-hq", 128)
    assert size == 30_000 * 3 * 128 * 128
    assert how.endswith("; the pack here is of 64x64, too small")
    ((_, size, how),) = sizes.sizes_of({"name": "folder", "pack": "mine", "resolution": 128})
    assert (size, how) == (None, "not prepared here; the pack here is of 64x64, too small")


def test_data_of_unknown_size_are_called_so(growing):
    made = plan.make(growing, study.Folders(growing.root), images_per_second=10)
    console = Console(width=140, file=io.StringIO())
    show(replace(made, data={"mine": (None, "not prepared here")}), console)
    told = " ".join(console.file.getvalue().split())
    assert "mine of unknown size (not prepared here)" in told
    assert "0 of data, at most at once, and mine, whose size is unknown." in told


# The command.


def genae(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "genae", "plan", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal_and_says_what_its_numbers_are(tiny, width):
    folders = study.Folders(tiny.root)
    console = Console(width=width, file=io.StringIO())
    show(plan.make(tiny, folders, gpu="h100"), console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    told = " ".join(text.split())
    assert "an estimate, not a measurement: the FLOPs of a training step at 0.3 of one h100's peak" in told
    assert "lde: autoencoder is that of plain" in told
    assert "outstanding 6/6 1,400" in told


def test_json_is_the_plan(growing):
    done = genae("growing", "--images-per-second", "50", "--json", cwd=growing.root)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads(json.dumps(plan.make(growing, study.Folders(growing.root), images_per_second=50).to_dict()))
    assert told["totals"]["gpu_hours"] == pytest.approx(60_000 / 50 / 3600)
    assert told["totals"]["images"] == told["rows"][0]["whole"]["remaining"] == 60_000


def test_whoever_plans_is_not_told_of_torchs_warnings(growing):
    done = genae("growing", "--gpu", "h100", cwd=growing.root)
    assert done.returncode == 0
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("pace", [math.inf, math.nan, 0.0])
def test_a_pace_that_cannot_be_is_refused(growing, pace):
    with pytest.raises(ValueError, match="images per second is a positive number"):
        plan.make(growing, study.Folders(growing.root), images_per_second=pace)


def test_an_unknown_gpu_is_refused_with_those_that_are_known(growing):
    with pytest.raises(ValueError, match=r"did you mean 'h100'\? known: a100, h100"):
        plan.make(growing, study.Folders(growing.root), gpu="h10")


@pytest.mark.slow
def test_a_table_of_the_paper_is_planned_within_two_minutes_of_a_processor(repository):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = genae("automodulator-2020/table1", "--scale", "paper", "--json", cwd=repository)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["row"] for row in told["rows"]] == ["architecture", "layer", "layer-robust", "released-code"]
    for row in told["rows"]:
        assert row["whole"]["problem"] is None
        assert row["whole"]["remaining"] == 35_000_000
        assert row["whole"]["seconds"] > 0
        assert 1e9 < row["whole"]["memory_bytes"] < 80e9
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
