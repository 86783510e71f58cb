"""One stage of one run to its last checkpoint; call it again to resume. Does not know that metrics exist.

Exact resume by counting: the random draws of a step come from (seed, stage, images seen), the order of the data from (seed,
epoch), so nothing random is in a checkpoint, and N + N steps equal 2N steps bit for bit on a CPU, whenever the process dies.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genae import checkpoint, provenance
from genae.context import resolve_device
from genae.data.dataset import Dataset
from genae.data.datasets import open_dataset
from genae.data.loader import Loader
from genae.ema import AveragedParts
from genae.models.autoencoder import Generator
from genae.objectives.objective import Objective, Update
from genae.randomness import generator_for, seed_for
from genae.registry import OBJECTIVES
from genae.rundir import RunDir, read_json, write_json
from genae.schedule import Phase
from genae.spec import Average, RunSpec, StageSpec

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
STATUS_SECONDS = 0.5  # how often status.json tells where training is
COLLAPSED_BELOW = 1e-3  # standard deviation between samples, in [-1, 1], under which they are all one image
COLLAPSE_AFTER = 0.25  # share of the stage before which a model may still be finding its feet


class Interrupted(RuntimeError):
    """Training was asked to stop, and did so at a checkpoint."""


class Diverged(RuntimeError):
    """Training cannot go on: what went wrong, when, and the last good checkpoint."""


class Stop:
    """A request to stop, made by a signal or by another thread; heeded after the step under way."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self, *signals: signal.Signals) -> Iterator["Stop"]:
        """While this lasts, the signals ask to stop; a second SIGINT interrupts at once."""

        def ask(number: int, _frame: object) -> None:
            if self.requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.requested = True

        before = {number: signal.signal(number, ask) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Training:
    """Every piece of state that a stage's training has, the objective's included, and the step that moves it."""

    def __init__(
        self, model: Generator, objective: Objective, stage: StageSpec, *, seed: int, precision: str = "float32"
    ) -> None:
        lacking = objective.needs - model.provides
        if lacking:
            raise ValueError(f"objective {stage.objective['name']!r} needs a model that provides {', '.join(sorted(lacking))}")
        self.model = model
        self.objective = objective
        self.stage = stage
        self.seed = seed
        self.precision = precision
        self.images_seen = 0
        self.phase_index = -1  # of the phase last entered
        self.average = AveragedParts(model, Average(**stage.average)) if stage.average else None
        self.sums: dict[str, Tensor] = {}  # loss terms since the last line of progress.jsonl, on the device
        self.steps = 0  # since then
        self.updates: list[Update] = []
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._set_up_updates()

    def step(self, images: Tensor, phase: Phase) -> None:
        """One training step: each update of the objective in turn, on images [N, C, H, W] in [-1, 1] at the phase's growth."""
        if phase.index != self.phase_index:
            self.objective.enter(phase)
            self.phase_index = phase.index
            self._set_up_updates()  # a phase may have grown the objective's own parameters
        key = (self.seed, self.stage.name, self.images_seen)
        torch.manual_seed(seed_for("step", *key))  # what a module draws by itself: noise inputs, dropout
        generator = generator_for(images.device, "terms", *key)

        self.model.train()
        for update in self.updates:
            optimizer = self.optimizers[update.name]
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(group["name"], update.name)
            self._move_only(update)
            with self._autocast(images.device):
                terms = update.terms(self.model, images, phase, generator)
            sum(terms.values()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, value in terms.items():
                name, value = f"{update.name}/{name}", value.detach()
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        if self.average:
            self.average.update(len(images))
        self.images_seen += len(images)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "images_seen": self.images_seen,
            "phase_index": self.phase_index,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "objective": self.objective.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "sums": dict(self.sums),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.model.device
        self.images_seen, self.phase_index, self.steps = state["images_seen"], state["phase_index"], state["steps"]
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.objective.load_state_dict(state["objective"])
        self._set_up_updates()
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def means(self) -> dict[str, float]:
        """The mean of each loss term since the last call, which starts anew. One copy to the host for all."""
        names = list(self.sums)
        values = (torch.stack([self.sums[name].double() for name in names]) / self.steps).tolist() if names else []
        self.sums, self.steps = {}, 0
        return dict(zip(names, values, strict=True))

    def _set_up_updates(self) -> None:
        """Ask the objective for its updates; optimisers keep what they know of parameters that are still there."""
        before = self.optimizers
        self.updates, self.optimizers = self.objective.updates(self.model), {}
        settings = {key: value for key, value in self.stage.optimizer.items() if key != "name"}
        for update in self.updates:
            parameters = update.parameters
            named = parameters if isinstance(parameters, dict) else {update.name: parameters}
            groups = [{"params": list(group), "name": name} for name, group in named.items()]
            optimizer = OPTIMIZERS[self.stage.optimizer["name"]](groups, lr=0.0, fused=True, **settings)
            if update.name in before:
                known = before[update.name].state
                for group in optimizer.param_groups:
                    optimizer.state.update({p: known[p] for p in group["params"] if p in known})
            self.optimizers[update.name] = optimizer
        self._movable = {
            update.name: {id(p) for group in self.optimizers[update.name].param_groups for p in group["params"]}
            for update in self.updates
        }
        self._parameters = {
            id(p): p
            for p in [
                *self.model.parameters(),
                *(p for o in self.optimizers.values() for group in o.param_groups for p in group["params"]),
            ]
        }

    def _move_only(self, update: Update) -> None:
        """Freeze everything but the parameters of this update, so that gradients reach exactly those."""
        movable = self._movable[update.name]
        for number, parameter in self._parameters.items():
            parameter.requires_grad_(number in movable)

    def _autocast(self, device: torch.device):
        return nullcontext() if self.precision == "float32" else torch.autocast(device.type, getattr(torch, self.precision))


@dataclass(frozen=True)
class Progress:
    """Where a stage is, as told to whoever watches it."""

    images_seen: int
    total_images: int
    images_per_second: float


def train(
    run: RunSpec, index: int, runs: Path, *, stop: Stop | None = None, watch: Callable[[Progress], None] | None = None
) -> RunDir:
    """Train stage `index` of `run` to its end, from its last checkpoint if there is one; returns its directory, under `runs`.

    The caller holds the directory (RunDir.claim), and the stages before are done.
    Raises Interrupted (after a checkpoint, when `stop` asks), Diverged, checkpoint.Damaged, ValueError for data that changed.
    """
    stage, stop, watch = run.stages[index], stop or Stop(), watch or (lambda progress: None)
    directory = RunDir.of(runs, run.label, stage.identity)
    device = resolve_device(run.compute.device)
    _describe(run, index, directory)
    torch.set_num_threads(_threads(run, directory))

    # The data, the model as the stage before left it, and what this stage trains it for.
    data = open_dataset(run.data, "train")
    loader = Loader(data, seed=run.seed, flip=run.flip, device=device)
    schedule = stage.schedule
    model = _model(run, index, runs, data).to(device, memory_format=torch.channels_last)
    objective = OBJECTIVES.build(stage.objective)
    training = Training(model, objective, stage, seed=run.seed, precision=run.precision)
    made_of = {"identity": stage.identity, "data": data.digest, "model_spec": run.model, "shape": list(data.shape)}

    # The last checkpoint, if there is one; what was logged after it will be logged again.
    last = checkpoint.latest(directory.checkpoints)
    if last:
        if last.state["data"] != data.digest:
            raise ValueError(
                f"{directory.path.name} was trained on other data: its checkpoint names {last.state['data'][:12]}, "
                f"{data.name} is now {data.digest[:12]}. Restore that data, or move the directory away to train anew."
            )
        training.load_state_dict(last.state)
    _cut_back(directory.progress, training.images_seen)

    total = schedule.total_images
    log_every = max(1, round(1000 * run.compute.log_kimg))
    saved_at = told_at = time.monotonic()
    started_at, started_from = told_at, training.images_seen
    if last and training.images_seen >= total:
        return directory

    def save() -> None:
        nonlocal last, saved_at
        _refuse_to_save_if_broken(training, directory, last, total, run.seed)
        last = checkpoint.save(directory.checkpoints, {**made_of, **training.state_dict()}, training.images_seen)
        saved_at = time.monotonic()

    with directory.progress.open("a") as log:
        while training.images_seen < total:
            phase = schedule.at(training.images_seen, len(data))
            training.step(loader.batch(training.images_seen, phase), phase)

            # A line of progress at fixed image counts, so that the same lines are written whatever interrupted the run.
            if training.images_seen // log_every > (training.images_seen - phase.batch_size) // log_every:
                terms = training.means()
                _refuse_to_log_nonsense(terms, training.images_seen, directory, last)
                line = {
                    "images_seen": training.images_seen,
                    "phase": phase.index,
                    "resolution": phase.resolution,
                    "fade": phase.fade,
                }
                line |= {
                    "learning_rate": phase.learning_rate,
                    "terms": terms,
                    "seconds": round(time.monotonic() - started_at, 2),
                }
                log.write(json.dumps(line) + "\n")
                log.flush()

            now = time.monotonic()
            if now - told_at >= STATUS_SECONDS or training.images_seen >= total:
                rate = (training.images_seen - started_from) / max(now - started_at, 1e-9)
                watch(Progress(training.images_seen, total, rate))
                write_json(
                    directory.status, {"images_seen": training.images_seen, "total_images": total, "images_per_second": rate}
                )
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
        model = checkpoint.model_from(last.state).train().requires_grad_(True)
    return model


def _describe(run: RunSpec, index: int, directory: RunDir) -> None:
    """run.json once; provenance.json one entry per start, with a warning where the processor changed."""
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
        print(
            f"warning: {directory.path.name} goes on with {now['capability']} instructions after {starts[-1]['capability']}: "
            "its weights will differ from an undisturbed run's by rounding"
        )
    write_json(directory.provenance, [*starts, now])


def _threads(run: RunSpec, directory: RunDir) -> int:
    """The run's thread count, kept from its first start: another count rounds differently."""
    kept = (read_json(directory.run) or {}).get("threads")
    if kept is not None and kept != run.compute.threads:
        raise ValueError(
            f"{directory.path.name} was begun with {kept} threads and would not be the same run with {run.compute.threads}: "
            f"give compute.threads={kept}, or move the directory away"
        )
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
    training: Training, directory: RunDir, last: checkpoint.Checkpoint | None, total: int, seed: int
) -> None:
    """A checkpoint is good or it is not written: no NaN, and samples that differ from one another."""
    named = dict(training.model.named_parameters())
    finite = torch.stack([parameter.isfinite().all() for parameter in named.values()]).tolist()
    broken = [name for name, good in zip(named, finite, strict=True) if not good]
    if broken:
        raise Diverged(_diagnosis(f"the weights {broken[0]} hold NaN or infinity", training.images_seen, directory, last))
    if training.images_seen >= COLLAPSE_AFTER * total:
        spread = _spread(training.model, training.stage.schedule.at(max(training.images_seen - 1, 0)), seed)
        if spread < COLLAPSED_BELOW:
            what = f"the model collapsed: its samples differ by {spread:.1e} on [-1, 1]"
            raise Diverged(_diagnosis(what, training.images_seen, directory, last))


@torch.inference_mode()
def _spread(model: nn.Module, phase: Phase, seed: int) -> float:
    """The standard deviation between 16 samples, averaged over pixels."""
    model.eval()
    codes = model.prior(16, generator_for(model.device, "spread", seed))
    return float(model.decode(codes, phase.growth).float().std(0).mean())


def _diagnosis(what: str, images_seen: int, directory: RunDir, last: checkpoint.Checkpoint | None) -> str:
    good = f"the last good checkpoint is {last.path.name}" if last else "no checkpoint was written before"
    where = f"{directory.path.name}: by {images_seen:,} images, {what}"
    return f"{where}; {good}. The same seed will do it again: change the settings or the seed."
