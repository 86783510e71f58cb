"""The automodulator's training step against the convolutions inside it.

Every convolution call of a recorded step, forward and backward, blur included, is replayed on its own tensors with the same
gradients asked for, alternating with whole steps of `genae.training` (its draws, encoder and decoder updates, Adam, moving
average, sums of the loss terms). The ratio is what all else costs: 1.0 would be a step of nothing but convolutions.

    python benchmarks/train_step.py [--threads 1 2] [--repeats 8]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genae.registry import MODELS, OBJECTIVES
from genae.schedule import PhaseSettings, Schedule
from genae.spec import StageSpec
from genae.training import Training

BATCH_SIZE = 32
STEPS = range(4)  # of one round: the split j, and with it the convolutions, differ by step


@dataclass(frozen=True)
class Case:
    """One row: a network's size, what is switched on, and the ratio to stay under, by number of threads."""

    width: int
    resolution: int
    full: bool  # with d_rho and noise inputs
    bars: dict[int, float]

    @property
    def name(self) -> str:
        return f"width {self.width}, {self.resolution}x{self.resolution}, {'d_rho and noise' if self.full else 'L1, no noise'}"


CASES = (
    Case(64, 32, False, {1: 1.4, 2: 1.5}),
    Case(24, 16, False, {1: 1.7, 2: 2.0}),
    Case(64, 32, True, {1: 1.6, 2: 1.8}),
    Case(24, 16, True, {1: 2.0, 2: 2.4}),
)


class _Convolutions(TorchDispatchMode):
    """Keeps every convolution call made under it, as functions that make it again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            kept = [value.detach() if isinstance(value, torch.Tensor) else value for value in args]
            self.calls.append(lambda: function(*kept))
        return function(*args, **(kwargs or {}))


def training_step(case: Case, mixed_fakes: str) -> Callable[[int], None]:
    """step(number): a whole step as `genae run` takes it, which repeats its draws when it is given the same number again."""
    settings = {"latent_dim": 64, "channels": [case.width], "noise": case.full}
    shape = (3, case.resolution, case.resolution)
    model = MODELS.build({"name": "automodulator", **settings}, shape).to(memory_format=torch.channels_last)

    reconstruction = "robust" if case.full else "l1"
    stage = StageSpec(
        name="autoencoder",
        objective={"name": "automodulator", "reconstruction": reconstruction, "mixed_fakes": mixed_fakes},
        schedule=Schedule(
            total_kimg=1,
            phases=(PhaseSettings(resolution=case.resolution, batch_size=BATCH_SIZE, learning_rate=1e-3, margin=0.5),),
        ),
        optimizer={"name": "adam", "betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 0.0},
        average={"parts": ["decoder"], "decay_per_step": 0.999},
        identity="",
    )
    training = Training(model, OBJECTIVES.build(stage.objective), stage, seed=0)
    phase = stage.schedule.at(0)
    images = torch.rand(BATCH_SIZE, *shape).mul(2).sub(1).contiguous(memory_format=torch.channels_last)

    def step(number: int) -> None:
        training.images_seen = BATCH_SIZE * number  # what its draws are keyed by
        training.step(images, phase)

    return step


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(case: Case, mixed_fakes: str, repeats: int) -> tuple[float, float]:
    """Median seconds of a step, and of its convolutions alone."""
    step = training_step(case, mixed_fakes)
    for number in 3 * list(STEPS):  # fill the image pool and Adam's state
        step(number)
    with _Convolutions() as recorded:
        for number in STEPS:
            step(number)

    def steps() -> None:
        for number in STEPS:
            step(number)

    def convolutions() -> None:
        for call in recorded.calls:
            call()

    pairs = [(seconds(steps), seconds(convolutions)) for _ in range(repeats + 1)][1:]
    whole, alone = (statistics.median(times) / len(STEPS) for times in zip(*pairs, strict=True))
    return whole, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--mixed-fakes", nargs="+", default=["re-encoded", "direct"])
    options = parser.parse_args()

    print(f"{'automodulator step, batch 32':36} {'mixed fakes':12} threads  steps/s  ratio  at most")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for case in CASES:
            for mixed_fakes in options.mixed_fakes:
                whole, alone = measure(case, mixed_fakes, options.repeats)
                bar = case.bars.get(threads)
                print(
                    f"{case.name:36} {mixed_fakes:12} {threads:7} {1 / whole:8.2f} {whole / alone:6.2f}"
                    f"  {bar if bar else '-':7}{'' if not bar or whole / alone <= bar else '  MISSED'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
