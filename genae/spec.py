"""What an experiment file means, as values: a table's rows and columns, and the runs that fill it.

All specs are resolved: every setting is there, as plain JSON values, so a run can be written to disk and read back elsewhere.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from genae.schedule import PhaseSettings, Schedule


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job asks of a cluster. What is null is left to the cluster's file, then to submitit and SLURM.

    gpus: processes that share one run, each with a GPU of its own unless the device is the CPU; over all nodes.  nodes: of one
    run.  evaluate_in: "own-job", which waits for its training; "same-job", where the cap on jobs then holds for both.
    All else is named as submitit names it, and `slurm_x` is what sbatch calls --x. slurm_array_parallelism: the most jobs of
    one array at once.  slurm_signal_delay_s: how long before its end a job is told.  slurm_max_num_timeout: how often a run may
    use up its time and go on in another slot.  slurm_setup: lines of shell before the job.
    """

    gpus: int | None = None
    nodes: int | None = None
    evaluate_in: Literal["own-job", "same-job"] | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_constraint: str | None = None
    slurm_gres: str | None = None
    slurm_exclude: str | None = None
    slurm_nodelist: str | None = None
    slurm_exclusive: bool | None = None
    slurm_comment: str | None = None
    slurm_mail_type: str | None = None
    slurm_mail_user: str | None = None
    slurm_array_parallelism: int | None = None
    slurm_signal_delay_s: int | None = None
    slurm_max_num_timeout: int | None = None
    slurm_setup: tuple[str, ...] | None = None
    slurm_srun_args: tuple[str, ...] | None = None
    slurm_additional_parameters: dict[str, str | int | bool] | None = None

    def __post_init__(self) -> None:
        for name in ("gpus", "nodes", "cpus_per_task", "mem_gb", "timeout_min", "slurm_array_parallelism"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    def asked(self) -> dict[str, Any]:
        """The resources that are given, by name."""
        return {field.name: value for field in fields(Resources) if (value := getattr(self, field.name)) is not None}


@dataclass(frozen=True, kw_only=True)
class Compute(Resources):
    """How a run is computed. Of this only `precision` changes what a run is, and belongs to its identity.

    threads: of one run; a resume keeps them, unless threads_may_change (its weights then differ by rounding).
    device: "auto" is the GPU where there is one.  precision: of the network's arithmetic while training.
    compile: torch.compile.  checkpoint_seconds: between checkpoints.  log_kimg: thousands of images between lines of
    progress.jsonl.  jobs: runs side by side on this machine; null lets the command line say.
    """

    threads: int = 1
    threads_may_change: bool = False
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    checkpoint_seconds: float = 60.0
    log_kimg: float = 1.0
    jobs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("threads", "checkpoint_seconds", "log_kimg"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be positive, not {self.jobs}")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """`optimizer: {name: adam, ...}`; the learning rate is a phase's.

    betas: of the running means.  eps: added to the root.  weight_decay: L2 penalty, in the gradient.
    """

    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {list(self.betas)}")
        if self.eps <= 0 or self.weight_decay < 0:
            raise ValueError("eps must be positive and weight_decay must not be negative")


@dataclass(frozen=True, kw_only=True)
class Average:
    """`average:` of a stage: the parts that are evaluated with averaged weights.

    parts: of the model, by name.  half_life_kimg: thousands of images in which a weight's share halves.  decay_per_step: what
    some released code states instead; one of the two must be given.
    """

    parts: tuple[str, ...]
    half_life_kimg: float | None = None
    decay_per_step: float | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts must name at least one part of the model")
        if (self.half_life_kimg is None) == (self.decay_per_step is None):
            raise ValueError("give either half_life_kimg or decay_per_step (an overlay removes the other with null)")
        if self.half_life_kimg is not None and self.half_life_kimg <= 0:
            raise ValueError(f"half_life_kimg must be positive, not {self.half_life_kimg}")
        if self.decay_per_step is not None and not 0 < self.decay_per_step < 1:
            raise ValueError(f"decay_per_step must lie between 0 and 1, not {self.decay_per_step}")

    def decay(self, batch_size: int) -> float:
        """The weight that the old average keeps in one step of `batch_size` images."""
        if self.half_life_kimg is None:
            return self.decay_per_step
        return 0.5 ** (batch_size / (1000 * self.half_life_kimg))


@dataclass(frozen=True, kw_only=True)
class KeepBest:
    """`keep_best:` of a stage that trains a density: it ends with the weights whose mean log density was best on another split.

    split: "validation"; "test" repeats code that selected on its test set, and the table then says so.  every_kimg: thousands
    of vectors between two looks, the last at the stage's end.  count: the first so many vectors of the split; None is all.
    """

    split: Literal["validation", "test"] = "validation"
    every_kimg: float
    count: int | None = None

    def __post_init__(self) -> None:
        if self.every_kimg <= 0:
            raise ValueError(f"every_kimg must be positive, not {self.every_kimg}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, or null for the whole split, not {self.count}")

    def is_due(self, images_seen: int, batch_size: int, total_images: int) -> bool:
        """Whether the step that ended at `images_seen` crossed a multiple of every_kimg, or was the last."""
        every = max(1, round(1000 * self.every_kimg))
        return images_seen // every > (images_seen - batch_size) // every or images_seen >= total_images


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of training. optimizer: {name, betas, eps, weight_decay}. average: the fields of Average, or None.

    density: of a stage that trains one on the codes: {name, settings}.  keep_best: the fields of KeepBest, or None.
    identity: sha256 (hex) of everything that decides the weights at this stage's end; directories use its first 12 digits.
    """

    name: str
    objective: dict[str, Any]
    schedule: Schedule
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    identity: str
    density: dict[str, Any] | None = None
    keep_best: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    data: the short name of the data set whose runs it measures; None is every run's own.  measure_on: the spec of another data
    set to measure on, with `split` and `count` (None is all).  in_place_of: what an overlay exchanged, as text: "lpips,
    celeba-hq", or "celeba-hq" where the metric is the same, or "128x128" where the data are too.  removed: not measured at this
    scale; the paper's numbers stay.  direction: "min" or "max", what is better.  of_one_autoencoder: numbers compare only among
    rows whose first stage is the same.
    """

    id: str
    metric: dict[str, Any]
    data: str | None = None
    measure_on: dict[str, Any] | None = None
    in_place_of: str | None = None
    removed: bool = False
    direction: str = "min"
    of_one_autoencoder: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One row on one data set with one seed: all that training and measuring it needs.

    data_name: the short name in the table, else the data set's own name.  flip: mirror training images at random.
    columns: those that apply to this data set.  identity: of the last stage; without stages, of data, model and seed.
    root: the folder from which `imports` are looked for.
    """

    table: str
    row: str
    scale: str
    data_name: str
    data: dict[str, Any]
    flip: bool
    seed: int
    model: dict[str, Any]
    stages: tuple[StageSpec, ...]
    columns: tuple[Column, ...]
    figures: tuple[dict[str, Any], ...]
    compute: Compute
    imports: tuple[str, ...]
    root: Path
    identity: str

    @property
    def precision(self) -> str:
        return self.compute.precision

    @property
    def label(self) -> str:
        """What a run directory's name begins with. It names no table: one run may serve rows of several."""
        return f"{self.model['name']}-{self.data['name']}-s{self.seed}"

    @property
    def total_images(self) -> int:
        """Images seen by the end of the last stage."""
        return sum(stage.schedule.total_images for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes an equal run."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The run that `to_dict` wrote."""
        values = {field.name: values[field.name] for field in fields(cls)}
        values["stages"] = tuple(_stage(stage) for stage in values["stages"])
        values["columns"] = tuple(Column(**column) for column in values["columns"])
        values["figures"], values["imports"] = tuple(values["figures"]), tuple(values["imports"])
        values["compute"], values["root"] = Compute(**values["compute"]), Path(values["root"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """One row of a table as the paper has it.

    published, plus_minus: the paper's numbers and their error bars by column id, where it gives them.
    """

    id: str
    label: str
    published: dict[str, float]
    plus_minus: dict[str, float]
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of its table, and the inequality over columns that decides it (expression.py reads it)."""

    id: str
    text: str
    where: str
    expression: str


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table at one scale.

    rows: all of them, in the file's order, those of published numbers alone included.  columns: by id, in the paper's order.
    runs: rows x data sets x seeds, of the rows that were asked for.  overrides: of the command line, as they were typed.
    """

    path: Path
    root: Path
    table: str
    title: str | None
    source: str | None
    caption: str | None
    scale: str
    imports: tuple[str, ...]
    rows: dict[str, RowSpec]
    columns: dict[str, Column]
    seeds: tuple[int, ...]
    claims: tuple[Claim, ...]
    runs: tuple[RunSpec, ...]
    overrides: tuple[str, ...] = ()


def schedule_from(values: Mapping[str, Any]) -> Schedule:
    """A schedule from its plain values."""
    return Schedule(total_kimg=values["total_kimg"], phases=tuple(PhaseSettings(**phase) for phase in values["phases"]))


def _stage(values: Mapping[str, Any]) -> StageSpec:
    return StageSpec(**{**values, "schedule": schedule_from(values["schedule"])})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
