"""Several processes on a batch against one: the same weights, gradients, draws and checkpoints.

The ranks are processes of their own, started as torchrun starts them: this file run by name, with what each is to do and where
to leave what came of it. What they are compared with is computed here, without a group.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import submitit
import torch
import yaml
from submitit.helpers import CommandFunction
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from genae import checkpoint, parallel, results, rows, study
from genae.experiment import import_modules, load, project_root
from genae.networks.blocks import Noise
from genae.parallel import ALONE, Group
from genae.randomness import generator_for
from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.rundir import RunDir, read_json
from genae.schedule import Phase, PhaseSettings, Schedule
from genae.spec import StageSpec
from genae.stop import Stop
from genae.training import Training

ROOT = project_root(Path(__file__))
SHAPE = (3, 8, 8)
STEPS = 20
BAR = 1e-5  # of a tensor's norm


@dataclass(frozen=True)
class Case:
    """A model and its objective, with more settings than their own small ones. modules: which register them."""

    model: str
    objective: str
    of_model: dict[str, Any] = field(default_factory=dict)
    of_objective: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    batch_size: int = 8
    first: int = 4  # resolution
    average: tuple[str, ...] = ("decoder",)


# Noise, image pool, mixed codes and d_rho are defaults of the automodulator; its pool of 6 is full within the first step.
FAST = {
    "automodulator": Case("automodulator", "automodulator"),
    "vae": Case("vae-adain", "elbo"),
    "wae": Case("wae-adain", "wasserstein"),
}
SLOW = {
    "automodulator, uneven": Case("automodulator", "automodulator", batch_size=10),
    "automodulator with L_inv": Case(
        "automodulator", "automodulator", {"extra_layer": 8}, {"invariance": "added"}, batch_size=10
    ),
    "pioneer": Case("pioneer", "pioneer"),
    "vae on dcgan": Case("vae", "elbo", {"output": "sigmoid"}, {"distance": "gaussian"}, first=8),
    "iae": Case("iae", "incremental", {"norm_scale_mean": 1.0}, first=8),
    "aae": Case("aae", "adversarial-autoencoder", {"norm_scale_mean": 1.0}, first=8),
    "plain": Case("autoencoder", "reconstruction", first=8, batch_size=7),
    "pggan": Case("pggan", "wgan-gp", modules=("baselines.pggan",)),
    "stylegan": Case("stylegan", "non-saturating", {"stddev_group": 4}, modules=("baselines.stylegan",)),
    "gan with dropout": Case("gan", "non-saturating", of_objective={"r1_weight": 0.0}, modules=("baselines.gan",), first=8),
    "gmmn's autoencoder with dropout": Case(
        "gmmn-autoencoder", "reconstruction", {"dropout": [0.2, 0.5]}, modules=("baselines.gmmn",), first=8
    ),
    "evae": Case("evae", "evae", modules=("baselines.evae",), first=8),
    "vae-iaf": Case("vae-iaf", "iaf-elbo", modules=("baselines.vae_iaf",), first=8),
    "glow": Case("glow", "likelihood", modules=("baselines.glow",), first=8),
    "deep-gsn": Case("deep-gsn", "walkback", modules=("baselines.deep_gsn",), first=8),
}
CASES = FAST | SLOW
FLOAT32 = ("iae", "pggan", "stylegan", "gmmn's autoencoder with dropout")  # gradients of the first step too


# What a rank, or one process alone, does.


def batch(number: int, phase: Phase) -> Tensor:
    """Images of a kind, the same for the same number."""
    coarse = torch.rand(phase.batch_size, 3, 4, 4, generator=generator_for("cpu", "batch", number)) * 2 - 1
    images = nn.functional.interpolate(coarse, phase.resolution, mode="bilinear")
    return images.to(torch.get_default_dtype()).contiguous(memory_format=torch.channels_last)


def trained(name: str, group: Group, steps: int, dtype: torch.dtype) -> dict[str, Any]:
    """All state after some steps through a fade-in, and the gradients of the first. A step by itself is of a grown network."""
    torch.set_default_dtype(dtype)
    try:
        training = training_of(name, group, dtype, grown=steps == 1)
        gradients: dict[str, Tensor] = {}

        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            update = next(name for name, known in training.optimizers.items() if known is optimizer)
            found = [p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            gradients.update({f"{update}/{number}": gradient for number, gradient in enumerate(found)})

        hook = register_optimizer_step_pre_hook(keep)
        go_on(training, 1)
        hook.remove()
        go_on(training, steps)
    finally:
        torch.set_default_dtype(torch.float32)
    return {"state": training.state_dict(), "gradients": gradients}


def training_of(name: str, group: Group, dtype: torch.dtype = torch.float64, *, grown: bool = False) -> Training:
    """A case before its first step, in its first phase or `grown`. The default type must be `dtype`."""
    case, kimg = CASES[name], CASES[name].batch_size / 1000  # of a step
    import_modules(case.modules, ROOT)
    common = {"batch_size": case.batch_size, "learning_rate": 1e-3, "margin": 0.5}
    phases = [PhaseSettings(**common, resolution=8, fade_kimg=0.0 if grown else 6 * kimg)]
    if case.first < 8 and not grown:
        phases = [PhaseSettings(**common, resolution=4, kimg=6 * kimg), *phases]
    schedule = Schedule(total_kimg=1.0, phases=tuple(phases))
    objective = {"name": case.objective, **OBJECTIVES[case.objective].small, **case.of_objective}
    optimizer = {"name": "adam", "betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 0.0}
    average = {"parts": case.average, "half_life_kimg": 0.05}
    stage = StageSpec(name="stage", objective=objective, schedule=schedule, optimizer=optimizer, average=average, identity=name)
    model = checkpoint.untrained_model({"name": case.model, **MODELS[case.model].small, **case.of_model}, SHAPE, seed=0)
    model.to(dtype, memory_format=torch.channels_last)
    return Training(model, OBJECTIVES.build(stage.objective), stage, seed=0, group=group)


def go_on(training: Training, upto: int) -> None:
    """Train until `upto` steps are done."""
    batch_size = training.stage.schedule.phases[0].batch_size
    for number in range(training.images_seen // batch_size, upto):
        phase = training.stage.schedule.at(training.images_seen)
        with training.group.step():
            training.step(batch(number, phase), phase)


def every(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors in nested mappings and sequences, by name."""
    if isinstance(value, Tensor):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {key: tensor for part, inner in parts for key, tensor in every(inner, f"{name}.{part}".lstrip(".")).items()}


