"""What an experiment costs, before it is spent: images, hours, disk and memory of the runs that are outstanding.

Nothing is written, and no data are needed: a step is counted on shapes, and timed on random images (genae.step_cost). Stages
that several rows share are counted once; what is trained already is not counted.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genae import provenance, results, study
from genae.experiment import import_modules
from genae.identity import canonical
from genae.registry import suggestion
from genae.spec import Experiment, RunSpec

if TYPE_CHECKING:
    from genae.step_cost import StageCost, StepCost, Timing

SECONDS = 1.0  # of one timed step
UTILISATION = 0.3  # of the peak, that training reaches; a guess, and printed as one
SECONDS_PER_OPERATION = 5e-6  # that PyTorch takes to issue one: small networks wait for it, however fast the GPU


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its memory in GB, and its published peaks in TFLOP/s, dense. None: it has no such arithmetic."""

    memory: int
    float32: float
    tf32: float | None
    bfloat16: float | None


# NVIDIA's data sheets: V100 (SXM2 32 GB, 2020), A100 (SXM 80 GB, 2021), H100 and H200 (SXM, 2024; printed with sparsity there,
# which is twice the dense number), RTX 4090 (Ada architecture whitepaper, 2023; bfloat16 summed in float32), L40S (2023).
GPUS = {
    "v100": Gpu(32, 15.7, None, None),
    "a100": Gpu(80, 19.5, 156.0, 312.0),
    "h100": Gpu(80, 66.9, 494.7, 989.4),
    "h200": Gpu(141, 66.9, 494.7, 989.4),
    "rtx4090": Gpu(24, 82.6, 82.6, 165.2),
    "l40s": Gpu(48, 91.6, 183.0, 362.0),
}


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage of a row. Of one run: images, seconds and images_per_second.  Of all, what is still to do: remaining, its
    gpu_seconds, and disk_bytes.  memory_bytes: of each GPU.  source: of images_per_second.  shared_with: the row that pays for
    it.  problem: why something could not be told.
    """

    name: str
    images: int
    remaining: int
    shared_with: str | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    disk_bytes: int | None = None
    memory_bytes: int | None = None
    source: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """A row on one data set. gpus: of each run. Sums are None where a stage lacks the number."""

    row: str
    data_name: str
    runs: int
    outstanding: int
    gpus: int
    stages: tuple[StagePlan, ...]

    @property
    def whole(self) -> StagePlan:
        """All stages as one; a sum is None where a stage lacks the number."""
        images, seconds = sum(stage.images for stage in self.stages), _sum(stage.seconds for stage in self.stages)
        memory_bytes = [stage.memory_bytes for stage in self.stages if stage.memory_bytes is not None]
        return StagePlan(
            name="all",
            images=images,
            remaining=sum(stage.remaining for stage in self.stages),
            images_per_second=images / seconds if seconds else None,
            seconds=seconds,
            gpu_seconds=_sum(stage.gpu_seconds for stage in self.stages),
            disk_bytes=_sum(stage.disk_bytes for stage in self.stages),
            memory_bytes=max(memory_bytes, default=None),
            problem=next((stage.problem for stage in self.stages if stage.problem), None),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """basis: where images/s come from.  data: bytes of each pack, and how that is known.

    evaluation: what is known of its time.  notes: what a reader must know to take the numbers right.
    """

    table: str
    scale: str
    basis: str
    rows: tuple[RowPlan, ...]
    data: Mapping[str, tuple[int | None, str]]
    evaluation: str
    notes: tuple[str, ...]

    @property
    def totals(self) -> dict[str, Any]:
        """Of what could be told: a row's problem is named in its own line."""
        stages = [stage for row in self.rows for stage in row.stages]
        return {
            "runs": sum(row.runs for row in self.rows),
            "outstanding": sum(row.outstanding for row in self.rows),
            "images": sum(stage.remaining for stage in stages),
            "gpu_hours": sum(stage.gpu_seconds or 0 for stage in stages) / 3600,
            "disk_bytes": sum(stage.disk_bytes or 0 for stage in stages),
            "data_bytes": sum(size or 0 for size, _ in self.data.values()),
            "memory_bytes": max((stage.memory_bytes or 0 for stage in stages), default=0),
        }

    def to_dict(self) -> dict[str, Any]:
        rows = [asdict(row) | {"whole": asdict(row.whole)} for row in self.rows]
        data = {name: {"bytes": size, "how": how} for name, (size, how) in self.data.items()}
        return asdict(self) | {"rows": rows, "data": data, "totals": self.totals}


