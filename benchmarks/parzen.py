"""The Parzen-window log likelihood: one matrix product against the loop that broadcasts differences, on one thread.

    python benchmarks/parzen.py [--repeats 3] [--samples 10000] [--dims 784] [--points 1000] [--loop-points 50]

The loop is the one that the literature's numbers come from: ten test points at a time, their differences to all samples
[10, M, d], log mean exp. It takes minutes, so it is timed on the first points only, and its time counts per point; the numbers
of those points are compared. Both are in float64 and take turns; times are medians of CPU seconds, so that a busy machine slows
neither. scikit-learn's KernelDensity stands beside, where it is installed: its answer is wrong in many dimensions.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, just below

import torch
from torch import Tensor

from genae.metrics.parzen import log_likelihoods

BAR = 100.0  # times as fast, 10,000 samples of 784 dimensions
EQUAL = 1e-6  # nats
SIGMA = 0.2
GRID = 20  # bandwidths of a search
AT_ONCE = 10  # test points of the loop
Window = Callable[[Tensor, Tensor], Tensor]  # samples [M, d], points [N, d] -> log likelihoods [N]


def ours(samples: Tensor, points: Tensor) -> Tensor:
    return log_likelihoods(samples, points, [SIGMA])[0]


def broadcast_loop(samples: Tensor, points: Tensor) -> Tensor:
    """The same from the differences of all pairs."""
    dims = samples.shape[1]
    found = []
    for some in points.split(AT_ONCE):
        exponents = -0.5 * ((some[:, None] - samples) / SIGMA).square().sum(2)  # of differences [10, M, d]
        largest = exponents.max(1).values
        found.append(largest + (exponents - largest[:, None]).exp().mean(1).log())
    return torch.cat(found) - dims * math.log(SIGMA * math.sqrt(2 * math.pi))


def kernel_density() -> Window | None:
    """scikit-learn's KernelDensity with its defaults; None where it is not installed."""
    try:
        from sklearn.neighbors import KernelDensity
    except ModuleNotFoundError as error:
        print(f"KernelDensity does not run here ({error})")
        return None

    def window(samples: Tensor, points: Tensor) -> Tensor:
        density = KernelDensity(kernel="gaussian", bandwidth=SIGMA).fit(samples.numpy())
        return torch.from_numpy(density.score_samples(points.numpy()))

    return window


def pictures(count: int, dims: int, seed: int) -> Tensor:
    """Vectors in [0, 1] near a manifold of 8 dimensions, as images are, float64 [count, dims]."""
    mixing = torch.randn(8, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.sigmoid(codes @ mixing)


def timed(window: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """(CPU seconds, log likelihoods)."""
    began = time.process_time()
    found = window()
    return time.process_time() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("repeats", 3), ("samples", 10_000), ("dims", 784), ("points", 1000), ("loop-points", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; bar: {BAR:.0f}x the loop, equal to {EQUAL:.0e} nat")
    samples, points = pictures(options.samples, options.dims, 1), pictures(options.points, options.dims, 2)
    few = points[: options.loop_points]
    rivals: dict[str, tuple[Window, Tensor]] = {"genae": (ours, points), "broadcast loop": (broadcast_loop, few)}
    if peer := kernel_density():
        rivals["sklearn KernelDensity"] = (peer, few)

    ours(samples, few)
    turns = [{name: timed(lambda r=r, p=p: r(samples, p)) for name, (r, p) in rivals.items()} for _ in range(options.repeats)]
    own = turns[0]["genae"][1]
    print(f"{options.samples} samples of {options.dims} dimensions, {options.points} test points, one bandwidth")
    for name, (_, on) in rivals.items():
        spent = median(turn[name][0] for turn in turns) / len(on) * len(points)
        ratio = spent / median(turn["genae"][0] for turn in turns)
        apart = (turns[0][name][1] - own[: len(on)]).abs().max().item()
        print(f"  {name:24} {spent:9.3f} s  {ratio:7.1f}x  apart {apart:.1e} nat", flush=True)
    search, _ = timed(lambda: log_likelihoods(samples, points, [0.1 + 0.01 * step for step in range(GRID)]))
    print(f"  {f'genae, {GRID} bandwidths':24} {search:9.3f} s")


if __name__ == "__main__":
    main()