def farthest(found: Any, expected: Any, floor: float = 0.0) -> tuple[float, str]:
    """The largest distance of two tensors of a name, over the norm of the expected one, and the name.

    floor: of that norm, as a share of the largest: what is 0 in exact arithmetic is rounding and nothing else.
    """
    found, expected = every(found), every(expected)
    assert found.keys() == expected.keys()
    least = floor * max(float(tensor.double().norm()) for tensor in expected.values())

    def distance(name: str) -> float:
        a, b = found[name].double(), expected[name].double()
        return float((a - b).norm() / b.norm().clamp_min(max(least, 1e-12)))

    return max((distance(name), name) for name in found)


# A stage that goes on from a file; an experiment; what fails.


def half(folder: Path, group: Group) -> None:
    """Train the automodulator for half of STEPS, and write a checkpoint as process 0 does."""
    torch.set_default_dtype(torch.float64)
    try:
        training = training_of("automodulator", group)
        go_on(training, STEPS // 2)
    finally:
        torch.set_default_dtype(torch.float32)
    if group.leads:
        checkpoint.save(folder, training.state_dict(), training.images_seen)


def whole(folder: Path, group: Group) -> dict[str, Any]:
    """The state at the end of STEPS, from the checkpoint that `half` wrote."""
    torch.set_default_dtype(torch.float64)
    try:
        training = training_of("automodulator", group)
        training.load_state_dict(checkpoint.latest(folder).state)
        go_on(training, STEPS)
    finally:
        torch.set_default_dtype(torch.float32)
    return training.state_dict()


def draws(group: Group) -> dict[str, Any]:
    """What a noise input adds, and dropout leaves, of rows that are shared out, uneven ones too; and each j of five batches."""
    noise, dropout, found = Noise(2, "a layer").train(), nn.Dropout(0.5).train(), {}
    nn.init.ones_(noise.scale)
    group.span(dropout)
    for count in (1, 4, 5):
        torch.manual_seed(count)
        with torch.no_grad(), group.step():
            found[f"noise of {count}"] = rows.by_rows(noise, torch.zeros(count, 2, 4, 4))
            found[f"dropout of {count}"] = rows.by_rows(dropout, torch.ones(count, 16))
    training, splits = training_of("automodulator", group, torch.float32), []
    of_objective = training.objective._codes

    def keep(*arguments: Any) -> Any:
        drawn = of_objective(*arguments)
        splits.append(drawn[2])
        return drawn

    training.objective._codes = keep
    go_on(training, 5)
    return found | {"splits": torch.tensor(splits), "pool": training.objective._pool.images}


def around(x: Tensor) -> Tensor:
    """A network that is not linear, and compares rows with one another on the way."""
    y = x.sin()
    return (y * rows.own(rows.whole(y).square().mean(0, keepdim=True).expand(rows.whole(y).shape))).exp()


def derivatives(group: Group) -> dict[str, Tensor]:
    """First and second derivatives through rows that are shared out."""
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator_for("cpu", "x")).requires_grad_()
    weights = torch.randn(5, 3, dtype=torch.float64, generator=generator_for("cpu", "weights"))
    with group.step():
        (first,) = torch.autograd.grad((weights * rows.by_rows(around, x)).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first.square() * weights).sum(), x)
    return {"first": first.detach(), "second": second}


