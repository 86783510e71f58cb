"""What a training step costs: its products counted and its memory tallied without computing anything; its time, by taking some.

Counting takes the real step of the real model and objective, at the phase's own batch size, on tensors that have a shape and no
numbers (torch's FakeTensorMode). Random draws that steer the program (which layer, which images of a pool) are real. So a step
at 256x256 that would take a processor an hour is counted in a second or two. Timing takes real steps of random images.
"""

import contextlib
import math
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from genae.checkpoint import untrained_density, untrained_model
from genae.context import resolve_device, seconds_of
from genae.densities.density import Density
from genae.models.autoencoder import Generator
from genae.randomness import generator_for
from genae.registry import OBJECTIVES
from genae.schedule import Phase
from genae.spec import RunSpec
from genae.training import Training

FEW = 4  # images of the smallest step that is timed: a quarter of a batch, as codes are mixed, is then one image
PATIENCE = 4  # times the seconds of a step that the last phase to be timed may take: all larger ones go by its pace
DRAWN_FOR_REAL = 100_000  # numbers; larger draws (noise beside feature maps) decide nothing, and become shapes too
VECTORS = 1000  # that a density finds its starting values in


@dataclass(frozen=True)
class StepCost:
    """One step of a phase.

    conv_flops, matmul_flops: of its convolutions, and of its other products, forward and backward; a multiplication and an
    addition are two.  operations: that PyTorch issues.  fixed_bytes: of parameters, their gradients, optimiser states and
    averages.  peak_bytes: with the activations, at the moment that needs most.
    """

    resolution: int | None
    batch_size: int
    conv_flops: float
    matmul_flops: float
    operations: int
    fixed_bytes: int
    peak_bytes: int

    @property
    def flops(self) -> float:
        return self.conv_flops + self.matmul_flops


@dataclass(frozen=True)
class StageCost:
    """steps: one for each phase of the schedule.  state_bytes: of one checkpoint at the stage's end."""

    steps: tuple[StepCost, ...]
    state_bytes: int


@dataclass(frozen=True)
class Timing:
    """seconds: of one step of each phase.  timed: how many of the first phases were; the others are those by their FLOPs."""

    seconds: tuple[float, ...]
    timed: int


def count_stage(run: RunSpec, index: int, shape: Sequence[int]) -> StageCost:
    """What the steps of stage `index` cost, for data of `shape` ((C, H, W) or (D,)), which need not be here.

    Whatever the model or the objective raises travels.
    """
    stage = run.stages[index]
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with _undisturbed(1), warnings.catch_warnings():
        # torch's own copy.deepcopy of a parameter asks for it; nothing here reads what it points to
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        model, trained = _models(run, index, shape)
        stored = nbytes(model.state_dict()) if stage.density else 0
        training = _Unmoved(
            _as_shapes(trained, fake), OBJECTIVES.build(stage.objective), stage, seed=0, precision=_precision(run, index)
        )
        known: dict[tuple[int | None, int], StepCost] = {}
        steps = []
        for phase in _phases(run, index):
            size = (phase.resolution, phase.batch_size)
            if size not in known:
                known[size] = _count(training, phase, _row(phase, shape, model), fake)
            steps.append(known[size])
        state = training.state_dict()
        stored += nbytes({key: value for key, value in state.items() if key != "optimizers"}) + training.moments
        if stage.keep_best:
            stored += nbytes(state["model"])
    return StageCost(tuple(steps), stored)


def time_stage(run: RunSpec, index: int, shape: Sequence[int], cost: StageCost, seconds: float) -> Timing:
    """How long the steps of stage `index` take on this machine, in phases of rising size as far as `seconds` for each reach.

    A step is timed at two batch sizes, the second as large as the time allows (at most the phase's own), and the line through
    both tells that of the whole batch.
    """
    device = resolve_device(run.compute.device)
    found: list[float] = []
    with _undisturbed(run.compute.threads):
        model, trained = _models(run, index, shape)
        trained = trained.to(device, memory_format=torch.channels_last)
        training = Training(
            trained, OBJECTIVES.build(run.stages[index].objective), run.stages[index], seed=0, precision=_precision(run, index)
        )
        known: dict[tuple[int | None, int], float] = {}
        rate = math.inf  # FLOP/s of the phase before
        for phase, step in zip(_phases(run, index), cost.steps, strict=True):
            size = (phase.resolution, phase.batch_size)
            if size not in known:
                if FEW * step.flops / step.batch_size > PATIENCE * seconds * rate:
                    break
                known[size] = _seconds(training, phase, _row(phase, shape, model), device, seconds)
            found.append(known[size])
            rate = step.flops / known[size] or math.inf
    return Timing((*found, *(step.flops / rate for step in cost.steps[len(found) :])), len(found))


class _Unmoved(Training):
    """A training whose optimisers take no step, since shapes cannot move.  moments: the bytes that Adam would keep."""

    def _set_up_updates(self) -> None:
        super()._set_up_updates()
        for optimizer in self.optimizers.values():
            optimizer.step = lambda: None

    @property
    def moments(self) -> int:
        return 2 * sum(p.nbytes for o in self.optimizers.values() for group in o.param_groups for p in group["params"])


