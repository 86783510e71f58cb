"""One stage of one run to its last checkpoint; call it again to resume. Does not know that metrics exist.

Exact resume by counting: the random draws of a step come from (seed, stage, images seen), the order of the data from (seed,
epoch), so nothing random is in a checkpoint, and N + N steps equal 2N steps bit for bit on a CPU, whenever the process dies.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genae import checkpoint, provenance
from genae.best import BestWeights
from genae.codes import codes_of
from genae.context import resolve_device
from genae.data.dataset import Dataset, Vectors
from genae.data.datasets import open_dataset
from genae.data.loader import Loader
from genae.densities.density import Density
from genae.experiment import import_modules
from genae.models.autoencoder import Generator
from genae.parallel import ALONE, Group
from genae.randomness import generator_for
from genae.registry import OBJECTIVES
from genae.rundir import RunDir, read_json, write_json
from genae.schedule import Phase
from genae.spec import KeepBest, RunSpec, StageSpec
from genae.stop import Interrupted, Stop
from genae.training import Training

STATUS_SECONDS = 0.5  # how often status.json tells where training is
COLLAPSED_BELOW = 1e-3  # standard deviation between samples, in [-1, 1], under which they are all one image
COLLAPSE_AFTER = 0.25  # share of the stage before which a model may still be finding its feet


class Diverged(RuntimeError):
    """Training cannot go on: what went wrong, when, and the last good checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where a stage is, as told to whoever watches it."""

    images_seen: int
    total_images: int
    images_per_second: float


def train(
    run: RunSpec,
    index: int,
    runs: Path,
    *,
    stop: Stop | None = None,
    watch: Callable[[Progress], None] | None = None,
    group: Group = ALONE,
) -> RunDir:
    """Train stage `index` of `run` to its end, from its last checkpoint if there is one; returns its directory, under `runs`.

    The caller holds the directory (RunDir.claim), and the stages before are done.
    group: the processes that share the work; this is process 0, within a `task` of theirs, and the others call `assist`.
    Raises Interrupted (after a checkpoint, when `stop` asks), Diverged, checkpoint.Damaged, ValueError for data that changed.
    """
    stage, stop, watch = run.stages[index], stop or Stop(), watch or (lambda progress: None)
    directory = RunDir.of(runs, run.label, stage.identity)
    device = resolve_device(run.compute.device)
    _describe(run, index, directory)
    threads = _threads(run, directory)
    torch.set_num_threads(threads)

    # The data, the model as the stage before left it, and what this stage trains: that model, or a density of its codes.
    data = open_dataset(run.data, "train")
    schedule = stage.schedule
    model = _model(run, index, runs, data).to(device, memory_format=torch.channels_last)
    made_of = {"identity": stage.identity, "data": data.digest, "model_spec": run.model, "shape": list(data.shape)}
    seen: Dataset | Vectors = data
    trained, best = model, None
    if stage.density:
        seen, trained, best = _density(run, index, directory, model, data)
        made_of |= {"density_spec": stage.density, "encoded_by": model.state_dict(), "codes": seen.digest}
    elif isinstance(data, Vectors):
        raise ValueError(f"{data.name} holds vectors: its one stage trains a density of them (density: {{name: ...}})")
    loader = Loader(seen, seed=run.seed, flip=run.flip, device=device)
    training = _training(run, stage, trained, best, group)

    # The last checkpoint, if there is one; what was logged after it will be logged again.
    last = checkpoint.latest(directory.checkpoints, directory.warn)
    if last:
        checkpoint.check_origin(last, stage.identity, data)
        if last.state.get("codes") != made_of.get("codes"):
            raise ValueError(
                f"{directory.path.name} was trained on other codes than its encoder gives now; move it away to begin anew"
            )
        training.load_state_dict(last.state)
    elif stage.density:
        trained.begin(torch.from_numpy(np.array(seen.vectors)).to(device))
    _cut_back(directory.progress, training.images_seen)

    total = schedule.total_images
    if last and training.images_seen >= total:
        return directory
    if group.size > 1:
        codes = (seen.name, torch.from_numpy(np.array(seen.vectors)), seen.digest) if seen is not data else None
        group.tell(
            {"threads": threads, "device": _kind(device), "data": data.digest, "codes": codes, "state": training.state_dict()}
        )
        with group.agreement():
            pass
    log_every = max(1, round(1000 * run.compute.log_kimg))
    saved_at = told_at = time.monotonic()
    started_at, started_from, loss = told_at, training.images_seen, None

    def save() -> None:
        nonlocal last, saved_at
        directory.check_held()
        state = {**made_of, **training.state_dict()}
        _refuse_to_save_if_broken(training, state, directory, last, total)
        last = checkpoint.save(directory.checkpoints, state, training.images_seen)
        saved_at = time.monotonic()

    with directory.progress.open("a") as log:
        while training.images_seen < total:
            phase = schedule.at(training.images_seen, len(data))
            group.go_on()
            with group.step():
                training.step(loader.batch(training.images_seen, phase), phase)
            if best and best.settings.is_due(training.images_seen, phase.batch_size, total):
                best.look(training.images_seen)

            # A line of progress at fixed image counts, so that the same lines are written whatever interrupted the run.
            if training.images_seen // log_every > (training.images_seen - phase.batch_size) // log_every:
                terms = training.means()
                if best and best.latest is not None:
                    terms[f"{best.settings.split}/log_prob"] = best.latest
                _refuse_to_log_nonsense(terms, training.images_seen, directory, last)
                line = {"images_seen": training.images_seen, "stage": stage.name, "phase": phase.index}
                line |= {"resolution": phase.resolution, "fade": phase.fade, "learning_rate": phase.learning_rate}
                line |= {"terms": terms, "seconds": round(time.monotonic() - started_at, 2)}
                loss = sum(value for name, value in terms.items() if name.partition("/")[0] in training.optimizers)
                directory.check_held()
                log.write(json.dumps(line) + "\n")
                log.flush()

            now = time.monotonic()
            if now - told_at >= STATUS_SECONDS or training.images_seen >= total:
                rate = (training.images_seen - started_from) / max(now - started_at, 1e-9)
                watch(Progress(training.images_seen, total, rate))
                directory.check_held()
                now_at = {"images_seen": training.images_seen, "total_images": total, "images_per_second": rate}
                write_json(directory.status, now_at | {"loss": loss, "time": time.time()}, sync=False)
                told_at = now
            if stop.requested or now - saved_at >= run.compute.checkpoint_seconds:
                os.fsync(log.fileno())
                save()
            if stop.requested and training.images_seen < total:
                raise Interrupted(
                    f"{directory.path.name} stopped at {training.images_seen:,} of {total:,} images; run it again to go on"
                )
        os.fsync(log.fileno())
    if not last or last.state["images_seen"] < total:
        save()
    return directory


def assist(values: Mapping[str, Any], index: int, group: Group) -> None:
    """What the other processes do while process 0 trains stage `index` of a run (as plain values): the same steps.

    All that they start from they are told; they read no run directory, and write nothing. Ends with the task of process 0.
    """
    told = group.hear()
    with group.agreement():
        run = RunSpec.from_dict(values)
        import_modules(run.imports, run.root)
        torch.set_num_threads(told["threads"])
        stage, device, data = run.stages[index], resolve_device(run.compute.device), open_dataset(run.data, "train")
        if (_kind(device), data.digest) != (told["device"], told["data"]):
            here, there = f"{_kind(device)} and data {data.digest[:12]}", f"{told['device']} and data {told['data'][:12]}"
            raise ValueError(f"the processes of one run must be alike, but one has {here}, process 0 has {there}")
        trained: Generator | Density = checkpoint.untrained_model(run.model, data.shape, run.seed)
        seen: Dataset | Vectors = data
        if stage.density:
            trained = checkpoint.untrained_density(stage.density, trained.latent.dim, run.seed)
        if told["codes"]:
            name, vectors, digest = told["codes"]
            seen = Vectors(name, "train", vectors.numpy(), digest)
        trained.to(device, memory_format=torch.channels_last)
        training = _training(run, stage, trained, None, group)
        training.load_state_dict(told["state"])
        loader = Loader(seen, seed=run.seed, flip=run.flip, device=device)
    while True:
        group.hear()  # to go on; the task's end otherwise
        phase = stage.schedule.at(training.images_seen, len(data))
        with group.step():
            training.step(loader.batch(training.images_seen, phase), phase)


def is_trained(run: RunSpec, index: int, runs: Path) -> bool:
    """Whether the stage has its last checkpoint (by name: it is read when it is used)."""
    stage = run.stages[index]
    folder = RunDir.of(runs, run.label, stage.identity).checkpoints
    return any(int(path.stem) >= stage.schedule.total_images for path in folder.glob("*.pt"))


def _model(run: RunSpec, index: int, runs: Path, data: Dataset) -> Generator:
    model = checkpoint.untrained_model(run.model, data.shape, run.seed)
    if index > 0:
        before = run.stages[index - 1]
        last = checkpoint.latest(RunDir.of(runs, run.label, before.identity).checkpoints)
        if not last or last.state["images_seen"] < before.schedule.total_images:
            raise ValueError(f"stage {run.stages[index].name!r} needs stage {before.name!r}, which is not trained")
        checkpoint.check_origin(last, before.identity, data)
        model = checkpoint.model_from(last.state).train().requires_grad_(True)
    return model


def _density(
    run: RunSpec, index: int, directory: RunDir, model: Generator, data: Dataset | Vectors
) -> tuple[Vectors, Density, BestWeights | None]:
    """The codes that the stage trains a density on, that density before training, and what keeps its best weights."""
    stage = run.stages[index]
    model.eval().requires_grad_(False)
    direct = isinstance(data, Vectors) and run.model["name"] == "identity"  # vectors are their own codes

    def codes(split: Dataset | Vectors) -> Vectors:
        return split if direct else codes_of(model, split, directory.codes, model.device)

    density = checkpoint.untrained_density(stage.density, model.latent.dim, run.seed).to(model.device)
    best = None
    if stage.keep_best:
        settings = KeepBest(**stage.keep_best)
        held_out = codes(open_dataset(run.data, settings.split).first(settings.count))
        best = BestWeights(density, settings, torch.from_numpy(np.array(held_out.vectors)).to(model.device))
    return codes(data), density, best


def _training(run: RunSpec, stage: StageSpec, trained: Generator | Density, best: BestWeights | None, group: Group) -> Training:
    if run.compute.compile:
        for part in trained.children():
            part.compile()
    precision = "float32" if stage.density else run.precision  # of a density, all digits count
    objective = OBJECTIVES.build(stage.objective)
    return Training(trained, objective, stage, seed=run.seed, precision=precision, best=best, group=group)


def _kind(device: torch.device) -> str:
    """What processes that draw the same numbers must have in common."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _describe(run: RunSpec, index: int, directory: RunDir) -> None:
    """run.json, of the row that trains the stage now; provenance.json, one entry per start; a warning on another processor."""
    directory.path.mkdir(parents=True, exist_ok=True)
    stage = run.stages[index]
    write_json(
        directory.run,
        {
            "table": run.table,
            "row": run.row,
            "stage": stage.name,
            "identity": stage.identity,
            "total_images": stage.schedule.total_images,
            "threads": _threads(run, directory),
            "run": run.to_dict(),
        },
    )
    starts = read_json(directory.provenance) or []
    now = (
        provenance.code(run.root)
        | provenance.machine()
        | {"capability": torch.backends.cpu.get_cpu_capability(), "time": time.time()}
    )
    if starts and starts[-1]["capability"] != now["capability"]:
        directory.warn(
            f"{directory.path.name} goes on with {now['capability']} instructions after {starts[-1]['capability']}: "
            "its weights will differ from an undisturbed run's by rounding"
        )
    write_json(directory.provenance, [*starts, now])