def disagree(group: Group) -> list[str]:
    """What each process says when one of them fails, with what all share in between."""
    said = []
    for number in (0, 1):
        try:
            with group.agreement():
                if group.rank == number:
                    raise ValueError("nothing is here")
        except (ValueError, RuntimeError) as error:
            said.append(f"{type(error).__name__}: {error}")
    with group.task({"number": torch.arange(3)} if group.leads else None):
        if not group.leads:
            said += group.hear()["number"].tolist()
    return said


MODULES = ("baselines.pggan",)
FAILING = """
import os
from dataclasses import dataclass
from genae.objectives.reconstruction import Reconstruction
from genae.registry import OBJECTIVES

@OBJECTIVES.add("fails-on-one")
@dataclass(kw_only=True)
class FailsOnOne(Reconstruction):
    def terms(self, model, images, phase, generator):
        if os.environ["RANK"] == "1" and phase.images_seen >= 30:
            raise MemoryError("there is no room left")
        return super().terms(model, images, phase, generator)
"""


def experiment(folder: Path, *rows_of: tuple[dict[str, Any], dict[str, Any]], total_kimg: float = 0.1) -> Path:
    """A table with a row for each model and objective, and a checkpoint after every step; the first goes on to a density."""
    import_modules(MODULES, ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "setup.cfg").touch()
    (folder / "failing.py").write_text(FAILING)
    phase = {"batch_size": 10, "learning_rate": 0.001}
    made = {}
    for number, (model, objective) in enumerate(rows_of):
        stages = {
            "first": {"objective": objective, "schedule": {"total_kimg": total_kimg, "phases": [phase | {"resolution": 8}]}}
        }
        if number == 0:
            density = {"name": "lde", **DENSITIES["lde"].small}
            stages["density"] = {"density": density, "keep_best": {"every_kimg": 0.02}}
            stages["density"] |= {"schedule": {"total_kimg": 0.05, "phases": [phase]}}
        made[f"row-{number}"] = {
            "data": {"name": "fashion-mnist", "resolution": 8, "count": 150, "num_validation": 30},
            "model": model | MODELS[model["name"]].small,
            "stages": stages,
            "metrics": [{"name": "mse"}],
            "compute": {"checkpoint_seconds": 1e-9, "log_kimg": 0.02},
        }
    text = {"table": "parallel/table", "imports": [*MODULES, "failing"], "rows": made}
    (folder / "table.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    return folder / "table.yaml"


def work(path: Path, group: Group) -> None:
    """What `genae run` has a worker do, on each rank."""
    chosen = load(path)
    with Stop().on_signals(signal.SIGTERM) as stop:
        study.work(chosen.runs, study.Folders(chosen.root).runs, time.time(), stop, group=group)


# What a rank does, by name.

TASKS = {"half": lambda where, group: half(Path(where), group), "whole": lambda where, group: whole(Path(where), group)}
TASKS |= {"draws": lambda _, group: draws(group)}
TASKS |= {
    "disagree": lambda _, group: disagree(group),
    "derivatives": lambda _, group: derivatives(group),
    "work": lambda where, group: work(Path(where), group),
}
TASKS |= {
    "weights": lambda name, group: trained(name, group, STEPS, torch.float64),
    "gradients": lambda name, group: trained(name, group, 1, torch.float32),
}


def main(out: Path, tasks: list[str]) -> None:
    torch.set_num_threads(1)
    parallel.GRACE = timedelta(seconds=3)
    with parallel.join() as group:
        for task in tasks:
            what, _, of = task.partition(": ")
            torch.save(TASKS[what](of, group), out / file_of(task, group.rank))


def file_of(task: str, rank: int) -> str:
    return f"{task.replace('/', '_')}.{rank}.pt"


# Starting ranks, and what came of them.


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """As torchrun makes it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
    return os.environ | {key: str(value) for key, value in place.items()}


def start(size: int, out: Path, tasks: list[str]) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(out), *tasks]
    return [
        subprocess.Popen(command, env=environment(rank, size, port), cwd=out, stderr=(out / f"{rank}.err").open("w"))
        for rank in range(size)
    ]


def ended(ranks: list[subprocess.Popen], out: Path, seconds: float = 500) -> list[str]:
    """What each wrote to stderr."""
    deadline = time.monotonic() + seconds
    try:
        for rank in ranks:
            rank.wait(max(1.0, deadline - time.monotonic()))
    finally:
        for rank in ranks:
            rank.kill()
    return [(out / f"{number}.err").read_text() for number in range(len(ranks))]


def of_ranks(size: int, out: Path, tasks: list[str]) -> dict[str, list[Any]]:
    """What each rank found, by task."""
    ranks = start(size, out, tasks)
    said = ended(ranks, out)
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(said)
    return {task: [torch.load(out / file_of(task, rank)) for rank in range(size)] for task in tasks}


# Two processes against one.


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict[str, list[Any]]:
    tasks = [f"{what}: {name}" for name in FAST for what in ("weights", "gradients")]
    return of_ranks(2, tmp_path_factory.mktemp("two"), [*tasks, "draws: ", "derivatives: ", "disagree: "])


@pytest.mark.parametrize("name", FAST)
def test_two_processes_come_to_the_weights_of_one(two, name):
    alone = trained(name, ALONE, STEPS, torch.float64)
    first, second = two[f"weights: {name}"]
    distance, where = farthest(first["state"], alone["state"])
    assert distance < BAR, where
    assert farthest(second["state"], first["state"])[0] == 0  # bit for bit: nothing lets the two drift apart


@pytest.mark.parametrize("name", FAST)
def test_every_gradient_of_the_first_step_is_that_of_one_process(two, name):
    alone = trained(name, ALONE, 1, torch.float32)
    distance, where = farthest(two[f"gradients: {name}"][0]["gradients"], alone["gradients"])
    assert distance < BAR, where


def test_the_draws_of_a_batch_are_those_of_one_process(two):
    alone = draws(ALONE)
    for found in two["draws: "]:
        assert found.keys() == alone.keys()
        for name, drawn in found.items():
            torch.testing.assert_close(
                drawn, alone[name], rtol=1e-5 if name == "pool" else 0, atol=1e-5 if name == "pool" else 0
            )


def test_gradients_of_gradients_pass_through_rows_that_are_shared_out(two):
    alone = derivatives(ALONE)
    for found in two["derivatives: "]:
        torch.testing.assert_close(found, alone)


def test_what_fails_on_one_process_before_a_step_fails_on_all_which_can_still_talk(two):
    first, second = two["disagree: "]
    assert first[0] == second[1] == "ValueError: nothing is here"
    assert re.fullmatch(r"RuntimeError: process 1 of 2 on .*: ValueError: nothing is here", first[1])
    assert re.fullmatch(r"RuntimeError: process 0 of 2 on .*: ValueError: nothing is here", second[0])
    assert second[2:] == [0, 1, 2]


def test_one_process_alone_has_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    with parallel.join() as group:
        assert group is ALONE
        assert not torch.distributed.is_initialized()
        layers = nn.Sequential(nn.BatchNorm1d(2))
        group.span(layers)
        assert not layers[0]._forward_pre_hooks


@pytest.mark.parametrize(("total", "size"), [(8, 2), (10, 3), (3, 3), (7, 4)])
def test_rows_are_shared_out_whole_and_as_equally_as_can_be(total, size):
    shares = [rows._Share(total, rank, size) for rank in range(size)]
    taken = [number for share in shares for number in range(total)[share.of_total(total)]]
    assert taken == list(range(total))
    assert max(shares[0].counts(1)) - min(shares[0].counts(1)) <= 1
    assert shares[0].counts(2) == [2 * count for count in shares[0].counts(1)]


# Every other family: batch normalisation, comparison of images, penalties on gradients, dropout, flows.


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> dict[str, list[Any]]:
    tasks = [f"weights: {name}" for name in SLOW] + [f"gradients: {name}" for name in SLOW if name in FLOAT32]
    return of_ranks(2, tmp_path_factory.mktemp("slow"), tasks)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_family_comes_to_the_weights_of_one_process(slow, name):
    alone = trained(name, ALONE, STEPS, torch.float64)
    first, second = (found["state"] for found in slow[f"weights: {name}"])
    for part in ("model", "average", "objective"):
        distance, where = farthest(first[part], alone["state"][part], floor=1e-6) if every(alone["state"][part]) else (0, "")
        assert distance < BAR, f"{part}: {where}"
    assert farthest(second, first)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT32)
def test_every_gradient_of_other_families_is_that_of_one_process(slow, name):
    alone = trained(name, ALONE, 1, torch.float32)
    distance, where = farthest(slow[f"gradients: {name}"][0]["gradients"], alone["gradients"], floor=0.01)
    assert distance < BAR, where


@pytest.mark.slow
def test_three_processes_share_a_batch_of_ten(tmp_path):
    names = ["automodulator, uneven", "stylegan"]
    found = of_ranks(3, tmp_path, [f"weights: {name}" for name in names])
    for name in names:
        alone = trained(name, ALONE, STEPS, torch.float64)
        states = [rank["state"] for rank in found[f"weights: {name}"]]
        assert farthest(states[0], alone["state"])[0] < BAR
        assert all(farthest(state, states[0])[0] == 0 for state in states)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_processes(tmp_path):
    undisturbed = trained("automodulator", ALONE, STEPS, torch.float64)["state"]
    half(tmp_path / "one", ALONE)
    found = of_ranks(2, tmp_path / "ranks", [f"half: {tmp_path / 'two'}", f"whole: {tmp_path / 'one'}"])
    assert farthest(whole(tmp_path / "two", ALONE), undisturbed)[0] < BAR
    assert farthest(found[f"whole: {tmp_path / 'one'}"][0], undisturbed)[0] < BAR


# Runs, from claim to record.

PLAIN = {"name": "iae", "norm_scale_mean": 1.0}, {"name": "reconstruction"}


def places(path: Path, row: int = 0) -> list[RunDir]:
    chosen = load(path)
    return study.directories(chosen.runs[row], study.Folders(chosen.root).runs)


def wait_for_a_checkpoint(path: Path, ranks: list[subprocess.Popen]) -> None:
    while not list(path.parent.glob("results/runs/*/checkpoints/*.pt")):
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one_and_the_other_way_round(tmp_path):
    names = ("alone", "two", "two, then one", "one, then two")
    tables = {name: experiment(tmp_path / name, PLAIN) for name in names}
    work(tables["alone"], ALONE)
    of_ranks(2, tmp_path / "ranks", [f"work: {tables['two']}"])
    for name, sizes in (("two, then one", (2, 1)), ("one, then two", (1, 2))):
        ranks = start(sizes[0], tmp_path / name, [f"work: {tables[name]}"])
        wait_for_a_checkpoint(tables[name], ranks)
        ranks[0].send_signal(signal.SIGTERM)
        said = ended(ranks, tmp_path / name)
        assert [rank.returncode for rank in ranks] == [0] * sizes[0], said
        assert not places(tables[name])[1].path.exists()  # it was interrupted
        of_ranks(sizes[1], tmp_path / name, [f"work: {tables[name]}"])
    for name in names[1:]:
        for one, several in zip(places(tables["alone"]), places(tables[name]), strict=True):
            assert not several.failure.exists()
            a, b = checkpoint.latest(several.checkpoints).state, checkpoint.latest(one.checkpoints).state
            assert a["images_seen"] == b["images_seen"]
            assert farthest(a["model"], b["model"], floor=1e-3)[0] < BAR
            seen = [
                [json.loads(line)["images_seen"] for line in place.progress.read_text().splitlines()]
                for place in (one, several)
            ]
            assert seen[0] == seen[1]  # a line each, by process 0
        assert len(results.read(several.records)) == 1


@pytest.mark.slow
def test_what_fails_on_every_process_fails_one_run_only(tmp_path):
    table = experiment(tmp_path, ({"name": "pggan", "stddev_group": 3}, {"name": "wgan-gp"}), PLAIN)
    of_ranks(2, tmp_path / "ranks", [f"work: {table}"])
    failure = read_json(places(table, 0)[0].failure)
    assert failure["reason"] == "ValueError: a batch of 10 images cannot be parted into groups of 3"
    assert len(results.read(places(table, 1)[-1].records)) == 1


@pytest.mark.slow
def test_what_fails_on_one_process_ends_all_and_is_told(tmp_path):
    table = experiment(tmp_path, ({"name": "iae"}, {"name": "fails-on-one"}))
    ranks = start(2, tmp_path / "ranks", [f"work: {table}"])
    began = time.monotonic()
    ended(ranks, tmp_path / "ranks", 120)
    assert time.monotonic() - began < 120
    assert all(rank.returncode not in (0, -signal.SIGKILL) for rank in ranks)
    (failure,) = tmp_path.glob("results/runs/*/failure.json")
    assert "process 1 of 2" in read_json(failure)["reason"]
    assert "MemoryError: there is no room left" in read_json(failure)["reason"]
    assert [path.name for path in sorted(failure.parent.glob("checkpoints/*.pt"))] == ["0000000020.pt", "0000000030.pt"]


@pytest.mark.slow
def test_a_killed_process_takes_the_others_along(tmp_path):
    table = experiment(tmp_path, PLAIN, total_kimg=10.0)
    ranks = start(2, tmp_path / "ranks", [f"work: {table}"])
    wait_for_a_checkpoint(table, ranks)
    ranks[1].kill()
    ended(ranks, tmp_path / "ranks", 120)
    assert ranks[0].returncode not in (0, -signal.SIGKILL)
    place = places(table)[0]
    assert read_json(place.failure)["reason"].startswith("Broken: process 0 of 2")
    assert place.live_owner() is None


# Where processes learn that they belong together.


@pytest.mark.slow
def test_torchrun_makes_a_group(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, __file__, str(tmp_path), "derivatives: "], check=True, cwd=ROOT, timeout=240)
    torch.testing.assert_close(torch.load(tmp_path / file_of("derivatives: ", 1)), derivatives(ALONE))


@pytest.mark.slow
def test_the_tasks_of_a_submitit_job_make_a_group(tmp_path):
    executor = submitit.LocalExecutor(folder=tmp_path / "logs")
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    executor.submit(CommandFunction([sys.executable, __file__, str(tmp_path), "derivatives: "], cwd=str(ROOT))).results()
    torch.testing.assert_close(torch.load(tmp_path / file_of("derivatives: ", 1)), derivatives(ALONE))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