class Tally(TorchDispatchMode):
    """Counts the FLOPs of what is computed inside, and the bytes of the tensors alive."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake
        self.conv_flops = self.matmul_flops = 0.0
        self.operations = self.live = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with self.fake if _draws_many(args) else contextlib.nullcontext():
            result = func(*args, **kwargs)
        self.operations += 1
        packet = func._overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
            if "conv" in str(packet):
                self.conv_flops += flops
            else:
                self.matmul_flops += flops
        for value in (*args, *(result if isinstance(result, tuple | list) else [result])):
            if isinstance(value, Tensor):
                self.hold(value)
        return result

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is let go."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size


def _draws_many(args: tuple) -> bool:
    """Whether these are the arguments of an operation that makes a large tensor out of none."""
    size = args[0] if args else None
    return isinstance(size, list | tuple) and all(isinstance(n, int) for n in size) and math.prod(size) > DRAWN_FOR_REAL


def _count(training: _Unmoved, phase: Phase, row: tuple[int, ...], fake: FakeTensorMode) -> StepCost:
    with fake:
        images = torch.empty(phase.batch_size, *row)
        if len(row) == 3:
            images = images.contiguous(memory_format=torch.channels_last)
    training.images_seen = phase.images_seen
    average = training.average.parts.values() if training.average else []
    kept = [*training.model.parameters(), *training.model.buffers(), *(p for part in average for p in part.parameters())]
    tally = Tally(fake)
    with tally:
        for tensor in kept:
            tally.hold(tensor)
        training.step(images, phase)
    gradients = training.moments // 2
    fixed = sum(tensor.nbytes for tensor in kept) + training.moments + gradients
    return StepCost(
        resolution=phase.resolution,
        batch_size=phase.batch_size,
        conv_flops=tally.conv_flops,
        matmul_flops=tally.matmul_flops,
        operations=tally.operations,
        fixed_bytes=fixed,
        peak_bytes=max(fixed, tally.peak + training.moments),
    )


def _seconds(training: Training, phase: Phase, row: tuple[int, ...], device: torch.device, seconds: float) -> float:
    """Of one step of the phase's batch."""
    generator = generator_for(device, "plan", phase.index)

    def take(count: int) -> float:
        images = torch.rand(count, *row, generator=generator, device=device) * 2 - 1
        if len(row) == 3:
            images = images.contiguous(memory_format=torch.channels_last)
        training.images_seen = phase.images_seen
        return seconds_of(lambda: training.step(images, phase), device)

    few = min(FEW, phase.batch_size)
    while True:
        try:
            first = take(few)
            break
        except ValueError:  # batch statistics of so few
            if few == phase.batch_size:
                raise
            few = min(2 * few, phase.batch_size)
    if first < seconds:  # that was the warm-up
        first = take(few)
    many = min(phase.batch_size, int(few * seconds / first))
    while many >= 2 * few:
        try:
            last = min(take(many) for _ in range(2))
        except torch.OutOfMemoryError:
            many //= 2
            continue
        return last + max(0.0, (last - first) / (many - few)) * (phase.batch_size - many)
    return first * phase.batch_size / few


def _models(run: RunSpec, index: int, shape: Sequence[int]) -> tuple[Generator, Generator | Density]:
    """The run's model, and what the stage trains: that, or a density of its codes; as before training."""
    stage = run.stages[index]
    model = untrained_model(run.model, tuple(shape), 0)
    if not stage.density:
        return model, model
    density = untrained_density(stage.density, model.latent.dim, 0)
    density.begin(model.prior(VECTORS, generator_for("cpu", "plan")).sigmoid())  # some take nothing outside [0, 1]
    return model, density


def _phases(run: RunSpec, index: int) -> Iterator[Phase]:
    """Each phase at its end: when it has settled."""
    schedule = run.stages[index].schedule
    for end in (*schedule.starts[1:], schedule.total_images):
        yield schedule.at(end - 1)


def _row(phase: Phase, shape: Sequence[int], model: Generator) -> tuple[int, ...]:
    """The shape of what a step takes: images at the phase's resolution, or codes."""
    return (model.latent.dim,) if phase.resolution is None else (shape[0], phase.resolution, phase.resolution)


def _precision(run: RunSpec, index: int) -> str:
    return "float32" if run.stages[index].density else run.precision


def _as_shapes(network: Any, fake: FakeTensorMode) -> Any:
    """The same network without its numbers."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                with fake:
                    module._parameters[name] = nn.Parameter(fake.from_tensor(parameter.detach()))
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():  # flags and orders steer the program
                module._buffers[name] = fake.from_tensor(buffer)
    return network


def nbytes(value: Any) -> int:
    """Of all the tensors in nested values."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(nbytes(inner) for inner in value.values())
    return sum(nbytes(inner) for inner in value) if isinstance(value, list | tuple) else 0


@contextlib.contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    """Leaves the random state and the number of threads as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)