def _threads(run: RunSpec, directory: RunDir) -> int:
    """The run's thread count, kept from its first start: another count rounds differently."""
    kept = (read_json(directory.run) or {}).get("threads", run.compute.threads)
    if kept == run.compute.threads:
        return kept
    changed = f"{directory.path.name} was begun with {kept} threads and would not be the same run with {run.compute.threads}"
    if not run.compute.threads_may_change:
        ways = f"give compute.threads={kept}, or compute.threads_may_change=true to go on all the same"
        raise ValueError(f"{changed}: {ways}")
    directory.warn(f"{changed}: its weights will differ from an undisturbed run's by rounding")
    return run.compute.threads


def _cut_back(progress: Path, images_seen: int) -> None:
    """Drop the lines logged after the checkpoint, and a torn last one."""
    if not progress.exists():
        return
    kept = []
    for line in progress.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["images_seen"] > images_seen:
            break
        kept.append(line)
    aside = progress.with_suffix(".cut")
    aside.write_text("".join(kept))
    aside.replace(progress)


def _refuse_to_log_nonsense(
    terms: dict[str, float], images_seen: int, directory: RunDir, last: checkpoint.Checkpoint | None
) -> None:
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken:
        raise Diverged(_diagnosis(f"{', '.join(broken)} became {terms[broken[0]]}", images_seen, directory, last))