def make(
    experiment: Experiment,
    folders: study.Folders,
    *,
    gpu: str | None = None,
    images_per_second: float | None = None,
    utilisation: float = UTILISATION,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan of an experiment's runs.

    images_per_second: of every stage of every run, given.  Else gpu: estimated from the FLOPs of a step, at `utilisation` of
    the peak of that kind of GPU.  Else measured here, with steps of about `seconds`.  tell: of what is being looked at.
    Raises ValueError for an unknown GPU, and for a pace or utilisation that cannot be.
    """
    gpu = gpu and gpu.lower()
    if gpu is not None and gpu not in GPUS:
        raise ValueError(f"unknown GPU {gpu!r}; {suggestion(gpu, GPUS)}")
    if images_per_second is not None and not 0 < images_per_second < math.inf:
        raise ValueError(f"images per second is a positive number, not {images_per_second}")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is a share of the peak, in (0, 1], not {utilisation}")
    speed = _Speed(experiment.runs, gpu, images_per_second, utilisation, seconds)
    outstanding = {id(run) for run in study.outstanding(experiment, folders)}
    payers: dict[str, str] = {}  # who pays for a stage, by its identity
    rows = []
    groups: dict[tuple[str, str], list[RunSpec]] = {}
    for run in experiment.runs:
        groups.setdefault((run.row, run.data_name), []).append(run)
    for (row, data_name), runs in groups.items():
        label = row if sum(one == row for one, _ in groups) == 1 else f"{row}/{data_name}"
        tell(label)
        todo = [run for run in runs if id(run) in outstanding and study.next_task(run, folders.runs)]
        stages = tuple(_stage(runs, todo, index, folders.runs, payers, label, speed) for index in range(len(runs[0].stages)))
        gpus = runs[0].compute.gpus or 1
        rows.append(RowPlan(row=row, data_name=data_name, runs=len(runs), outstanding=len(todo), gpus=gpus, stages=stages))
    return Plan(
        table=experiment.table,
        scale=experiment.scale,
        basis=speed.basis,
        rows=tuple(rows),
        data=_data_of(experiment.runs),
        evaluation=_evaluation(experiment, folders, outstanding),
        notes=tuple(_notes(rows, gpu)),
    )


class _Speed:
    """Where images per second come from. Stages that are equal in all but their seed are looked at once."""

    def __init__(
        self, runs: Sequence[RunSpec], gpu: str | None, images_per_second: float | None, utilisation: float, seconds: float
    ) -> None:
        self.gpu = GPUS[gpu] if gpu else None
        self.given = images_per_second
        self.utilisation = utilisation
        self.seconds = seconds
        self._costs: dict[str, StageCost | str] = {}
        self._timings: dict[str, Timing | str] = {}
        if images_per_second is not None:
            self.basis = f"{images_per_second:,g} images/s, as given for every run"
        elif gpu:
            self.basis = (
                f"an estimate, not a measurement: the FLOPs of a training step at {utilisation:g} of one {gpu}'s peak "
                f"({_peaks(GPUS[gpu])}), and no less than {SECONDS_PER_OPERATION * 1e6:g} microseconds an operation"
            )
        else:
            self.basis = (
                f"training steps timed on this machine ({_machine(runs)}); sizes too slow to time go by their FLOPs, "
                "at the pace of the largest timed"
            )

    def cost(self, run: RunSpec, index: int) -> "StageCost | str":
        """What its steps cost, or why that cannot be told."""
        from genae.step_cost import count_stage

        return self._once(self._costs, run, index, lambda shape: count_stage(run, index, shape))

    def steps(self, run: RunSpec, index: int, cost: "StageCost") -> tuple[list[float], str] | str:
        """Seconds of a step of each phase on the GPUs of a run, and where they come from; or why that cannot be told."""
        if self.gpu:
            return [self._estimate(step, run, index) for step in cost.steps], "estimated"
        from genae.step_cost import time_stage

        timing = self._once(self._timings, run, index, lambda shape: time_stage(run, index, shape, cost, self.seconds))
        if isinstance(timing, str):
            return timing
        seconds = [second / (run.compute.gpus or 1) for second in timing.seconds]  # measured on one
        largest = cost.steps[timing.timed - 1].resolution if timing.timed else None
        if timing.timed == len(cost.steps):
            return seconds, "measured"
        return seconds, f"measured to {largest}x{largest}, by FLOPs beyond"

    def _estimate(self, step: "StepCost", run: RunSpec, index: int) -> float:
        import torch

        of_density = run.stages[index].density is not None
        if run.precision == "bfloat16" and not of_density:
            convolutions = products = self.gpu.bfloat16 or self.gpu.float32
        else:
            convolutions, products = (
                (self.gpu.tf32 if allowed else None) or self.gpu.float32
                for allowed in (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
            )
        computed = (step.conv_flops / convolutions + step.matmul_flops / products) / 1e12 / self.utilisation
        # Processes share the arithmetic of a step; each of them issues all its operations.
        return max(computed / (run.compute.gpus or 1), step.operations * SECONDS_PER_OPERATION)

    def _once(self, known: dict[str, Any], run: RunSpec, index: int, look: Callable[[Sequence[int]], Any]) -> Any:
        from genae.data.sizes import shape_of

        stage = run.stages[index]
        phases = [(phase.resolution, phase.batch_size) for phase in stage.schedule.phases]
        about = (stage.objective, stage.optimizer, stage.average, stage.density, stage.keep_best, run.precision)
        try:
            shape = shape_of(run.data)
            key = canonical([run.model, shape, phases, *about])
            if key not in known:
                import_modules(run.imports, run.root)
                known[key] = look(shape)
        except Exception as error:  # whatever a model raises: told in its row's line, and no reason for the others to stop
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return known[key]


def _stage(
    runs: list[RunSpec], todo: list[RunSpec], index: int, folder: Path, payers: dict[str, str], row: str, speed: _Speed
) -> StagePlan:
    from genae.checkpoint import KEEP
    from genae.trainer import is_trained

    run, stage = runs[0], runs[0].stages[index]
    total = stage.schedule.total_images
    own = [
        one for one in todo if payers.setdefault(one.stages[index].identity, row) == row and not is_trained(one, index, folder)
    ]
    begun = [study.directories(one, folder)[index].images_kept() for one in own]
    payer = [payers[one.stages[index].identity] for one in todo if not is_trained(one, index, folder)]
    shared = next((other for other in payer if other != row), None)
    plan = {"name": stage.name, "images": total, "remaining": total * len(own) - sum(begun), "shared_with": shared}
    if not own and not shared:
        return StagePlan(**plan, gpu_seconds=0.0, disk_bytes=0)

    gpus = run.compute.gpus or 1
    cost = speed.cost(run, index)
    if isinstance(cost, str):
        plan["problem"] = cost
    else:
        plan["disk_bytes"] = (KEEP + 1) * cost.state_bytes * len(own)
        plan["memory_bytes"] = max(memory(step, gpus) for step in cost.steps)
    if speed.given is not None:
        rate, plan["source"] = (lambda begin: (total - begin) / speed.given), "given"
    elif isinstance(cost, str) or isinstance(found := speed.steps(run, index, cost), str):
        return StagePlan(**{"problem": cost if isinstance(cost, str) else found} | plan)
    else:
        steps, plan["source"] = found
        per_image = [second / step.batch_size for second, step in zip(steps, cost.steps, strict=True)]
        rate = functools.partial(seconds_from, starts=stage.schedule.starts, total=total, per_image=per_image)
    whole = rate(0)
    return StagePlan(**plan, seconds=whole, images_per_second=total / whole, gpu_seconds=gpus * sum(map(rate, begun)))


def seconds_from(begin: int, starts: Sequence[int], total: int, per_image: Sequence[float]) -> float:
    """Seconds from image `begin` to `total`, of phases that begin at `starts` and take `per_image` seconds each."""
    ends = (*starts[1:], total)
    return sum(max(0, end - max(start, begin)) * each for start, end, each in zip(starts, ends, per_image, strict=True))


def memory(step: "StepCost", gpus: int) -> int:
    """Bytes of one of `gpus` processes: each has the whole model and optimiser, and the activations of its rows."""
    return step.fixed_bytes + -(-(step.peak_bytes - step.fixed_bytes) // gpus)


# What stands beside the rows.


def _data_of(runs: Iterable[RunSpec]) -> dict[str, tuple[int | None, str]]:
    """Bytes of each pack that the runs read, and how that is known.

    Where they read it at several resolutions it is the pack of the highest: the others are averaged from it.
    """
    from genae.data.sizes import sizes_of

    found: dict[str, list[tuple[int, int, int | None, str]]] = {}
    for spec in {canonical(run.data): run.data for run in runs}.values():
        for name, size, how in sizes_of(spec):
            found.setdefault(name, []).append((spec.get("resolution", 0), size or 0, size, how))
    return {name: max(known, key=lambda one: one[:2])[2:] for name, known in found.items()}


def _evaluation(experiment: Experiment, folders: study.Folders, outstanding: set[int]) -> str:
    """What records of the same metrics, with the same settings at the same scale, say of the time that measuring takes."""
    took: dict[str, list[float]] = {}
    for path in sorted(folders.results.glob("*/*.jsonl")):
        for record in results.read(path):
            if record.get("scale") == experiment.scale and record["status"] == "ok":
                took.setdefault(_measured(record["settings"]), []).append(record["seconds"])
    cells = [column for run in experiment.runs if id(run) in outstanding for column in run.columns if not column.removed]
    asked = [_measured({"metric": column.metric, "measure_on": column.measure_on}) for column in cells]
    known = [sum(took[cell]) / len(took[cell]) for cell in asked if cell in took]
    if not cells:
        return "nothing is left to measure"
    if not known:
        return "not counted: no record of these metrics at this scale tells how long they take"
    some = (
        f"{sum(known) / 3600:,.2f} hours for {len(known)} of {len(cells)} numbers, by records of the same metrics at this scale"
    )
    return some if len(known) == len(cells) else f"{some}; the others are not counted"


def _measured(settings: Mapping[str, Any]) -> str:
    return canonical([settings["metric"], settings["measure_on"]])


def _notes(rows: Sequence[RowPlan], gpu: str | None) -> list[str]:
    notes = [
        f"{row.row}: {stage.name} is that of {stage.shared_with}, counted there"
        for row in rows
        for stage in row.stages
        if stage.shared_with
    ]
    notes += [f"{row.row}, {stage.name}: {stage.problem}" for row in rows for stage in row.stages if stage.problem]
    by_flops: dict[str, list[str]] = {}
    for row in rows:
        for stage in row.stages:
            if stage.source and "FLOPs" in stage.source:
                by_flops.setdefault(stage.source, []).append(row.row)
    notes += [f"{source}: {', '.join(dict.fromkeys(names))}" for source, names in by_flops.items()]
    if any(row.gpus > 1 for row in rows):
        notes.append(
            "runs on several GPUs are taken to share their arithmetic without loss; each GPU waits for every operation"
            if gpu
            else "runs on several GPUs are taken to share their work without loss"
        )
    if gpu:
        large = [row.row for row in rows if (row.whole.memory_bytes or 0) > 1e9 * GPUS[gpu].memory]
        if large:
            notes.append(f"more memory than one {gpu} has ({GPUS[gpu].memory} GB): {', '.join(dict.fromkeys(large))}")
    return notes


def _peaks(gpu: Gpu) -> str:
    peaks = {"TF32": gpu.tf32, "float32": gpu.float32, "bfloat16": gpu.bfloat16}
    return ", ".join(f"{peak:g} {name}" for name, peak in peaks.items() if peak) + " TFLOP/s"


def _machine(runs: Iterable[RunSpec]) -> str:
    """The device that the runs would train on here."""
    import torch

    from genae.context import resolve_device

    if any(resolve_device(run.compute.device).type == "cuda" for run in runs):
        return torch.cuda.get_device_name()
    threads = " or ".join(str(count) for count in sorted({run.compute.threads for run in runs}))
    return f"{provenance.machine()['processor']}, {threads} thread{'' if threads == '1' else 's'} a run"


def _sum(values: Iterable[float | None]) -> float | None:
    values = list(values)
    return None if None in values else sum(values)