def _refuse_to_save_if_broken(
    training: Training, state: dict[str, Any], directory: RunDir, last: checkpoint.Checkpoint | None, total: int
) -> None:
    """A checkpoint is good or it is not written: no NaN anywhere in it, and samples that differ from one another."""
    broken = checkpoint.first_not_finite(state)
    if broken:
        raise Diverged(_diagnosis(f"{broken} holds NaN or infinity", training.images_seen, directory, last))
    if isinstance(training.model, Generator) and training.images_seen >= COLLAPSE_AFTER * total:
        spread = _spread(training.model, training.stage.schedule.at(max(training.images_seen - 1, 0)), training.seed)
        if spread < COLLAPSED_BELOW:
            what = f"the model collapsed: its samples differ by {spread:.1e} on [-1, 1]"
            raise Diverged(_diagnosis(what, training.images_seen, directory, last))


@torch.inference_mode()
def _spread(model: Generator, phase: Phase, seed: int) -> float:
    """The standard deviation between 16 samples, averaged over pixels."""
    model.eval()
    codes = model.prior(16, generator_for(model.device, "spread", seed))
    return float(model.decode(codes, phase.growth).float().std(0).mean())


def _diagnosis(what: str, images_seen: int, directory: RunDir, last: checkpoint.Checkpoint | None) -> str:
    good = f"the last good checkpoint is {last.path.name}" if last else "no checkpoint was written before"
    where = f"{directory.path.name}: by {images_seen:,} images, {what}"
    return f"{where}; {good}. Change the settings or the seed."
